package queue

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
)

// change is a verb that changes many recipients at once.
type change struct {
	verb, summary, about string
	examples             []string
	past                 string // what was done, as in "3 recipients held"
	do                   func(admin.Admin, context.Context, admin.Filter) (int, error)
	confirm              bool // it cannot be undone
}

func queueHoldCommand(t *terminal.Terminal) *cobra.Command {
	return change{
		verb: "hold", past: "held", do: admin.Admin.Hold,
		summary: "Stop recipients from being tried until they are released.",
		about: `Stops waiting recipients. Those that are being tried are stopped if that does not
succeed. Mail that comes later is not concerned.`,
		examples: []string{"smtp2rest queue hold 06h0kq3n2a", "smtp2rest queue hold --sender news@example.com"},
	}.command(t)
}

func queueReleaseCommand(t *terminal.Terminal) *cobra.Command {
	return change{
		verb: "release", past: "released", do: admin.Admin.Release,
		summary:  "Let held recipients wait again.",
		about:    "Takes back a hold: recipients wait again until the time they were due.",
		examples: []string{"smtp2rest queue release 06h0kq3n2a", "smtp2rest queue release --all"},
	}.command(t)
}

func queueRetryCommand(t *terminal.Terminal) *cobra.Command {
	return change{
		verb: "retry", past: "due now", do: admin.Admin.Retry,
		summary: "Make recipients due now, failed ones as well.",
		about: `Makes waiting recipients due at once. Failed ones wait again as if they had just
come; their senders are not told a second time should they fail again. What is
held stays held.`,
		examples: []string{"smtp2rest queue retry 06h0kq3n2a", "smtp2rest queue retry --state failed --newer 2d"},
	}.command(t)
}

func queueDropCommand(t *terminal.Terminal) *cobra.Command {
	return change{
		verb: "drop", past: "dropped", do: admin.Admin.Drop, confirm: true,
		summary: "Remove recipients for good, and tell nobody.",
		about: `Removes recipients that are not sent yet, with their mail when it has no others.
Neither sender nor recipient hears of it, and it cannot be undone; it asks
first, unless --yes is given. An attempt that is under way may still succeed.`,
		examples: []string{"smtp2rest queue drop 06h0kq3n2a", "smtp2rest queue drop --state failed --older 30d --yes"},
	}.command(t)
}

func (c change) command(t *terminal.Terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:   c.verb + " [ID...]",
		Short: c.summary,
		Long: c.about + `

Name mails by their ids, or all that filters select, or --all. Filters that
stand beside ids narrow them down to some of their recipients.`,
		Example: terminal.Examples(c.examples...),
	}
	fs := cmd.Flags()
	var q reach.Flags
	var f filterFlags
	q.Declare(fs)
	f.declare(fs)
	all := fs.Bool("all", false, "everything; cannot stand beside ids and filters")
	yes := c.yes(fs)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		filter, selects, err := f.filter()
		if err != nil {
			return err
		}
		switch selects = selects || len(args) > 0; {
		case *all && selects:
			return terminal.Usagef("--all is everything: leave it out, or the ids and filters")
		case !*all && !selects:
			return terminal.Usagef("say what to %s: ids, a filter such as --sender, or --all", c.verb)
		case f.id != "" && len(args) > 0:
			return terminal.Usagef("name ids either in full or by --id")
		case c.confirm && !*yes && !t.Asks:
			return terminal.Usagef("there is nobody to ask: say --yes if you mean it")
		}
		filter.All = *all
		return q.With(ctx, t, func(a reach.Operator) error { return c.run(ctx, t, a, filter, args, *yes, q.JSON) })
	}
	return cmd
}

func (c change) yes(fs *pflag.FlagSet) *bool {
	if !c.confirm {
		return new(bool)
	}
	return fs.Bool("yes", false, "do not ask")
}

func (c change) run(ctx context.Context, t *terminal.Terminal, a admin.Admin, filter admin.Filter, ids []string, yes, asJSON bool) error {
	filters, err := narrow(ctx, a, filter, ids)
	if err != nil {
		return err
	}
	if c.confirm && !yes {
		if err := confirm(ctx, t, a, filters); err != nil {
			return err
		}
	}
	total := 0
	for _, f := range filters {
		n, err := c.do(a, ctx, f)
		total += n
		if err != nil {
			return fmt.Errorf("%w (%s %s before that)", err, terminal.Counted(total, "recipient"), c.past)
		}
	}
	return printChanged(t, total, c.past, asJSON)
}

// narrow is one filter for each id, with the id in full, so that a beginning
// that several mails have changes none of them.
func narrow(ctx context.Context, a admin.Admin, f admin.Filter, ids []string) ([]admin.Filter, error) {
	if len(ids) == 0 {
		return []admin.Filter{f}, nil
	}
	filters := make([]admin.Filter, len(ids))
	for i, id := range ids {
		m, err := a.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		filters[i] = f
		filters[i].ID = m.ID
	}
	return filters, nil
}

// mostCounted bounds how many recipients are counted for a question.
const mostCounted = 10_000

// confirm asks before something is dropped.
func confirm(ctx context.Context, t *terminal.Terminal, a admin.Admin, filters []admin.Filter) error {
	n, mails, last := 0, 0, ""
	for _, f := range filters {
		f.All = false
		for e, err := range admin.All(ctx, a, f) {
			if err != nil {
				return err
			}
			if e.State == "sent" {
				continue
			}
			if n++; e.ID != last {
				mails, last = mails+1, e.ID
			}
			if n > mostCounted {
				break
			}
		}
	}
	if n == 0 {
		return nil
	}
	what := fmt.Sprintf("%s of %s", terminal.Counted(n, "recipient"), terminal.Counted(mails, "mail"))
	if n > mostCounted {
		what = fmt.Sprintf("more than %d recipients", mostCounted)
	}
	fmt.Fprintf(t.Err, "Drop %s? Nobody is told, and it cannot be undone. [y/N] ", what)
	answer, err := terminal.Ask(ctx, t)
	if err != nil {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return terminal.ErrNotConfirmed
	}
	return nil
}

func queueFlushCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "flush",
		Short: "Make everything that waits due now.",
		Long: `Makes all waiting recipients due at once, for instance after an outage is over.
The account's rate and a pause that the API asked for are kept. What is held or
failed stays so.`,
		Example: terminal.Examples("smtp2rest queue flush"),
	}
	fs := c.Flags()
	var q reach.Flags
	q.Declare(fs)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) > 0 {
			return terminal.Usagef("unexpected argument %q; 'queue retry %s' is for one mail", args[0], args[0])
		}
		return q.With(ctx, t, func(a reach.Operator) error {
			n, err := a.Flush(ctx)
			if err != nil {
				return fmt.Errorf("%w (%s due now before that)", err, terminal.Counted(n, "recipient"))
			}
			if err := printChanged(t, n, "due now", q.JSON); err != nil || q.JSON {
				return err
			}
			return printWhatStops(ctx, t, a)
		})
	}
	return c
}

// printWhatStops says why mail that is due does not go out all the same, if
// something is in its way.
func printWhatStops(ctx context.Context, t *terminal.Terminal, a admin.Admin) error {
	s, err := a.Status(ctx)
	if err != nil || s.State == admin.StateFine {
		return err
	}
	_, err = fmt.Fprintf(t.Out, "It does not go out yet: %s\n", terminal.Printable(s.Summary))
	return err
}

// printChanged says what was done.
func printChanged(t *terminal.Terminal, n int, past string, asJSON bool) error {
	if asJSON {
		return terminal.PrintJSON(t.Out, struct {
			Recipients int `json:"recipients"`
		}{n})
	}
	_, err := fmt.Fprintf(t.Out, "%s %s.\n", terminal.Counted(n, "recipient"), past)
	return err
}
