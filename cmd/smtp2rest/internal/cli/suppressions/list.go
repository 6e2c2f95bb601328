package suppressions

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
)

func suppressionsListCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List suppressed addresses.",
		Long: `Lists one line for each address, by address. An unsubscribed one is only marked,
and mail to it goes out, unless webhook.suppress_unsubscribed is on.

--json prints one array of all that match, one address on each line.`,
		Example: terminal.Examples("smtp2rest suppressions list --source webhook", "smtp2rest suppressions list --json | jq -r '.[].address'"),
	}
	addSuppressionsList(t, c)
	return c
}

// addSuppressionsList makes c the command that lists.
func addSuppressionsList(t *terminal.Terminal, c *cobra.Command) {
	fs := c.Flags()
	var s reach.Flags
	var f suppressionFilterFlags
	s.Declare(fs)
	f.declare(fs)
	limit := terminal.DeclareLimit(fs, "addresses")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) > 0 {
			return terminal.Unexpected(cmd, args[0], fmt.Sprintf("'suppressions show %s' shows one address", args[0]))
		}
		filter, err := f.filter()
		if err != nil {
			return err
		}
		return s.WithSuppressions(ctx, t, func(a admin.Suppressions) error {
			if s.JSON {
				return terminal.PrintJSONList(t.Out, admin.AllSuppressions(ctx, a, filter), *limit)
			}
			return listSuppressions(ctx, t, a, filter, *limit)
		})
	}
}

func listSuppressions(ctx context.Context, t *terminal.Terminal, a admin.Suppressions, f admin.SuppressionFilter, limit int) error {
	if limit < 0 {
		limit = terminal.TableLimit
	}
	table := terminal.NewTable(t, "ADDRESS", "REASON", "SOURCE", "SINCE", "EXPIRES", "DETAIL")
	n, more := 0, false
	for e, err := range admin.AllSuppressions(ctx, a, f) {
		if err != nil {
			return err
		}
		if more = limit > 0 && n == limit; more {
			break
		}
		n++
		detail := e.Detail
		if e.Note != "" {
			detail = e.Note
		}
		if err := table.Add(terminal.Printable(e.Address), e.Reason, e.Source, e.Since.Local().Format(time.DateOnly), expiry(e), terminal.Printable(detail)); err != nil {
			return err
		}
	}
	if n == 0 {
		_, err := fmt.Fprintln(t.Out, "No address is suppressed that matches.")
		return err
	}
	if err := table.Flush(); err != nil || !more {
		return err
	}
	_, err := fmt.Fprintf(t.Out, "\n%s shown, and there are more: --limit 0 shows all.\n", addresses(n))
	return err
}

func expiry(e admin.Suppression) string {
	if e.Expires.IsZero() {
		return "never"
	}
	return e.Expires.Local().Format(time.DateOnly)
}

func suppressionsShowCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:     "show ADDRESS",
		Short:   "Show why an address is suppressed.",
		Long:    "Shows all that is known of why mail to an address is refused. It exits 1 when it is not on the list.",
		Example: terminal.Examples("smtp2rest suppressions show bob@example.net"),
	}
	fs := c.Flags()
	var s reach.Flags
	s.Declare(fs)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) != 1 {
			return terminal.Usagef("name one address")
		}
		return s.WithSuppressions(ctx, t, func(a admin.Suppressions) error {
			e, err := a.GetSuppression(ctx, args[0])
			if err != nil {
				return err
			}
			if s.JSON {
				return terminal.PrintJSON(t.Out, e)
			}
			return showSuppression(t, e)
		})
	}
	return c
}

func showSuppression(t *terminal.Terminal, e admin.Suppression) error {
	lines := [][2]string{
		{"address", e.Address}, {"reason", e.Reason}, {"source", e.Source}, {"since", terminal.Clock(e.Since)}, {"expires", "never"},
		{"event", e.Event}, {"detail", e.Detail}, {"note", e.Note},
	}
	if !e.Expires.IsZero() {
		lines[4][1] = terminal.Clock(e.Expires)
		if e.Expires.Before(time.Now()) {
			lines[4][1] += " (has expired, and counts no more)"
		}
	}
	for _, l := range lines {
		if l[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(t.Out, "%-9s %s\n", l[0], terminal.Printable(l[1])); err != nil {
			return err
		}
	}
	return nil
}
