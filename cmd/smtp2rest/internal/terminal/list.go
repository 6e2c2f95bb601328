package terminal

import (
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/internal/settings"
)

// Selection holds the flags that narrow down a list of mail. The queue, the
// history and trace share them.
type Selection struct {
	States                []string
	ID, Sender, Recipient string
	Account               string
	since, until          moment
}

// Declare declares the flags. names are the words that --state takes.
func (s *Selection) Declare(fs *pflag.FlagSet, names []string) {
	fs.Func("state", "only these `states`, separated by commas: "+strings.Join(names, ", "), func(list string) error {
		for _, word := range SplitList(list) {
			if !slices.Contains(names, word) {
				return fmt.Errorf("there is no state %q%s\nStates are: %s", word, DidYouMean(word, names), strings.Join(names, ", "))
			}
			s.States = append(s.States, word)
		}
		return nil
	})
	fs.StringVar(&s.ID, "id", "", "only mail whose id has this `beginning`")
	fs.StringVar(&s.Sender, "sender", "", "only mail of this envelope `address`")
	fs.StringVar(&s.Sender, "from", "", "the same as --sender: an `address`")
	fs.StringVar(&s.Recipient, "recipient", "", "only mail to this `address`")
	fs.StringVar(&s.Account, "account", "", "only mail of this `account`, where there are several; default is that of [api]")
	fs.Var(&s.since, "since", "only mail that came since this `time`: 2026-11-25, 2026-11-25T18:00, or how long ago, such as 90m or 2d")
	fs.Var(&s.until, "until", "only mail that came before this `time`")
	fs.Var(&s.since, "newer", "the same as --since: a `time`, such as 2d")
	fs.Var(&s.until, "older", "the same as --until: a `time`, such as 90m")
}

// Since is the time that --since names, or the zero time.
func (s *Selection) Since() time.Time { return time.Time(s.since) }

// Until is the time that --until names, or the zero time.
func (s *Selection) Until() time.Time { return time.Time(s.until) }

// moment is the value of a flag for a date, a time, or how long ago.
type moment time.Time

func (m *moment) Set(s string) error {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			*m = moment(at)
			return nil
		}
	}
	ago, err := settings.ParseDuration(s)
	if err != nil || ago <= 0 {
		return fmt.Errorf(`found %q, which is not a time; write how long ago, such as "90m" or "2d", a date, such as "2026-11-25", or a time, such as "2026-11-25T18:00"`, s)
	}
	*m = moment(time.Now().Add(-ago))
	return nil
}

// Type is what the help calls the value.
func (*moment) Type() string { return "time" }

func (m *moment) String() string {
	if m == nil || time.Time(*m).IsZero() {
		return ""
	}
	return time.Time(*m).Format(time.RFC3339)
}

// TableLimit is how many rows a table has unless --limit or --all says otherwise.
const TableLimit = 100

// Paging holds --limit and --all of a command that lists.
type Paging struct{ limit int } // negative: neither was given; 0: all

// Declare declares the flags of a command that lists what.
func (p *Paging) Declare(fs *pflag.FlagSet, what string) {
	fs.IntVar(&p.limit, "limit", -1, fmt.Sprintf("print at most this `number` of %s; without it, a table has %d and JSON has all", what, TableLimit))
	fs.Lookup("limit").DefValue = "0" // the usage says it, and pflag prints no zero
	fs.BoolFunc("all", "print all "+what, func(string) error {
		p.limit = 0
		return nil
	})
}

// Limit is the number of rows to print; 0 is all.
func (p Paging) Limit(asJSON bool) int {
	if p.limit < 0 && !asJSON {
		return TableLimit
	}
	return max(p.limit, 0)
}

// Shown says how much of a list was printed.
type Shown struct {
	Rows int
	More bool // there is more than was printed
}

func (s Shown) String() string {
	if s.More {
		return fmt.Sprintf("%d shown, and there are more: --all shows them", s.Rows)
	}
	return fmt.Sprintf("%d shown", s.Rows)
}

// PrintTable prints a list as a table, row by row. It prints nothing when the list
// is empty.
func PrintTable[T any](t *Terminal, p Paging, list iter.Seq2[T, error], head []string, row func(T) []string) (s Shown, err error) {
	limit := p.Limit(false)
	table := newTable(t, head)
	for e, err := range list {
		if err != nil {
			return s, err
		}
		if s.More = limit > 0 && s.Rows == limit; s.More {
			break
		}
		s.Rows++
		if err := table.add(row(e)); err != nil {
			return s, err
		}
	}
	return s, table.flush()
}

// PrintJSONList prints a list as a JSON array, one element on each line. When the
// list fails, the array has no end, so that no script takes it for the whole.
func PrintJSONList[T any](w io.Writer, p Paging, list iter.Seq2[T, error]) error {
	n, limit, before := 0, p.Limit(true), "[\n"
	for e, err := range list {
		if err != nil {
			return err
		}
		if limit > 0 && n == limit {
			break
		}
		line, err := PlainJSON(e)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprint(w, before, line); err != nil {
			return err
		}
		n, before = n+1, ",\n"
	}
	end := "\n]\n"
	if n == 0 {
		end = "[]\n"
	}
	_, err := fmt.Fprint(w, end)
	return err
}

// AddressWidth is how many characters of an address a table shows. On a screen
// it is half of what the other columns leave, less some room for a reason.
func AddressWidth(t *Terminal) int {
	const others, reason, least, most = 50, 30, 14, 32
	if t.Width == 0 {
		return math.MaxInt
	}
	return min(max((t.Width-others-reason)/2, least), most)
}

// tableChunk is how many rows are measured before they are printed. So a table
// of any length takes little memory; a later row may widen a column.
const tableChunk = 1000

// table prints rows in columns that are as wide as they need to be. On a screen,
// the last column takes what is left of the line.
type table struct {
	t       *Terminal
	head    []string
	widths  []int
	rows    [][]string
	started bool
}

func newTable(t *Terminal, head []string) *table {
	tb := &table{t: t, head: head, widths: make([]int, len(head))}
	tb.measure(head)
	return tb
}

func (tb *table) measure(row []string) {
	for i, cell := range row {
		tb.widths[i] = max(tb.widths[i], utf8.RuneCountInString(cell))
	}
}

func (tb *table) add(row []string) error {
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
		if _, err := fmt.Fprintln(tb.t.Out, tb.t.Palette().Bold(tb.line(tb.head))); err != nil {
			return err
		}
	}
	for _, row := range tb.rows {
		if _, err := fmt.Fprintln(tb.t.Out, tb.line(row)); err != nil {
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
		b.WriteString(cell + strings.Repeat(" ", max(tb.widths[i]-utf8.RuneCountInString(cell), 0)+2))
	}
	rest := row[last]
	if tb.t.Width > 0 {
		const least = 20 // a line that is too long is better than no reason
		rest = Cut(rest, max(tb.t.Width-utf8.RuneCountInString(b.String()), least))
	}
	return strings.TrimRight(b.String()+rest, " ")
}
