package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
)

// watchEvery is how often --watch asks.
const watchEvery = 2 * time.Second

// StatusCommand is the first thing to type when somebody says that no mail
// comes.
func StatusCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Say whether mail flows; if not, since when, why, and what to do.",
		Long: `Says in a sentence how the relay stands, then how much waits, at what rate mail
goes out, whether the API asked for a pause or is down, and what to do about it.

It asks the running daemon over its socket or at its admin.address; --config, --data-dir
and --socket lead to it as they do for 'smtp2rest queue'. When none answers it looks into
the data directory.

The exit code is 0 when mail flows, 1 when something is in its way or needs to be seen to,
and 3 when no daemon runs. Failed mail alone leaves it at 0: its senders were told, and it
is listed until you retry or drop it.`,
		Example: terminal.Examples("sudo smtp2rest status", "smtp2rest status --watch", "smtp2rest status --json", "smtp2rest status --address 127.0.0.1:9090"),
	}
	fs := c.Flags()
	var q reach.Flags
	q.Declare(fs)
	watch := fs.Bool("watch", false, "show it anew every 2 s until Ctrl-C")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) > 0 {
			return terminal.Usagef("unexpected argument %q", args[0])
		}
		for {
			err := askStatus(ctx, t, q, *watch)
			if !*watch || terminal.IsUsage(err) {
				return err
			}
			if ctx.Err() != nil || !again(ctx) {
				return nil
			}
		}
	}
	return c
}

// again is true when it is time to ask again, false when ctx ended.
func again(ctx context.Context) bool {
	timer := time.NewTimer(watchEvery)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// askStatus asks once. How the relay stands is in the error, as an exit code.
func askStatus(ctx context.Context, t *terminal.Terminal, q reach.Flags, watch bool) error {
	var s admin.Status
	err := q.With(ctx, t, func(a reach.Operator) (err error) {
		s, err = a.Status(ctx)
		return err
	})
	if watch && t.Width > 0 {
		fmt.Fprint(t.Out, "\x1b[H\x1b[2J") // the cursor home, the screen empty
	}
	if errors.Is(err, admin.ErrNotRunning) {
		if watch {
			_, err := fmt.Fprintln(t.Out, err)
			return err
		}
		return &terminal.ExitError{Code: terminal.ExitStopped, Err: err}
	}
	if err != nil {
		return err
	}
	if q.JSON {
		err = terminal.PrintJSON(t.Out, s)
	} else {
		err = showState(t, s)
	}
	return errors.Join(err, exitOf(s))
}

func showState(t *terminal.Terminal, s admin.Status) error {
	headline(t.Out, t.Palette(), s)
	return showStatus(t, s)
}

func headline(w io.Writer, p terminal.Palette, s admin.Status) {
	fmt.Fprintf(w, "%s: %s\n\n", p.Bold(terminal.Printable(s.State)), terminal.Printable(s.Summary))
}

// exitOf is nil when all is well.
func exitOf(s admin.Status) error {
	switch s.State {
	case admin.StateFine:
		return nil
	case admin.StateStopped:
		return &terminal.ExitError{Code: terminal.ExitStopped}
	default:
		return &terminal.ExitError{Code: terminal.ExitFailed}
	}
}
