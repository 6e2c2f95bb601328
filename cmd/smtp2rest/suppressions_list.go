package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
)

func suppressionsListCommand() *command {
	return &command{
		name:    "suppressions list",
		summary: "List suppressed addresses.",
		about: `Lists one line for each address, by address. An unsubscribed one is only marked,
and mail to it goes out, unless webhook.suppress_unsubscribed is on.

--json prints one array of all that match, one address on each line.`,
		examples: []string{"smtp2rest suppressions list --source webhook", "smtp2rest suppressions list --json | jq -r '.[].address'"},
		setup: func(fs *flag.FlagSet) action {
			var s suppressionFlags
			var f suppressionFilterFlags
			s.declare(fs)
			f.declare(fs)
			limit := declareLimit(fs, "addresses")
			return func(ctx context.Context, t *terminal, args []string) error {
				if len(args) > 0 {
					return usagef("unexpected argument %q; 'suppressions show %s' shows one address", args[0], args[0])
				}
				filter, err := f.filter()
				if err != nil {
					return err
				}
				return s.with(ctx, t, func(a admin.Suppressions) error {
					if s.json {
						return printJSONList(t.out, admin.AllSuppressions(ctx, a, filter), *limit)
					}
					return listSuppressions(ctx, t, a, filter, *limit)
				})
			}
		},
	}
}

func listSuppressions(ctx context.Context, t *terminal, a admin.Suppressions, f admin.SuppressionFilter, limit int) error {
	if limit < 0 {
		limit = tableLimit
	}
	table := newTable(t, "ADDRESS", "REASON", "SOURCE", "SINCE", "EXPIRES", "DETAIL")
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
		if err := table.add(printable(e.Address), e.Reason, e.Source, e.Since.Local().Format(time.DateOnly), expiry(e), printable(detail)); err != nil {
			return err
		}
	}
	if n == 0 {
		_, err := fmt.Fprintln(t.out, "No address is suppressed that matches.")
		return err
	}
	if err := table.flush(); err != nil || !more {
		return err
	}
	_, err := fmt.Fprintf(t.out, "\n%s shown, and there are more: --limit 0 shows all.\n", addresses(n))
	return err
}

func expiry(e admin.Suppression) string {
	if e.Expires.IsZero() {
		return "never"
	}
	return e.Expires.Local().Format(time.DateOnly)
}

func suppressionsShowCommand() *command {
	return &command{
		name:     "suppressions show",
		args:     "ADDRESS",
		summary:  "Show why an address is suppressed.",
		about:    "Shows all that is known of why mail to an address is refused. It exits 1 when it is not on the list.",
		examples: []string{"smtp2rest suppressions show bob@example.net"},
		setup: func(fs *flag.FlagSet) action {
			var s suppressionFlags
			s.declare(fs)
			return func(ctx context.Context, t *terminal, args []string) error {
				if len(args) != 1 {
					return usagef("name one address")
				}
				return s.with(ctx, t, func(a admin.Suppressions) error {
					e, err := a.GetSuppression(ctx, args[0])
					if err != nil {
						return err
					}
					if s.json {
						return printJSON(t.out, e)
					}
					return showSuppression(t, e)
				})
			}
		},
	}
}

func showSuppression(t *terminal, e admin.Suppression) error {
	lines := [][2]string{
		{"address", e.Address}, {"reason", e.Reason}, {"source", e.Source}, {"since", clock(e.Since)}, {"expires", "never"},
		{"event", e.Event}, {"detail", e.Detail}, {"note", e.Note},
	}
	if !e.Expires.IsZero() {
		lines[4][1] = clock(e.Expires)
		if e.Expires.Before(time.Now()) {
			lines[4][1] += " (has expired, and counts no more)"
		}
	}
	for _, l := range lines {
		if l[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(t.out, "%-9s %s\n", l[0], printable(l[1])); err != nil {
			return err
		}
	}
	return nil
}
