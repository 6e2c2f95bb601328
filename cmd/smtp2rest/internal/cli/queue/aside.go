package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/owner"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/store"
)

func queueSetAsideCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "set-aside",
		Short: "Rename a damaged queue, so that the next start has an empty one.",
		Long: `Renames the database and the spool of a stopped daemon, for when it says that
they are damaged and there is no time to rescue what is readable first. Nothing is
removed: the mail in them can be looked for later. The daemon must not run.`,
		Example: terminal.Examples("sudo smtp2rest queue set-aside --data-dir /var/lib/smtp2rest"),
	}
	fs := c.Flags()
	var r reach.Flags
	fs.StringVar(&r.Dir, "data-dir", "", "the data `directory`")
	var asJSON bool
	terminal.DeclareJSON(fs, &asJSON)
	fs.StringVar(&r.Config, "config", "", "the daemon's TOML `file`, for its queue.data_dir")
	c.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return terminal.Usagef("unexpected argument %q; name the queue with --data-dir or --config", args[0])
		}
		if _, said := t.Env("SMTP2REST_DATA_DIR"); !said && r.Dir == "" && r.Config == "" { // not one that is merely likely
			return terminal.Usagef("name the queue with --data-dir, --config or SMTP2REST_DATA_DIR")
		}
		return setAside(t, r, asJSON)
	}
	return c
}

func setAside(t *terminal.Terminal, r reach.Flags, asJSON bool) error {
	dir, err := r.DataDir(t)
	if err != nil {
		return err
	}
	if errors.Is(store.Exists(store.SQLite(dir), store.OnlyQueue), fs.ErrNotExist) && absent(filepath.Join(dir, "spool")) {
		return fmt.Errorf("there is no queue in %s", dir)
	}
	if err := owner.Become(dir); err != nil {
		return err
	}
	name, err := store.SetAside(store.SQLite(dir), time.Now())
	if err != nil {
		return err
	}
	if asJSON {
		return terminal.PrintJSON(t.Out, struct {
			Renamed string `json:"renamed"`
		}{name})
	}
	_, err = fmt.Fprintf(t.Out, "The queue is %s now, its spool beside it; the next start has an empty one.\n", name)
	return err
}

func absent(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}
