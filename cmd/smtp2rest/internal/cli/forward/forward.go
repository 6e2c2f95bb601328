// Package forward has the commands 'smtp2rest forward': the events that the endpoints of
// [[forward]] have not taken.
package forward

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
)

// Command returns 'smtp2rest forward' with its subcommands.
func Command(t *terminal.Terminal) *cobra.Command {
	c := listCommand(t, &cobra.Command{
		Use:   "forward",
		Short: "See and change the events that applications have not taken.",
		Long: `Lists the events that wait for the endpoints of [[forward]], and the dead letters, which
an endpoint refused. The commands below change the list. What an endpoint took is not
in it.

It asks the running daemon, or opens the data directory of a stopped one, as
'smtp2rest queue' does.`,
		Example: terminal.Examples("smtp2rest forward", "smtp2rest forward list --dead", "smtp2rest forward --json"),
	})
	c.AddCommand(
		listCommand(t, &cobra.Command{
			Use:   "list",
			Short: "List events that were not taken.",
			Long: `Lists one line for each event and endpoint, in the order in which the events came.

--json prints one array of all that match, one event on each line, with what is posted.`,
			Example: terminal.Examples("smtp2rest forward list --to crm", "smtp2rest forward list --dead --json | jq -r '.[].event.recipient'"),
		}),
		changeCommand(t, change{past: "due now", do: admin.Forwards.RetryForwards}, &cobra.Command{
			Use:     "retry [ID]",
			Short:   "Post events again now, dead letters as well.",
			Long:    "Makes events due at once. A dead letter is posted again as if it had just come.",
			Example: terminal.Examples("smtp2rest forward retry --dead --to crm", "smtp2rest forward retry evr_1f0c2a"),
		}),
		changeCommand(t, change{past: "dropped", do: admin.Forwards.DropForwards, confirm: true}, &cobra.Command{
			Use:   "drop [ID]",
			Short: "Remove events without posting them.",
			Long: `Removes events for good. They stay in the history. It asks first, unless --yes is
given.`,
			Example: terminal.Examples("smtp2rest forward drop --dead --yes", "smtp2rest forward drop --to crm"),
		}),
	)
	return c
}

// selection holds the flags that select events.
type selection struct {
	to   string
	dead bool
}

func (s *selection) declare(fs *pflag.FlagSet) {
	fs.StringVar(&s.to, "to", "", "only events for this `endpoint`")
	fs.BoolVar(&s.dead, "dead", false, "only dead letters")
}

func (s selection) filter() admin.ForwardFilter {
	return admin.ForwardFilter{Endpoint: s.to, Dead: s.dead}
}

// listCommand completes c, which is "forward list" or "forward" alone.
func listCommand(t *terminal.Terminal, c *cobra.Command) *cobra.Command {
	var r reach.Flags
	var s selection
	var p terminal.Paging
	r.Declare(c.Flags())
	s.declare(c.Flags())
	p.Declare(c.Flags(), "events")
	c.Args = terminal.NoArgs("")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		return r.WithRecords(cmd.Context(), t, func(o reach.Operator) error {
			list := admin.AllForwards(cmd.Context(), o, s.filter())
			if r.JSON {
				return terminal.PrintJSONList(t.Out, p, list)
			}
			head := []string{"ENDPOINT", "ID", "TYPE", "CREATED", "STATE", "TRIES", "WHY"}
			shown, err := terminal.PrintTable(t, p, list, head, func(f admin.Forward) []string {
				return []string{f.Endpoint, terminal.Printable(f.ID), terminal.Printable(f.Type), terminal.Clock(f.Created), f.State, fmt.Sprint(f.Tries), terminal.Printable(f.Why)}
			})
			switch {
			case err != nil:
				return err
			case shown.Rows == 0:
				_, err = fmt.Fprintln(t.Out, "No event waits.")
			default:
				_, err = fmt.Fprintln(t.Out, shown)
			}
			return err
		})
	}
	return c
}

// change is a command that changes many events at once.
type change struct {
	past    string // what was done, as in "3 events dropped"
	do      func(admin.Forwards, context.Context, admin.ForwardFilter) (int, error)
	confirm bool
}

func changeCommand(t *terminal.Terminal, what change, c *cobra.Command) *cobra.Command {
	c.Long += "\n\nName an event by its id, or select events by --to and --dead, or say --all."
	var r reach.Flags
	var s selection
	r.Declare(c.Flags())
	s.declare(c.Flags())
	everything := c.Flags().Bool("all", false, "everything; cannot be combined with an id, --to or --dead")
	yes := new(bool)
	if what.confirm {
		c.Flags().BoolVar(yes, "yes", false, "do not ask")
	}
	c.Args = terminal.Args(0, 1, "an id")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		f := s.filter()
		if len(args) > 0 {
			f.ID = args[0]
		}
		f.All = *everything
		switch selects := f.ID != "" || f.Endpoint != "" || f.Dead; {
		case f.All && selects:
			return terminal.Usagef("--all is everything: leave it out, or the id, --to and --dead")
		case !f.All && !selects:
			return terminal.Usagef("say what to %s: an id, --to, --dead, or --all", c.Name())
		case what.confirm && !*yes && !t.Asks:
			return terminal.Usagef("no terminal to ask at; use --yes to confirm")
		}
		return r.WithRecords(cmd.Context(), t, func(o reach.Operator) error {
			if what.confirm && !*yes {
				if err := t.Confirm(cmd.Context(), "Drop these events? The applications are not told of them."); err != nil {
					return err
				}
			}
			n, err := what.do(o, cmd.Context(), f)
			switch {
			case err != nil:
				return err
			case r.JSON:
				return terminal.PrintJSON(t.Out, map[string]int{"events": n})
			}
			_, err = fmt.Fprintf(t.Out, "%s %s.\n", terminal.Counted(n, "event"), what.past)
			return err
		})
	}
	return c
}
