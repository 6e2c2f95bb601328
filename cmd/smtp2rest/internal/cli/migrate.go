package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/owner"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/store"
)

func migrateCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "migrate --from URL --to URL",
		Short: "Move the queue and all records from one store to another.",
		Long: `Moves the queue, the suppressions, the history, the provider's events and what a relay has to
remember from one store to an empty one. Then both are read again and compared by number
and checksum. Every relay on either store must be stopped, and none starts meanwhile.

A URL is "sqlite:" and a data directory, or that of a PostgreSQL database. One with a
password belongs in the environment: "env:NAME" stands for the URL in that variable.

If it is ended, the same command goes on where it was. At its end the old store is as it
was, but no relay starts on it any more, because its mail would be sent twice. Until then
--abandon lets relays go on with the old store; throw the new one away then.`,
		Example: terminal.Examples("sudo smtp2rest migrate --from sqlite:/var/lib/smtp2rest --to env:SMTP2REST_STORE_URL",
			"smtp2rest migrate --from postgres://relay@db.example.com/mail --to sqlite:/var/lib/smtp2rest-2"),
		Args: terminal.NoArgs("name the stores with --from and --to"),
	}
	fs := c.Flags()
	from := fs.String("from", "", "the `URL` of the store that has everything")
	to := fs.String("to", "", "the `URL` of an empty store")
	abandon := fs.Bool("abandon", false, "do not go on; let relays use the old store again")
	asJSON := terminal.DeclareJSON(fs)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if *from == "" || *to == "" {
			return terminal.Usagef("name both stores with --from and --to")
		}
		m := store.Migration{From: fromEnv(t, *from), To: fromEnv(t, *to), Log: slog.New(slog.NewTextHandler(t.Err, &slog.HandlerOptions{Level: slog.LevelWarn}))}
		if err := becomeOwner(m); err != nil {
			return err
		}
		if *abandon {
			return store.Abandon(cmd.Context(), m.From, m.Log)
		}
		var latest time.Time
		m.Progress = func(p store.Progress) {
			if time.Since(latest) < 2*time.Second {
				return
			}
			latest = time.Now()
			done := "moved"
			if p.Check {
				done = "compared"
			}
			fmt.Fprintf(t.Err, "%s: %d %s\n", p.Part, p.Done, done)
		}
		moved, err := m.Run(cmd.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			return terminal.PrintJSON(t.Out, moved)
		}
		return printMoved(t, moved)
	}
	return c
}

// fromEnv is the URL that a flag means.
func fromEnv(t *terminal.Terminal, text string) string {
	if name, ok := strings.CutPrefix(text, "env:"); ok {
		url, _ := t.Env(name)
		return url
	}
	return text
}

// becomeOwner makes this process the owner of the data directories, so that the relay can
// use the files that are made.
func becomeOwner(m store.Migration) error {
	for _, url := range []string{m.From, m.To} {
		p, err := store.PlaceOf(url)
		if err != nil {
			return err
		}
		if _, err := os.Stat(p.Dir); p.Dir == "" || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := owner.Become(p.Dir); err != nil {
			return err
		}
	}
	return nil
}

func printMoved(t *terminal.Terminal, m store.Moved) error {
	fmt.Fprintf(t.Out, "Moved and compared: %s, %s", terminal.Counted(int(m.Mails), "mail"), terminal.Counted(int(m.Marks), "mark"))
	for _, table := range slices.Sorted(maps.Keys(m.Rows)) {
		fmt.Fprintf(t.Out, ", %d %s", m.Rows[table], strings.ReplaceAll(table, "_", " "))
	}
	_, err := fmt.Fprintln(t.Out, ".\nNo relay starts on the old store any more. Remove it when the new one has proved itself.")
	for _, id := range m.Damaged {
		fmt.Fprintf(t.Err, "mail %s stays behind: its content is damaged, and its sender was told or is told by nobody now\n", id)
	}
	return err
}
