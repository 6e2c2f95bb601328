package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/admin"
)

func showCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "show ID",
		Short: "Show one mail: its recipients and the result of each attempt.",
		Long: `Shows who handed a mail over, and each recipient with its attempts. --raw prints
the mail as it came. A file or a pipe gets it byte for byte; on a screen, what a
terminal would act on is escaped.`,
		Example: terminal.Examples("smtp2rest queue show 06h0kq3n2a", "smtp2rest queue show 06h0kq3n2a --raw > mail.eml"),
		Args:    terminal.Args(1, 1, "name one mail by its id"),
	}
	var r reach.Flags
	r.Declare(c.Flags())
	raw := c.Flags().Bool("raw", false, "print the mail as it came")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if *raw && r.JSON {
			return terminal.Usagef("--raw is not JSON")
		}
		return r.With(ctx, t, func(o reach.Operator) error {
			if *raw {
				return showRaw(ctx, t, o, args[0])
			}
			m, err := o.Get(ctx, args[0])
			switch {
			case err != nil:
				return err
			case r.JSON:
				return terminal.PrintJSON(t.Out, m)
			}
			several, err := Several(ctx, o)
			if err != nil {
				return err
			}
			if several {
				m.Account = relay.AccountName(m.Account)
			}
			return showMail(t, m)
		})
	}
	return c
}

func showRaw(ctx context.Context, t *terminal.Terminal, a admin.Admin, id string) error {
	r, err := a.Raw(ctx, id)
	if err != nil {
		return err
	}
	return errors.Join(terminal.CopyRaw(t, r), r.Close())
}

func showMail(t *terminal.Terminal, m admin.Mail) error {
	p := t.Palette()
	w := tabwriter.NewWriter(t.Out, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, value)
		}
	}
	line("id", m.ID)
	line("received", fmt.Sprintf("%s, %s ago", terminal.Clock(m.Received), terminal.Age(m.Received)))
	line("from", ClientText(m.Client))
	line("sender", terminal.Address(m.Sender))
	line("account", terminal.Printable(m.Account))
	line("size", terminal.Size(m.Size))
	line("bounce of", terminal.Printable(m.BounceOf))
	line("copy of", terminal.Printable(m.Client.CopyOf))
	if m.Urgent {
		line("urgent", "not bound by the warming of its domain")
	}
	for _, l := range m.LeftOut {
		line("left out", l.Kind+": "+terminal.Printable(l.Detail))
	}
	if m.Damaged {
		line("damaged", p.Red("what is stored is not what came; it cannot be sent"))
	}
	for _, r := range m.Recipients {
		fmt.Fprintf(w, "\n%s\t%s\n", p.Bold(terminal.Printable(r.Recipient)), ProgressText(r.Progress))
		for _, a := range r.History {
			fmt.Fprintf(w, "  %s\t%s (took %s)\n", terminal.Clock(a.Started), terminal.Printable(a.Text), Millis(a.TookMS))
		}
	}
	return w.Flush()
}

// ClientText describes the client that handed a mail over.
func ClientText(c relay.Client) string {
	text := terminal.Printable(c.Addr)
	var more []string
	for _, f := range []struct{ name, value string }{{"HELO", c.Helo}, {"user", c.User}, {"session", c.Session}, {"kept by sendmail of", c.KeptBy}, {"redirected to", c.Redirect}, {"fields", strings.ReplaceAll(c.Fields, "\n", ", ")}} {
		if f.value != "" {
			more = append(more, f.name+" "+terminal.Printable(f.value))
		}
	}
	if len(more) > 0 {
		text += " (" + strings.Join(more, ", ") + ")"
	}
	return text
}

// ProgressText describes the state of one recipient.
func ProgressText(p admin.Progress) string {
	text := p.State
	switch {
	case p.State == "waiting":
		if n := next(p); n == "now" {
			text += ", due now"
		} else {
			text += ", next try in " + n
		}
		text += ": " + terminal.Printable(p.Why)
	case !p.Ended.IsZero():
		text += " " + terminal.Clock(p.Ended)
	case p.State == "held":
		text += ": " + terminal.Printable(p.Why)
	}
	if p.State == "failed" && p.Bounced {
		text += ", and the sender knows"
	}
	return text
}

// Millis is a duration in milliseconds for a person: "1.5 s".
func Millis(ms int64) string {
	if ms < 1000 {
		return fmt.Sprintf("%d ms", ms)
	}
	return fmt.Sprintf("%.1f s", float64(ms)/1000)
}
