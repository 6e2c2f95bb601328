package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
)

func queueListCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List recipients and why they wait or failed.",
		Long: `Lists one line for each recipient that is not sent yet, the longest there first:
its mail's id and age, its state, how often it was tried, when it is tried next,
and what came of the last attempt or what it waits for. --state sent shows what
was sent, as long as that is kept.

--json prints one array of all that match, one recipient on each line.`,
		Example: terminal.Examples(
			"smtp2rest queue list --state failed",
			"smtp2rest queue list --sender shop@example.com --older 1h --limit 0",
			"smtp2rest queue list --json | jq -r '.[] | [.id, .recipient, .why] | @tsv'",
		),
	}
	addList(t, c)
	return c
}

// addList makes c the command that lists: "queue list", and "queue" alone.
func addList(t *terminal.Terminal, c *cobra.Command) {
	fs := c.Flags()
	var q reach.Flags
	var f filterFlags
	q.Declare(fs)
	f.declare(fs)
	limit := terminal.DeclareLimit(fs, "recipients")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) > 0 {
			return terminal.Unexpected(cmd, args[0], fmt.Sprintf("'queue show %s' shows one mail", args[0]))
		}
		filter, _, err := f.filter()
		if err != nil {
			return err
		}
		if len(filter.States) == 0 {
			filter.States = []string{"waiting", "sending", "held", "failed"}
		}
		return q.With(ctx, t, func(a reach.Operator) error {
			if q.JSON {
				return terminal.PrintJSONList(t.Out, admin.All(ctx, a, filter), *limit)
			}
			return listTable(ctx, t, a, filter, *limit)
		})
	}
}

func listTable(ctx context.Context, t *terminal.Terminal, a admin.Admin, f admin.Filter, limit int) error {
	if limit < 0 {
		limit = terminal.TableLimit
	}
	s, err := a.Status(ctx)
	if err != nil {
		return err
	}
	table := terminal.NewTable(t, "ID", "AGE", "STATE", "TRIES", "NEXT", "SENDER", "RECIPIENT", "WHY")
	n, more, short := 0, false, terminal.AddressWidth(t)
	for e, err := range admin.All(ctx, a, f) {
		if err != nil {
			return err
		}
		if more = limit > 0 && n == limit; more {
			break
		}
		n++
		if err := table.Add(e.ID, terminal.Age(e.Received), e.State, fmt.Sprint(e.Tries), next(e.Progress),
			terminal.Cut(terminal.Address(e.Sender), short), terminal.Cut(terminal.Printable(e.Recipient), short), terminal.Printable(e.Why)); err != nil {
			return err
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	listFoot(t, s, n, more)
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

// listFoot says how much there is and what stands in its way.
func listFoot(t *terminal.Terminal, s admin.Status, shown int, more bool) {
	if shown > 0 {
		fmt.Fprintln(t.Out)
	}
	what := fmt.Sprintf("%d shown", shown)
	switch {
	case more:
		what += ", and there are more: --limit 0 shows all"
	case shown == 0:
		what = "Nothing to show"
	}
	fmt.Fprintf(t.Out, "%s. In the queue: %s.\n", what, countsText(s.Queue))
	PrintNotes(t.Out, t.Palette(), s.Notes)
}

func countsText(c admin.Counts) string {
	text := fmt.Sprintf("%d waiting, %d being sent, %d held, %d failed", c.Waiting, c.Sending, c.Held, c.Failed)
	if !c.Oldest.IsZero() {
		text += "; the oldest came " + terminal.Age(c.Oldest) + " ago"
	}
	return text
}
