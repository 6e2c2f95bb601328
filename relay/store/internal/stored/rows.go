package stored

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Table is a table of the records that every engine has, as migrate takes its rows from one
// to another: as they are stored. All values are text or whole numbers.
type Table struct {
	Name    string
	Columns []string
	Numbers []string // those of Columns that are numbers
	// Key are the columns that name a row. Order is by what rows are read: the order
	// of arrival, if that says something.
	Key, Order []string
}

// Tables are all of them, what others refer to first.
func Tables() []Table {
	return []Table{
		{Name: "suppressions", Columns: []string{"address", "reason", "source", "since", "expires", "event", "detail", "note"},
			Numbers: []string{"since", "expires"}, Key: []string{"address"}},
		{Name: "removals", Columns: []string{"address", "at"}, Numbers: []string{"at"}, Key: []string{"address"}},
		{Name: "events", Columns: []string{"id", "type", "created", "occurred", "address", "email", "message_id", "bounce_code", "bounce_reason", "received"},
			Numbers: []string{"created", "occurred", "received"}, Key: []string{"id"}, Order: []string{"seq"}},
		{Name: "mails", Columns: []string{"id", "received", "sender", "sender_key", "message_id", "subject", "head", "reply", "answered"},
			Numbers: []string{"received", "answered"}, Key: []string{"id"}},
		{Name: "mail_recipients", Columns: []string{"mail", "key", "received", "addr", "named", "named_key", "state", "ended", "api_id", "steps"},
			Numbers: []string{"received", "ended"}, Key: []string{"mail", "key"}},
		{Name: "mails_forgotten", Columns: []string{"id"}, Key: []string{"id"}},
	}
}

// Row is one row: a string or an int64 for each column.
type Row []any

// Sum is what a number of rows, or other things, come to in any order.
type Sum struct {
	Count int64
	Sum   uint64
}

// Add adds one thing, by all that it consists of.
func (s *Sum) Add(parts ...any) {
	h := sha256.New()
	for _, p := range parts {
		text := fmt.Sprint(p)
		_, _ = fmt.Fprintf(h, "%d:%s", len(text), text)
	}
	s.Count++
	s.Sum += binary.BigEndian.Uint64(h.Sum(nil))
}
