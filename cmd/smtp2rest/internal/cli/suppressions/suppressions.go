// Package suppressions has the commands 'smtp2rest suppressions': the list of
// addresses to which no mail is sent.
package suppressions

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Command returns 'smtp2rest suppressions' with its subcommands.
func Command(t *terminal.Terminal) *cobra.Command {
	c := listCommand(t, &cobra.Command{
		Use:   "suppressions",
		Short: "See and change the addresses to which no mail is sent.",
		Long: `Lists the addresses to which mail is refused at RCPT, with the reason, the source and
the date. The commands below change the list. What the relay learnt from the API and
from the provider's events expires (suppression.expire); what an operator adds stays.

It asks the running daemon, or opens the data directory of a stopped one, as
'smtp2rest queue' does. The list is this relay's own. The provider keeps its own list,
and the API refuses mail to the addresses on it.`,
		Example: terminal.Examples("smtp2rest suppressions", "smtp2rest suppressions list --reason hard_bounce,complaint --domain example.net", "smtp2rest suppressions --json"),
	})
	c.AddCommand(
		listCommand(t, &cobra.Command{
			Use:   "list",
			Short: "List suppressed addresses.",
			Long: `Lists one line for each address, sorted by address. An unsubscribed address is only
marked: mail to it goes out, unless webhook.suppress_unsubscribed is on.

--json prints one array of all that match, one address on each line.`,
			Example: terminal.Examples("smtp2rest suppressions list --source webhook", "smtp2rest suppressions list --json | jq -r '.[].address'"),
		}),
		showCommand(t), addCommand(t), removeCommand(t), importCommand(t), exportCommand(t),
	)
	return c
}

// selection holds the flags that select suppressions.
type selection struct{ reasons, sources, domain string }

func (s *selection) declare(fs *pflag.FlagSet) {
	fs.StringVar(&s.reasons, "reason", "", "only these `reasons`, separated by commas: "+strings.Join(names(suppress.Reasons()), ", "))
	fs.StringVar(&s.sources, "source", "", "only from these `sources`, separated by commas: "+strings.Join(names(suppress.Sources()), ", "))
	fs.StringVar(&s.domain, "domain", "", "only addresses at this `domain`")
}

func (s *selection) filter() (admin.SuppressionFilter, error) {
	f := admin.SuppressionFilter{Reasons: terminal.SplitList(s.reasons), Sources: terminal.SplitList(s.sources), Domain: strings.TrimPrefix(s.domain, "@")}
	var wrong []error
	for _, name := range f.Reasons {
		wrong = append(wrong, check("reason", name, suppress.Reasons()))
	}
	for _, name := range f.Sources {
		wrong = append(wrong, check("source", name, suppress.Sources()))
	}
	return f, errors.Join(wrong...)
}

// check returns an error if name is unknown.
func check[T fmt.Stringer](what, name string, all []T) error {
	if known := names(all); !slices.Contains(known, name) {
		return terminal.Usagef("there is no %s %q%s", what, name, terminal.NoSuch(name, known))
	}
	return nil
}

func names[T fmt.Stringer](all []T) (list []string) {
	for _, one := range all {
		list = append(list, one.String())
	}
	return list
}

// listCommand completes c, which is "suppressions list" or "suppressions" alone.
func listCommand(t *terminal.Terminal, c *cobra.Command) *cobra.Command {
	var r target
	var s selection
	var p terminal.Paging
	r.Declare(c.Flags())
	s.declare(c.Flags())
	p.Declare(c.Flags(), "addresses")
	c.Args = terminal.NoArgs("'suppressions show %[1]s' shows one address")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		filter, err := s.filter()
		if err != nil {
			return err
		}
		return r.lists(cmd.Context(), t, func(list iter.Seq2[admin.Suppression, error], several bool) error {
			if r.JSON {
				return terminal.PrintJSONList(t.Out, p, list)
			}
			head := []string{"ADDRESS", "REASON", "SOURCE", "SINCE", "EXPIRES", "DETAIL"}
			if several {
				head = slices.Insert(head, 1, "ACCOUNT")
			}
			shown, err := terminal.PrintTable(t, p, list, head, func(e admin.Suppression) []string {
				detail, expires := e.Detail, "never"
				if e.Note != "" {
					detail = e.Note
				}
				if !e.Expires.IsZero() {
					expires = e.Expires.Local().Format(time.DateOnly)
				}
				row := []string{terminal.Printable(e.Address), e.Reason, e.Source, e.Since.Local().Format(time.DateOnly), expires, terminal.Printable(detail)}
				if several {
					row = slices.Insert(row, 1, terminal.Printable(e.Account))
				}
				return row
			})
			switch {
			case err != nil:
				return err
			case shown.Rows == 0:
				_, err = fmt.Fprintln(t.Out, "No suppressed address matches.")
			case shown.More:
				_, err = fmt.Fprintf(t.Out, "\n%s.\n", shown)
			}
			return err
		}, filter)
	}
	return c
}

func showCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:     "show ADDRESS",
		Short:   "Show why an address is suppressed.",
		Long:    "Shows all that is known of why mail to an address is refused. It exits 1 when the address is not on the list.",
		Example: terminal.Examples("smtp2rest suppressions show bob@example.net"),
		Args:    terminal.Args(1, 1, "name one address"),
	}
	var r target
	r.Declare(c.Flags())
	c.RunE = func(cmd *cobra.Command, args []string) error {
		return r.WithSuppressions(cmd.Context(), t, func(o admin.Suppressions) error {
			e, err := o.GetSuppression(cmd.Context(), args[0])
			switch {
			case err != nil:
				return err
			case r.JSON:
				return terminal.PrintJSON(t.Out, e)
			}
			return show(t, e)
		})
	}
	return c
}

func show(t *terminal.Terminal, e admin.Suppression) error {
	expires := "never"
	if !e.Expires.IsZero() {
		expires = terminal.Clock(e.Expires)
		if e.Expires.Before(time.Now()) {
			expires += " (expired)"
		}
	}
	for _, l := range [][2]string{
		{"address", e.Address}, {"reason", e.Reason}, {"source", e.Source}, {"since", terminal.Clock(e.Since)},
		{"expires", expires}, {"event", e.Event}, {"detail", e.Detail}, {"note", e.Note},
	} {
		if l[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(t.Out, "%-9s %s\n", l[0], terminal.Printable(l[1])); err != nil {
			return err
		}
	}
	return nil
}

func addCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "add ADDRESS...",
		Short: "Refuse mail to addresses.",
		Long: `Puts addresses on the list. An existing entry is replaced. The addresses stay until they
are removed, unless --expires is given. Mail to them that already waits in the queue is
still sent: 'smtp2rest queue drop --recipient' removes it.`,
		Example: terminal.Examples("smtp2rest suppressions add bob@example.net --note 'asked by phone'", "smtp2rest suppressions add bob@example.net --reason complaint --expires 90d"),
		Args:    terminal.Args(1, admin.MaxSuppressions, fmt.Sprintf("name the addresses, at most %d at once; 'suppressions import' takes more", admin.MaxSuppressions)),
	}
	fs := c.Flags()
	var r target
	var expires time.Duration
	r.Declare(fs)
	reason := fs.String("reason", "operator", "the `reason` that the client is told")
	note := fs.String("note", "", "a `text` that the list shows")
	fs.Func("expires", "how long the address stays suppressed: a `time` such as 90d", func(s string) (err error) {
		if expires, err = settings.ParseDuration(s); err == nil && expires <= 0 {
			err = errors.New(`write how long from now it expires, such as "90d"`)
		}
		return err
	})
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := check("reason", *reason, suppress.Reasons()); err != nil {
			return err
		}
		now := time.Now()
		list := make([]admin.Suppression, len(args))
		for i, a := range args {
			list[i] = admin.Suppression{Address: a, Reason: *reason, Since: now, Note: *note}
			if expires > 0 {
				list[i].Expires = now.Add(expires)
			}
		}
		return r.WithSuppressions(cmd.Context(), t, func(o admin.Suppressions) error {
			n, err := o.AddSuppressions(cmd.Context(), list)
			if err != nil {
				return err
			}
			return printChanged(t, n, "added", r.JSON)
		})
	}
	return c
}

// maxArgs is more words than a command line can have.
const maxArgs = 1 << 20

func removeCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "remove ADDRESS...",
		Short: "Let mail to addresses go out again.",
		Long: `Takes addresses off the list. An event about something that happened before does not put
them on it again, even if it comes late. If an address is on the provider's list as
well, the API refuses the next mail to it, and this relay suppresses it again.`,
		Example: terminal.Examples("smtp2rest suppressions remove bob@example.net"),
		Args:    terminal.Args(1, maxArgs, "name the addresses"),
	}
	var r target
	r.Declare(c.Flags())
	c.RunE = func(cmd *cobra.Command, args []string) error {
		return r.WithSuppressions(cmd.Context(), t, func(o admin.Suppressions) error {
			total := 0
			for part := range slices.Chunk(args, admin.MaxSuppressions) {
				n, err := o.RemoveSuppressions(cmd.Context(), part)
				total += n
				if err != nil {
					return fmt.Errorf("%w (%s removed before that)", err, terminal.Counted(total, "address"))
				}
			}
			result := "removed"
			if total < len(args) {
				result = fmt.Sprintf("removed; %d not on the list", len(args)-total)
			}
			return printChanged(t, total, result, r.JSON)
		})
	}
	return c
}

func printChanged(t *terminal.Terminal, n int, result string, asJSON bool) error {
	if asJSON {
		return terminal.PrintJSON(t.Out, struct {
			Addresses int `json:"addresses"`
		}{n})
	}
	_, err := fmt.Fprintf(t.Out, "%s %s.\n", terminal.Counted(n, "address"), result)
	return err
}
