package cli

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
)

func reloadCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "reload",
		Short: "Have the running relay read its configuration again.",
		Long: `The daemon reads its configuration file and all files that it names. When everything is
right, it goes on with the new settings; when anything is wrong, it keeps all of the old
ones. No connection and no mail is lost. The command prints what changed. The environment
is the one that the daemon was started with; systemd gives it new credentials only at a
restart.

It exits 0 when the configuration is in force, 78 with a list of all errors when it is
not, and 3 when no daemon runs. 'smtp2rest check' validates a configuration without a
daemon.`,
		Example: terminal.Examples("sudo smtp2rest reload", "smtp2rest reload --socket /run/smtp2rest/admin.sock", "smtp2rest reload --json"),
		Args:    terminal.NoArgs(""),
	}
	var r reach.Flags
	r.Declare(c.Flags())
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		daemon, err := r.Dial(cmd.Context(), t)
		var done admin.Reload
		if err == nil {
			done, err = daemon.Reload(cmd.Context())
		}
		switch {
		case errors.Is(err, admin.ErrNotRunning):
			return &terminal.ExitError{Code: terminal.ExitStopped, Err: err}
		case errors.Is(err, admin.ErrNotTaken):
			return &terminal.ExitError{Code: terminal.ExitConfig, Err: err}
		case err != nil:
			return err
		case r.JSON:
			return terminal.PrintJSON(t.Out, done)
		}
		return showReload(t, done)
	}
	return c
}

func showReload(t *terminal.Terminal, r admin.Reload) error {
	value := func(s string) string {
		if s == "" {
			return "(not there)"
		}
		return terminal.Printable(s)
	}
	p := t.Palette()
	w := tabwriter.NewWriter(t.Out, 0, 0, 2, ' ', 0)
	for _, c := range r.Changes {
		fmt.Fprintf(w, "%s\t%s → %s\n", terminal.Printable(c.Setting), value(c.Old), value(c.New))
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

// healthcheckTime bounds the whole check, so that checks do not pile up.
const healthcheckTime = 5 * time.Second

func healthcheckCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "healthcheck",
		Short: "Exit 0 if the running relay is well, for a container's HEALTHCHECK.",
		Long: `Asks the running daemon whether it makes progress, or with --ready whether it takes mail
and can keep it, and exits 0 or 1. It finds the daemon by the settings and the environment
that the daemon was started with: by its socket, or else by its admin.address.

Restart a relay when this check fails, but not when only the check with --ready fails: a
restart helps neither a full disk nor an API that is down.`,
		Example: terminal.Examples("smtp2rest healthcheck", "smtp2rest healthcheck --ready", "smtp2rest healthcheck --config /etc/smtp2rest/config.toml", "smtp2rest healthcheck --json"),
		Args:    terminal.NoArgs(""),
	}
	var r reach.Flags
	r.Declare(c.Flags())
	ready := c.Flags().Bool("ready", false, "ask whether mail can be handed over")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), healthcheckTime)
		defer cancel()
		page, said := admin.Livez, ""
		if *ready {
			page = admin.Readyz
		}
		daemon, err := r.Dial(ctx, t)
		if err == nil {
			said, err = daemon.Ask(ctx, page)
		}
		switch {
		case err != nil:
			return &terminal.ExitError{Code: terminal.ExitFailed, Err: err} // whatever it is: HEALTHCHECK knows 0 and 1
		case r.JSON:
			return terminal.PrintJSON(t.Out, struct {
				Page string `json:"page"`
				Said string `json:"said"`
			}{page, said})
		}
		_, err = fmt.Fprintln(t.Out, said)
		return err
	}
	return c
}
