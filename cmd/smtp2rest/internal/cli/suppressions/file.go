package suppressions

import (
	"bufio"
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

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
)

// fileColumns are the columns of a CSV file, in the order of an export.
func fileColumns() []string {
	return []string{"address", "reason", "source", "since", "expires", "event", "detail", "note"}
}

func suppressionsExportCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "export",
		Short: "Write the list to standard output.",
		Long: `Writes one line for each address: CSV with a header, or JSON lines, which 'import'
reads again. --json is --format jsonl.`,
		Example: terminal.Examples("smtp2rest suppressions export > list.csv", "smtp2rest suppressions export --format jsonl --source operator"),
	}
	fs := c.Flags()
	var s reach.Flags
	var f suppressionFilterFlags
	s.Declare(fs)
	f.declare(fs)
	format := fs.String("format", "csv", "`csv` or jsonl")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		filter, err := f.filter()
		if s.JSON {
			*format = "jsonl"
		}
		switch {
		case err != nil:
			return err
		case len(args) > 0:
			return terminal.Usagef("unexpected argument %q; the list goes to standard output", args[0])
		case *format != "csv" && *format != "jsonl":
			return terminal.Usagef("there is no format %q%s", *format, terminal.NoSuch(*format, []string{"csv", "jsonl"}))
		}
		return s.WithSuppressions(ctx, t, func(a admin.Suppressions) error {
			return export(ctx, t.Out, a, filter, *format == "csv")
		})
	}
	return c
}

func export(ctx context.Context, w io.Writer, a admin.Suppressions, f admin.SuppressionFilter, asCSV bool) error {
	out := bufio.NewWriter(w)
	table := csv.NewWriter(out)
	if asCSV {
		if err := table.Write(fileColumns()); err != nil {
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

func suppressionsImportCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Read a list from a file, - for standard input.",
		Long: `Reads CSV or JSON lines as 'export' writes them, and puts all of it on the list in
the place of what was known. A CSV file needs a header with a column address, or
email; reason, source, since, expires, event, detail and note may be there, other
columns are not looked at. A file without a header has one address on each line.
What has expired is left out.`,
		Example: terminal.Examples("smtp2rest suppressions import list.csv", "smtp2rest suppressions import --reason hard_bounce bounces.txt"),
	}
	fs := c.Flags()
	var s reach.Flags
	s.Declare(fs)
	reason := fs.String("reason", "operator", "the `reason` of lines that name none")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) != 1 {
			return terminal.Usagef("name one file, or - for standard input")
		}
		if err := checkReason(*reason); err != nil {
			return err
		}
		in, done, err := input(t, args[0])
		if err != nil {
			return err
		}
		defer done()
		return s.WithSuppressions(ctx, t, func(a admin.Suppressions) error {
			n, expired, err := importFrom(ctx, a, in, *reason)
			if err != nil {
				return fmt.Errorf("%s: %w (%s imported before that)", args[0], err, addresses(n))
			}
			past := "imported"
			if expired > 0 {
				past = fmt.Sprintf("imported; %d had expired", expired)
			}
			return printAddresses(t, n, past, s.JSON)
		})
	}
	return c
}

func input(t *terminal.Terminal, name string) (io.Reader, func(), error) {
	if name == "-" {
		return t.In, func() {}, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	return f, func() { _ = f.Close() }, nil // it was only read
}

// importFrom adds what a file has, part by part, so that its size does not
// matter.
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
			e.Reason, err = orElse(e.Reason, reason), checkFileReason(e.Reason)
		}
		if err == nil && !strings.Contains(e.Address, "@") {
			err = fmt.Errorf("%q is no mail address", e.Address)
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

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// checkFileReason is checkReason where it is no mistake on the command line.
func checkFileReason(name string) error {
	if err := checkReason(name); name != "" && err != nil {
		return errors.New(err.Error())
	}
	return nil
}

// entries gives one entry after the other, with its line, and io.EOF.
type entries func() (admin.Suppression, int, error)

// reader tells the two kinds of files apart: only JSON begins with a brace.
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

// header is the columns that a first row names, if it names the address.
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
	for i, cell := range row {
		if i >= len(columns) {
			break
		}
		cell = strings.TrimSpace(cell)
		switch columns[i] {
		case "address":
			e.Address = cell
		case "reason":
			e.Reason = cell
		case "source":
			e.Source = cell
		case "since":
			e.Since, err = parseStamp(cell)
		case "expires":
			e.Expires, err = parseStamp(cell)
		case "event":
			e.Event = cell
		case "detail":
			e.Detail = cell
		case "note":
			e.Note = cell
		}
		if err != nil {
			return e, fmt.Errorf("%s: %w", columns[i], err)
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
	return time.Time{}, fmt.Errorf("%q is no time; write it as 2026-05-13T10:24:31Z", s)
}
