package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
)

// healthcheckTime bounds the whole check: who asks often must not pile up.
const healthcheckTime = 5 * time.Second

// healthcheckCommand is for those who can run a command and nothing else, such
// as a container's HEALTHCHECK.
func healthcheckCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "healthcheck",
		Short: "Exit 0 if the running relay is well, for a container's HEALTHCHECK.",
		Long: `Asks the running daemon whether it makes progress, or with --ready whether mail can be
handed over and will be kept, and exits 0 or 1. It finds the daemon by the same settings
and environment that the daemon was started with: by its socket, else by its admin.address.

Restart a relay for a failed check, not for a failed check with --ready: a disk that is
full, or an API that is down, is not mended by it.`,
		Example: terminal.Examples("smtp2rest healthcheck", "smtp2rest healthcheck --ready", "smtp2rest healthcheck --config /etc/smtp2rest/config.toml", "smtp2rest healthcheck --json"),
	}
	fs := c.Flags()
	var q reach.Flags
	q.Declare(fs)
	ready := fs.Bool("ready", false, "ask whether mail can be handed over")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) > 0 {
			return terminal.Usagef("unexpected argument %q", args[0])
		}
		page := admin.Livez
		if *ready {
			page = admin.Readyz
		}
		return healthcheck(ctx, t, q, page)
	}
	return c
}

func healthcheck(ctx context.Context, t *terminal.Terminal, q reach.Flags, page string) error {
	ctx, cancel := context.WithTimeout(ctx, healthcheckTime)
	defer cancel()
	c, err := q.Dial(ctx, t)
	if err != nil {
		return &terminal.ExitError{Code: terminal.ExitFailed, Err: err}
	}
	said, err := c.Ask(ctx, page)
	if err != nil {
		return &terminal.ExitError{Code: terminal.ExitFailed, Err: err}
	}
	if q.JSON {
		return terminal.PrintJSON(t.Out, struct {
			Page string `json:"page"`
			Said string `json:"said"`
		}{page, said})
	}
	_, err = fmt.Fprintln(t.Out, said)
	return err
}
