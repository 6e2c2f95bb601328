package queue

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
)

func queueStatusCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Say how the relay stands: how much waits, since when and why.",
		Long: `Prints how much is in the queue, at what rate mail goes out, whether the API asked
for a pause or is down, how far the warming of domains is, and what to do.`,
		Example: terminal.Examples("smtp2rest queue status", "smtp2rest queue status --json"),
	}
	fs := c.Flags()
	var q reach.Flags
	q.Declare(fs)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) > 0 {
			return terminal.Usagef("unexpected argument %q", args[0])
		}
		return q.With(ctx, t, func(a reach.Operator) error {
			s, err := a.Status(ctx)
			if err != nil {
				return err
			}
			if q.JSON {
				return terminal.PrintJSON(t.Out, s)
			}
			return showStatus(t, s)
		})
	}
	return c
}

func showStatus(t *terminal.Terminal, s admin.Status) error {
	w := tabwriter.NewWriter(t.Out, 0, 0, 2, ' ', 0)
	daemon := "not running"
	if s.Running {
		daemon = fmt.Sprintf("%s, running for %s", s.Version, terminal.Age(s.Since))
	}
	fmt.Fprintf(w, "daemon\t%s\n", daemon)
	fmt.Fprintf(w, "queue\t%s\n", countsText(s.Queue))
	fmt.Fprintf(w, "stored\t%s, %s\n", terminal.Counted(int(s.Queue.Mails), "mail"), terminal.Size(s.Queue.Bytes))
	if s.Pace != nil {
		fmt.Fprintf(w, "API\t%s\n", apiText(*s.Pace))
		fmt.Fprintf(w, "rate\t%s; %d calls under way\n", rateText(*s.Pace), s.Pace.InFlight)
	}
	for _, d := range s.Warming {
		fmt.Fprintf(w, "warming\t%s\n", terminal.Printable(d.Text))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	PrintNotes(t.Out, t.Palette(), s.Notes)
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
		return "not limited so far"
	case p.RateFound:
		return fmt.Sprintf("%.4g calls a second, found by trying", p.Rate)
	default:
		return fmt.Sprintf("%.4g calls a second, as configured", p.Rate)
	}
}
