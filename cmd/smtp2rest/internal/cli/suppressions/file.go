package suppressions

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

func exportCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "export",
		Short: "Write the list to standard output.",
		Long: `Writes one line for each address: CSV with a header, or JSON lines. 'import' reads
both. --json means --format jsonl.`,
		Example: terminal.Examples("smtp2rest suppressions export > list.csv", "smtp2rest suppressions export --format jsonl --source operator"),
		Args:    terminal.NoArgs("the list goes to standard output"),
	}
	var r target
	var s selection
	r.Declare(c.Flags())
	s.declare(c.Flags())
	format := c.Flags().String("format", "csv", "`csv` or jsonl")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		filter, err := s.filter()
		switch {
		case err != nil:
			return err
		case *format != "csv" && *format != "jsonl":
			return terminal.Usagef("there is no format %q%s", *format, terminal.NoSuch(*format, []string{"csv", "jsonl"}))
		}
		return r.WithSuppressions(cmd.Context(), t, func(o admin.Suppressions) error {
			return export(cmd.Context(), t.Out, o, filter, *format == "csv" && !r.JSON)
		})
	}
	return c
}

func export(ctx context.Context, w io.Writer, a admin.Suppressions, f admin.SuppressionFilter, asCSV bool) error {
	entries := admin.AllSuppressions(ctx, a, f)
	if asCSV {
		return admin.WriteSuppressions(w, entries)
	}
	out := bufio.NewWriter(w)
	for e, err := range entries {
		if err == nil {
			err = terminal.PrintJSON(out, e)
		}
		if err != nil {
			return err
		}
	}
	return out.Flush()
}

func importCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Read a list from a file, or from standard input (-).",
		Long: `Reads CSV or JSON lines as 'export' writes them, puts every address on the list, and
replaces what the list has of it. A CSV file needs a header with the column address
or email; it may have reason, source, since, expires, event, detail and note, and other
columns are ignored. A file without a header has one address on each line. Entries
that have expired are left out.`,
		Example: terminal.Examples("smtp2rest suppressions import list.csv", "smtp2rest suppressions import --reason hard_bounce bounces.txt"),
		Args:    terminal.Args(1, 1, "name one file, or - for standard input"),
	}
	var r target
	r.Declare(c.Flags())
	reason := c.Flags().String("reason", "operator", "the `reason` of lines that name none")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := check("reason", *reason, suppress.Reasons()); err != nil {
			return err
		}
		in := t.In
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }() // it was only read
			in = f
		}
		return r.WithSuppressions(cmd.Context(), t, func(o admin.Suppressions) error {
			n, expired, err := importFrom(cmd.Context(), o, in, *reason)
			if err != nil {
				return fmt.Errorf("%s: %w (%s imported before that)", args[0], err, terminal.Counted(n, "address"))
			}
			past := "imported"
			if expired > 0 {
				past = fmt.Sprintf("imported; %d had expired", expired)
			}
			return printChanged(t, n, past, r.JSON)
		})
	}
	return c
}

// importFrom adds the entries of a file in parts, so that a file can have any size.
func importFrom(ctx context.Context, a admin.Suppressions, r io.Reader, reason string) (added, expired int, err error) {
	next := admin.ReadSuppressions(r)
	part := make([]admin.Suppression, 0, admin.MaxSuppressions)
	flush := func() error {
		n, err := a.AddSuppressions(ctx, part)
		added, part = added+n, part[:0]
		return err
	}
	for {
		e, line, err := next()
		if errors.Is(err, io.EOF) {
			return added, expired, flush()
		}
		if err == nil {
			e.Reason = cmp.Or(e.Reason, reason)
			if _, known := suppress.ParseReason(e.Reason); !known {
				err = fmt.Errorf("there is no reason %q", e.Reason)
			} else if !strings.Contains(e.Address, "@") {
				err = fmt.Errorf("%q is no mail address", e.Address)
			}
		}
		if err != nil {
			return added, expired, fmt.Errorf("line %d: %w", line, err)
		}
		if !e.Expires.IsZero() && !e.Expires.After(time.Now()) {
			expired++
			continue
		}
		if part = append(part, e); len(part) == cap(part) {
			if err := flush(); err != nil {
				return added, expired, fmt.Errorf("up to line %d: %w", line, err)
			}
		}
	}
}
