package suppressions

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
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
	out := bufio.NewWriter(w)
	table := csv.NewWriter(out)
	if asCSV {
		if err := table.Write([]string{"address", "reason", "source", "since", "expires", "event", "detail", "note"}); err != nil {
			return err
		}
	}
	for e, err := range admin.AllSuppressions(ctx, a, f) {
		if err != nil {
			return err
		}
		if asCSV {
			err = table.Write([]string{e.Address, e.Reason, e.Source, stamp(e.Since), stamp(e.Expires), e.Event, e.Detail, e.Note})
		} else {
			err = terminal.PrintJSON(out, e)
		}
		if err != nil {
			return err
		}
	}
	table.Flush()
	return errors.Join(table.Error(), out.Flush())
}

func stamp(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339Nano)
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
	next := reader(r)
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

// entries returns the next entry and its line, or io.EOF.
type entries func() (admin.Suppression, int, error)

// reader tells the two kinds of files apart: JSON begins with a brace.
func reader(r io.Reader) entries {
	in := bufio.NewReader(r)
	if bom, err := in.Peek(3); err == nil && string(bom) == "\ufeff" { // as spreadsheets write
		_, _ = in.Discard(3)
	}
	for {
		first, err := in.Peek(1)
		switch {
		case err == nil && strings.ContainsRune(" \t\r\n", rune(first[0])):
			_, _ = in.Discard(1)
			continue
		case err == nil && first[0] == '{':
			return jsonLines(in)
		}
		return csvLines(in)
	}
}

func jsonLines(in *bufio.Reader) entries {
	line := 0
	return func() (e admin.Suppression, _ int, err error) {
		for {
			line++
			text, err := in.ReadString('\n')
			if strings.TrimSpace(text) == "" {
				if err != nil {
					return e, line, err
				}
				continue
			}
			if jerr := json.Unmarshal([]byte(text), &e); jerr != nil {
				return e, line, fmt.Errorf("it is no JSON object of a suppression: %w", jerr)
			}
			return e, line, nil
		}
	}
}

func csvLines(in *bufio.Reader) entries {
	table := csv.NewReader(in)
	table.FieldsPerRecord = -1
	table.TrimLeadingSpace = true
	columns := []string{"address"}
	first := true
	return func() (admin.Suppression, int, error) {
		row, err := table.Read()
		if first && err == nil {
			first = false
			if names, ok := header(row); ok {
				columns = names
				row, err = table.Read()
			}
		}
		if err != nil {
			return admin.Suppression{}, lineOf(err), err
		}
		line, _ := table.FieldPos(0)
		e, err := rowEntry(columns, row)
		return e, line, err
	}
}

func lineOf(err error) int {
	if p, ok := errors.AsType[*csv.ParseError](err); ok {
		return p.Line
	}
	return 0
}

// header returns the columns that the first row names. It is no header unless it
// names the address.
func header(row []string) ([]string, bool) {
	names, found := make([]string, len(row)), false
	for i, cell := range row {
		names[i] = strings.ToLower(strings.TrimSpace(cell))
		if names[i] == "email" {
			names[i] = "address"
		}
		found = found || names[i] == "address"
	}
	return names, found
}

func rowEntry(columns, row []string) (e admin.Suppression, err error) {
	text := map[string]*string{"address": &e.Address, "reason": &e.Reason, "source": &e.Source, "event": &e.Event, "detail": &e.Detail, "note": &e.Note}
	times := map[string]*time.Time{"since": &e.Since, "expires": &e.Expires}
	for i, cell := range row[:min(len(row), len(columns))] {
		cell = strings.TrimSpace(cell)
		if to := text[columns[i]]; to != nil {
			*to = cell
		} else if to := times[columns[i]]; to != nil {
			if *to, err = parseStamp(cell); err != nil {
				return e, fmt.Errorf("%s: %w", columns[i], err)
			}
		}
	}
	return e, nil
}

func parseStamp(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly, "2006-01-02 15:04:05"} {
		if at, err := time.Parse(layout, s); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time; write it like 2026-05-13T10:24:31Z", s)
}
