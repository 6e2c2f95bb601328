package queue

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

// watchEvery is how often --watch asks.
const watchEvery = 2 * time.Second

// StatusCommand returns 'smtp2rest status', the first command to try when
// somebody says that no mail arrives.
func StatusCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Say whether mail flows; if not, since when, why, and what to do.",
		Long: `Says in one sentence whether mail flows. Then it prints how much waits, at what rate
mail goes out, whether the API asked for a pause or is down, and what to do about it.

It asks the running daemon through its socket or at its admin.address; --config,
--data-dir and --socket lead to it as they do for 'smtp2rest queue'. When no daemon
answers, it looks into the data directory.

The exit code is 0 when mail flows, 1 when it does not or something needs your
attention, and 3 when no daemon runs. Failed mail alone leaves it at 0: its senders
were told, and it stays listed for queue.keep_failed, or until you retry or drop it.`,
		Example: terminal.Examples("sudo smtp2rest status", "smtp2rest status --watch", "smtp2rest status --json", "smtp2rest status --address 127.0.0.1:9090"),
		Args:    terminal.NoArgs(""),
	}
	var r reach.Flags
	r.Declare(c.Flags())
	account := declareAccount(c)
	watch := c.Flags().Bool("watch", false, "show it again every 2 s until Ctrl-C")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		for {
			err := printStatus(ctx, t, r, *account, *watch)
			if _, wrong := errors.AsType[*terminal.UsageError](err); wrong || !*watch {
				return err
			}
			select {
			case <-time.After(watchEvery):
			case <-ctx.Done():
				return nil
			}
		}
	}
	return c
}

// printStatus asks once. The error has the exit code that the state calls for.
func printStatus(ctx context.Context, t *terminal.Terminal, r reach.Flags, account string, watch bool) error {
	var s admin.Status
	err := r.With(ctx, t, func(o reach.Operator) (err error) {
		s, err = statusOf(ctx, o, account)
		return err
	})
	if watch && t.Width > 0 {
		fmt.Fprint(t.Out, "\x1b[H\x1b[2J") // the cursor home, the screen empty
	}
	switch {
	case errors.Is(err, admin.ErrNotRunning) && watch:
		_, err := fmt.Fprintln(t.Out, err)
		return err
	case errors.Is(err, admin.ErrNotRunning):
		return &terminal.ExitError{Code: terminal.ExitStopped, Err: err}
	case err != nil:
		return err
	case r.JSON:
		err = terminal.PrintJSON(t.Out, s)
	default:
		fmt.Fprintf(t.Out, "%s: %s\n\n", t.Palette().Bold(terminal.Printable(s.State)), terminal.Printable(s.Summary))
		err = showStatus(t, s)
	}
	switch s.State {
	case admin.StateFine:
		return err
	case admin.StateStopped:
		return errors.Join(err, &terminal.ExitError{Code: terminal.ExitStopped})
	default:
		return errors.Join(err, &terminal.ExitError{Code: terminal.ExitFailed})
	}
}

// statsCommand returns 'smtp2rest queue status'. Unlike 'smtp2rest status', its
// exit code does not depend on what it finds.
func statsCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Print how much waits, since when and why.",
		Long: `Prints how much is in the queue, at what rate mail goes out, whether the API asked
for a pause or is down, how far the warming of domains is, and what to do.`,
		Example: terminal.Examples("smtp2rest queue status", "smtp2rest queue status --json"),
		Args:    terminal.NoArgs(""),
	}
	var r reach.Flags
	r.Declare(c.Flags())
	account := declareAccount(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		return r.With(cmd.Context(), t, func(o reach.Operator) error {
			s, err := statusOf(cmd.Context(), o, *account)
			switch {
			case err != nil:
				return err
			case r.JSON:
				return terminal.PrintJSON(t.Out, s)
			}
			return showStatus(t, s)
		})
	}
	return c
}

func declareAccount(c *cobra.Command) *string {
	return c.Flags().String("account", "", "only what is about this `account` or the whole relay, where there are several")
}

// statusOf returns the status, or the part of it that is about an account.
func statusOf(ctx context.Context, o admin.Admin, account string) (admin.Status, error) {
	s, err := o.Status(ctx)
	if err != nil || account == "" {
		return s, err
	}
	return s.Of(account)
}

// Several reports whether the relay has several accounts. With only one, no output mentions
// accounts.
func Several(ctx context.Context, o admin.Admin) (bool, error) {
	s, err := o.Status(ctx)
	return len(s.Accounts) > 0, err
}

func showStatus(t *terminal.Terminal, s admin.Status) error {
	w := tabwriter.NewWriter(t.Out, 0, 0, 2, ' ', 0)
	daemon := "not running"
	if s.Running {
		daemon = fmt.Sprintf("%s, running for %s", s.Version, terminal.Age(s.Since))
	}
	fmt.Fprintf(w, "daemon\t%s\n", daemon)
	for _, r := range s.Relays {
		left := ""
		if !r.Alive {
			left = ", and its claims have ended"
		}
		fmt.Fprintf(w, "relay\t%s, %s, since %s; heard of %s ago%s\n", terminal.Printable(r.Name), terminal.Printable(r.Version),
			r.Started.UTC().Format(time.DateTime), terminal.Age(r.Heartbeat), left)
	}
	fmt.Fprintf(w, "queue\t%s\n", countsText(s.Queue))
	fmt.Fprintf(w, "stored\t%s, %s\n", terminal.Counted(int(s.Queue.Mails), "mail"), terminal.Size(s.Queue.Bytes))
	for _, a := range s.Accounts {
		switch {
		case a.Pace != nil:
			fmt.Fprintf(w, "account %s\tAPI %s\n", terminal.Printable(a.Name), apiText(*a.Pace))
			fmt.Fprintf(w, "\t%s; %d calls under way\n", rateText(*a.Pace), a.Pace.InFlight)
		case a.Mails > 0:
			fmt.Fprintf(w, "account %s\t%s\n", terminal.Printable(a.Name), terminal.Counted(a.Mails, "mail")+" in the queue")
		}
	}
	if s.Pace != nil && len(s.Accounts) == 0 {
		fmt.Fprintf(w, "API\t%s\n", apiText(*s.Pace))
		fmt.Fprintf(w, "rate\t%s; %d calls under way\n", rateText(*s.Pace), s.Pace.InFlight)
	}
	for _, d := range s.Warming {
		of := ""
		if d.Account != "" {
			of = "account " + terminal.Printable(d.Account) + ": "
		}
		fmt.Fprintf(w, "warming\t%s%s\n", of, terminal.Printable(d.Text))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	printWarnings(t.Out, t.Palette(), s.Warnings)
	return nil
}

func apiText(p admin.Pace) string {
	switch {
	case p.Breaker.Open:
		why := p.Breaker.Why
		if p.Breaker.Cause != "" {
			why += " (" + p.Breaker.Cause + ")"
		}
		return fmt.Sprintf("%s, for %s; next try in %s", terminal.Printable(why), terminal.Age(p.Breaker.Since), terminal.Until(p.Breaker.ProbeAt))
	case !p.PausedUntil.IsZero():
		return "asked for a pause; next try in " + terminal.Until(p.PausedUntil)
	default:
		return "taken to be working"
	}
}

func rateText(p admin.Pace) string {
	switch {
	case p.Rate == 0:
		return "not limited so far" + shareText(p)
	case p.RateFound:
		return fmt.Sprintf("%.4g calls a second, found by trying%s", p.Rate, shareText(p))
	default:
		return fmt.Sprintf("%.4g calls a second, as configured%s", p.Rate, shareText(p))
	}
}

// shareText says what of the rate is this relay's, where several share it.
func shareText(p admin.Pace) string {
	switch {
	case p.Relays == 0:
		return ""
	case !p.Apart.IsZero():
		return fmt.Sprintf(", none of them here for %s, because the database cannot be asked for a share", terminal.Age(p.Apart))
	case p.Rate == 0:
		return ", shared by " + terminal.Counted(p.Relays, "relay")
	default:
		return fmt.Sprintf(", %.3g of them here, shared by %s", p.Share, terminal.Counted(p.Relays, "relay"))
	}
}
