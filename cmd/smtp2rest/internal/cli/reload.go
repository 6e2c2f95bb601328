package cli

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
)

func reloadCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "reload",
		Short: "Have the running relay read its configuration again.",
		Long: `The daemon reads its file, and all files that it names, checks all of it and goes on
with it, or, when anything is wrong, with what it had; it never goes on with a part. No
connection and no mail is lost. What changed is printed. The environment is the one that
the daemon was started with; systemd gives it new credentials at a restart only.

It exits 0 when the configuration is in force, and 78, with all that is wrong, when not.
Without a daemon it exits 3; 'smtp2rest check' looks at a configuration without one.`,
		Example: terminal.Examples("sudo smtp2rest reload", "smtp2rest reload --socket /run/smtp2rest/admin.sock", "smtp2rest reload --json"),
	}
	fs := c.Flags()
	var q reach.Flags
	q.Declare(fs)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) > 0 {
			return terminal.Usagef("unexpected argument %q", args[0])
		}
		return reload(ctx, t, q)
	}
	return c
}

func reload(ctx context.Context, t *terminal.Terminal, q reach.Flags) error {
	c, err := q.Dial(ctx, t)
	if errors.Is(err, admin.ErrNotRunning) {
		return &terminal.ExitError{Code: terminal.ExitStopped, Err: err}
	}
	if err != nil {
		return err
	}
	r, err := c.Reload(ctx)
	switch {
	case errors.Is(err, admin.ErrNotTaken):
		return &terminal.ExitError{Code: terminal.ExitConfig, Err: err}
	case err != nil:
		return err
	case q.JSON:
		return terminal.PrintJSON(t.Out, r)
	}
	return showReload(t, r)
}

func showReload(t *terminal.Terminal, r admin.Reload) error {
	p := t.Palette()
	w := tabwriter.NewWriter(t.Out, 0, 0, 2, ' ', 0)
	for _, c := range r.Changes {
		fmt.Fprintf(w, "%s\t%s → %s\n", terminal.Printable(c.Setting), shownValue(c.Old), shownValue(c.New))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(t.Out, "%s %s\n", p.Red("warning:"), terminal.Printable(warning))
	}
	text := "Reloaded; nothing changed."
	switch n := len(r.Changes); {
	case n == 1:
		text = "Reloaded; one setting changed."
	case n > 1:
		text = fmt.Sprintf("Reloaded; %d settings changed.", n)
	}
	_, err := fmt.Fprintln(t.Out, p.Green(text))
	return err
}

// shownValue of what is not there is a word.
func shownValue(s string) string {
	if s == "" {
		return "(not there)"
	}
	return terminal.Printable(s)
}
