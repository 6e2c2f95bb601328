package terminal

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"
)

// TableLimit is how many lines are enough for a person.
const TableLimit = 100

// DeclareLimit declares --limit for a command that lists what. It is negative
// when it is not given.
func DeclareLimit(fs *pflag.FlagSet, what string) *int {
	limit := fs.Int("limit", -1, fmt.Sprintf("print at most this `number` of %s, 0 for all; without it a table has %d and JSON all", what, TableLimit))
	fs.Lookup("limit").DefValue = "0" // said above; pflag does not show a zero
	return limit
}

// AddressWidth is how much of an address is shown: on a screen, half of what
// the columns beside them and a bit of a reason leave.
func AddressWidth(t *Terminal) int {
	const others, reason, least, most = 50, 30, 14, 32
	if t.Width == 0 {
		return math.MaxInt
	}
	return min(max((t.Width-others-reason)/2, least), most)
}

// tableChunk is how many rows are measured before they are printed: the rest
// of a long table follows the widths of its beginning, or makes them wider, so
// that memory does not grow with it.
const tableChunk = 1000

// Table prints rows in columns that are as wide as they need to be. On a screen
// the last one takes what is left.
type Table struct {
	t       *Terminal
	widths  []int
	rows    [][]string
	started bool
	head    []string
}

func NewTable(t *Terminal, head ...string) *Table {
	tb := &Table{t: t, head: head, widths: make([]int, len(head))}
	tb.measure(head)
	return tb
}

func (tb *Table) measure(row []string) {
	for i, cell := range row {
		tb.widths[i] = max(tb.widths[i], utf8.RuneCountInString(cell))
	}
}

func (tb *Table) Add(row ...string) error {
	tb.measure(row)
	tb.rows = append(tb.rows, row)
	if len(tb.rows) == tableChunk {
		return tb.Flush()
	}
	return nil
}

func (tb *Table) Flush() error {
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

func (tb *Table) line(row []string) string {
	var b strings.Builder
	last := len(row) - 1
	for i, cell := range row[:last] {
		b.WriteString(pad(cell, tb.widths[i]) + "  ")
	}
	rest := row[last]
	if tb.t.Width > 0 {
		const least = 20 // a line that is too long is better than no reason
		rest = Cut(rest, max(tb.t.Width-utf8.RuneCountInString(b.String()), least))
	}
	return strings.TrimRight(b.String()+rest, " ")
}
