// Package queue has the commands 'smtp2rest queue' and 'smtp2rest status': what
// waits and why, and the changes that an operator can make.
package queue

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// Command returns 'smtp2rest queue' with its subcommands.
func Command(t *terminal.Terminal) *cobra.Command {
	c := list(t, &cobra.Command{
		Use:   "queue",
		Short: "See what waits and why, and change it.",
		Long: `Lists the recipients that wait, are held or failed, and why. The commands below
change the queue.

It asks the running daemon through its socket, or opens the data directory of a
stopped one. --socket or --data-dir names them; otherwise the settings in --config
and the environment do, and at last /var/lib/smtp2rest is tried. Only the daemon's
user may use them, so sudo is needed where the daemon runs as a service.

A mail is named by its id, which is in the reply to its client and in the log. The
beginning of an id is enough if no other mail begins like it.`,
		Example: terminal.Examples("smtp2rest queue", "sudo smtp2rest queue --older 1h", "smtp2rest queue --json"),
	})
	c.AddCommand(
		list(t, &cobra.Command{
			Use:   "list",
			Short: "List recipients and why they wait or failed.",
			Long: `Lists one line for each recipient that is not sent yet, the oldest first: the id and
age of its mail, its state, how often it was tried, when it is tried next, and the
result of the last attempt or what it waits for. --state sent shows what was sent,
as long as that is kept.

--json prints one array of all that match, one recipient on each line.`,
			Example: terminal.Examples(
				"smtp2rest queue list --state failed",
				"smtp2rest queue list --sender shop@example.com --older 1h --all",
				"smtp2rest queue list --json | jq -r '.[] | [.id, .recipient, .why] | @tsv'",
			),
		}),
		showCommand(t), statsCommand(t), retryCommand(t), flushCommand(t),
		holdCommand(t), releaseCommand(t), dropCommand(t), reassignCommand(t), setAsideCommand(t),
	)
	return c
}

// selection holds the flags that select recipients of the queue.
type selection struct{ terminal.Selection }

func (s *selection) declare(c *cobra.Command) {
	names := []string{"open", "all"}
	for _, state := range queue.States() {
		names = append(names, state.String())
	}
	s.Declare(c.Flags(), names)
}

// filter returns what the flags select.
func (s *selection) filter() (admin.Filter, error) {
	f := admin.Filter{ID: s.ID, Sender: s.Sender, Recipient: s.Recipient, Account: s.Account, From: s.Since(), Until: s.Until()}
	if s.Sender == "<>" { // a queue.Filter cannot say it: "" is any sender
		return f, terminal.Usagef("the null sender cannot be selected; the list shows it as <>, and its mail can be named by id")
	}
	for _, word := range s.States {
		for _, state := range queue.States() {
			if word == "all" || word == state.String() || word == "open" && state.Open() {
				f.States = append(f.States, state.String())
			}
		}
	}
	return f, nil
}

// list makes c a command that lists recipients: "queue list", and "queue" alone.
func list(t *terminal.Terminal, c *cobra.Command) *cobra.Command {
	var r reach.Flags
	var s selection
	var p terminal.Paging
	r.Declare(c.Flags())
	s.declare(c)
	p.Declare(c.Flags(), "recipients")
	c.Args = terminal.NoArgs("'queue show %[1]s' shows one mail")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		filter, err := s.filter()
		if err != nil {
			return err
		}
		if len(filter.States) == 0 {
			filter.States = []string{"waiting", "sending", "held", "failed"}
		}
		return r.With(ctx, t, func(o reach.Operator) error {
			if r.JSON {
				return terminal.PrintJSONList(t.Out, p, admin.All(ctx, o, filter))
			}
			return printList(ctx, t, o, filter, p)
		})
	}
	return c
}

func printList(ctx context.Context, t *terminal.Terminal, a admin.Admin, f admin.Filter, p terminal.Paging) error {
	status, err := a.Status(ctx)
	if err != nil {
		return err
	}
	width := terminal.AddressWidth(t)
	head := []string{"ID", "AGE", "STATE", "TRIES", "NEXT", "SENDER", "RECIPIENT", "WHY"}
	several := len(status.Accounts) > 0
	if several {
		head = slices.Insert(head, 1, "ACCOUNT")
	}
	shown, err := terminal.PrintTable(t, p, admin.All(ctx, a, f), head, func(e admin.Entry) []string {
		row := []string{e.ID, terminal.Age(e.Received), e.State, fmt.Sprint(e.Tries), next(e.Progress),
			terminal.Cut(terminal.Address(e.Sender), width), terminal.Cut(terminal.Printable(e.Recipient), width), terminal.Printable(e.Why)}
		if several {
			row = slices.Insert(row, 1, terminal.Printable(relay.AccountName(e.Account)))
		}
		return row
	})
	if err != nil {
		return err
	}
	text := shown.String()
	if shown.Rows == 0 {
		text = "Nothing to show"
	} else {
		fmt.Fprintln(t.Out)
	}
	fmt.Fprintf(t.Out, "%s. In the queue: %s.\n", text, countsText(status.Queue))
	printWarnings(t.Out, t.Palette(), status.Warnings)
	return nil
}

// next says when a recipient can be tried next.
func next(p admin.Progress) string {
	switch {
	case p.State != "waiting":
		return "-"
	case !p.Next.After(time.Now()):
		return "now"
	default:
		return terminal.Until(p.Next)
	}
}

func countsText(c admin.Counts) string {
	text := fmt.Sprintf("%d waiting, %d being sent, %d held, %d failed", c.Waiting, c.Sending, c.Held, c.Failed)
	if !c.Oldest.IsZero() {
		text += "; the oldest came " + terminal.Age(c.Oldest) + " ago"
	}
	return text
}

// printWarnings prints what an operator should know, and what to do about it.
func printWarnings(w io.Writer, p terminal.Palette, warnings []admin.Warning) {
	for _, n := range warnings {
		var times []string
		if !n.Since.IsZero() {
			times = append(times, "for "+terminal.Age(n.Since))
		}
		if !n.Until.IsZero() {
			times = append(times, "next in "+terminal.Until(n.Until))
		}
		when := ""
		if len(times) > 0 {
			when = " (" + strings.Join(times, ", ") + ")"
		}
		fmt.Fprintf(w, "%s %s: %s%s\n", p.Bold(n.Level+":"), terminal.Printable(n.What), terminal.Printable(n.Why), when)
		if n.Do != "" {
			fmt.Fprintf(w, "      %s\n", p.Dim(terminal.Printable(n.Do)))
		}
	}
}
