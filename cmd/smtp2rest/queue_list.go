package main

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/relay/admin"
)

// tableLimit is how many lines are enough for a person.
const tableLimit = 100

func queueListCommand(t *terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List recipients and why they wait or failed.",
		Long: `Lists one line for each recipient that is not sent yet, the longest there first:
its mail's id and age, its state, how often it was tried, when it is tried next,
and what came of the last attempt or what it waits for. --state sent shows what
was sent, as long as that is kept.

--json prints one array of all that match, one recipient on each line.`,
		Example: examples(
			"smtp2rest queue list --state failed",
			"smtp2rest queue list --sender shop@example.com --older 1h --limit 0",
			"smtp2rest queue list --json | jq -r '.[] | [.id, .recipient, .why] | @tsv'",
		),
	}
	addList(t, c)
	return c
}

// addList makes c the command that lists: "queue list", and "queue" alone.
func addList(t *terminal, c *cobra.Command) {
	fs := c.Flags()
	var q queueFlags
	var f filterFlags
	q.declare(fs)
	f.declare(fs)
	limit := declareLimit(fs, "recipients")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) > 0 {
			return unexpected(cmd, args[0], fmt.Sprintf("'queue show %s' shows one mail", args[0]))
		}
		filter, _, err := f.filter()
		if err != nil {
			return err
		}
		if len(filter.States) == 0 {
			filter.States = []string{"waiting", "sending", "held", "failed"}
		}
		return q.with(ctx, t, func(a admin.Admin) error {
			if q.json {
				return printJSONList(t.out, admin.All(ctx, a, filter), *limit)
			}
			return listTable(ctx, t, a, filter, *limit)
		})
	}
}

// declareLimit declares --limit for a command that lists what. It is negative
// when it is not given.
func declareLimit(fs *pflag.FlagSet, what string) *int {
	limit := fs.Int("limit", -1, fmt.Sprintf("print at most this `number` of %s, 0 for all; without it a table has %d and JSON all", what, tableLimit))
	fs.Lookup("limit").DefValue = "0" // said above; pflag does not show a zero
	return limit
}

func listTable(ctx context.Context, t *terminal, a admin.Admin, f admin.Filter, limit int) error {
	if limit < 0 {
		limit = tableLimit
	}
	s, err := a.Status(ctx)
	if err != nil {
		return err
	}
	table := newTable(t, "ID", "AGE", "STATE", "TRIES", "NEXT", "SENDER", "RECIPIENT", "WHY")
	n, more, short := 0, false, addressWidth(t)
	for e, err := range admin.All(ctx, a, f) {
		if err != nil {
			return err
		}
		if more = limit > 0 && n == limit; more {
			break
		}
		n++
		if err := table.add(e.ID, age(e.Received), e.State, fmt.Sprint(e.Tries), next(e.Progress),
			cut(address(e.Sender), short), cut(printable(e.Recipient), short), printable(e.Why)); err != nil {
			return err
		}
	}
	if err := table.flush(); err != nil {
		return err
	}
	listFoot(t, s, n, more)
	return nil
}

// addressWidth is how much of an address is shown: on a screen, half of what
// the columns beside them and a bit of a reason leave.
func addressWidth(t *terminal) int {
	const others, reason, least, most = 50, 30, 14, 32
	if t.width == 0 {
		return math.MaxInt
	}
	return min(max((t.width-others-reason)/2, least), most)
}

// next says when a recipient can be tried next.
func next(p admin.Progress) string {
	switch {
	case p.State != "waiting":
		return "-"
	case !p.Next.After(time.Now()):
		return "now"
	default:
		return until(p.Next)
	}
}

// listFoot says how much there is and what stands in its way.
func listFoot(t *terminal, s admin.Status, shown int, more bool) {
	if shown > 0 {
		fmt.Fprintln(t.out)
	}
	what := fmt.Sprintf("%d shown", shown)
	switch {
	case more:
		what += ", and there are more: --limit 0 shows all"
	case shown == 0:
		what = "Nothing to show"
	}
	fmt.Fprintf(t.out, "%s. In the queue: %s.\n", what, countsText(s.Queue))
	printNotes(t.out, palette{t.color}, s.Notes)
}

func countsText(c admin.Counts) string {
	text := fmt.Sprintf("%d waiting, %d being sent, %d held, %d failed", c.Waiting, c.Sending, c.Held, c.Failed)
	if !c.Oldest.IsZero() {
		text += "; the oldest came " + age(c.Oldest) + " ago"
	}
	return text
}

// tableChunk is how many rows are measured before they are printed: the rest
// of a long table follows the widths of its beginning, or makes them wider, so
// that memory does not grow with it.
const tableChunk = 1000

// table prints rows in columns that are as wide as they need to be. On a screen
// the last one takes what is left.
type table struct {
	t       *terminal
	widths  []int
	rows    [][]string
	started bool
	head    []string
}

func newTable(t *terminal, head ...string) *table {
	tb := &table{t: t, head: head, widths: make([]int, len(head))}
	tb.measure(head)
	return tb
}

func (tb *table) measure(row []string) {
	for i, cell := range row {
		tb.widths[i] = max(tb.widths[i], utf8.RuneCountInString(cell))
	}
}

func (tb *table) add(row ...string) error {
	tb.measure(row)
	tb.rows = append(tb.rows, row)
	if len(tb.rows) == tableChunk {
		return tb.flush()
	}
	return nil
}

func (tb *table) flush() error {
	if len(tb.rows) == 0 {
		return nil
	}
	if !tb.started {
		tb.started = true
		if _, err := fmt.Fprintln(tb.t.out, palette{tb.t.color}.bold(tb.line(tb.head))); err != nil {
			return err
		}
	}
	for _, row := range tb.rows {
		if _, err := fmt.Fprintln(tb.t.out, tb.line(row)); err != nil {
			return err
		}
	}
	tb.rows = tb.rows[:0]
	return nil
}

func (tb *table) line(row []string) string {
	var b strings.Builder
	last := len(row) - 1
	for i, cell := range row[:last] {
		b.WriteString(pad(cell, tb.widths[i]) + "  ")
	}
	rest := row[last]
	if tb.t.width > 0 {
		const least = 20 // a line that is too long is better than no reason
		rest = cut(rest, max(tb.t.width-utf8.RuneCountInString(b.String()), least))
	}
	return strings.TrimRight(b.String()+rest, " ")
}
