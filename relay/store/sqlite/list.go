package sqlite

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

const (
	defaultList = 100
	maxList     = 1000
	// scanAtOnce is how many recipients one page looks at, at most: some 20 ms.
	scanAtOnce = 20000
)

// cursor is the key of the recipient a page ended with.
type cursor struct{ seq, n int64 }

func (c cursor) String() string { return fmt.Sprintf("%d.%d", c.seq, c.n) }

func parseCursor(s string) (cursor, error) {
	if s == "" {
		return cursor{seq: -1}, nil
	}
	var c cursor
	if _, err := fmt.Sscanf(s, "%d.%d", &c.seq, &c.n); err != nil {
		return c, fmt.Errorf("%q is not a cursor", s)
	}
	return c, nil
}

// List implements queue.Queue.
func (s *Store) List(ctx context.Context, f queue.Filter) ([]queue.Entry, string, error) {
	at, err := parseCursor(f.Cursor)
	if err != nil {
		return nil, "", err
	}
	limit := min(cmp.Or(max(f.Limit, 0), defaultList), maxList)
	var entries []queue.Entry
	next := ""
	err = s.read(ctx, func(c *conn) error {
		entries = nil
		end, more, err := scan(c, f, at, limit, func(r row) error {
			m, err := readMail(r)
			if err != nil {
				m.Damaged = true
			}
			own := r[mailWidth:]
			e := queue.Entry{Mail: m.Mail, Recipient: readRecipient(own)}
			e.Recipient.History, err = history(c, m.seq, own.Int(7), 1)
			entries = append(entries, e)
			return err
		})
		if more {
			next = end.String()
		}
		return err
	})
	return entries, next, err
}

// query is the WHERE clause that a filter comes to.
type query struct {
	where []string
	args  []any
}

func (q *query) and(condition string, args ...any) {
	q.where = append(q.where, condition)
	q.args = append(q.args, args...)
}

// source is the index that leads to the filter's recipients: few are held or
// failed, while many may wait. All run in the order of arrival.
func source(f queue.Filter) (from, condition string) {
	if len(f.States) == 1 && f.States[0] == queue.Held {
		return "recipients r INDEXED BY recipients_held", "r.state = 3"
	}
	if len(f.States) == 1 && f.States[0] == queue.Failed {
		return "recipients r INDEXED BY recipients_failed", "r.state = 5"
	}
	return "recipients r", "1"
}

// scan calls f for the recipients that match, in order, from after a cursor
// on, at most limit of them and looking at no more than scanAtOnce. It says
// where it ended and whether that was before the end.
func scan(c *conn, filter queue.Filter, at cursor, limit int, f func(r row) error) (cursor, bool, error) {
	from, condition := source(filter)
	var q query
	q.and(condition)
	q.and("(r.mail, r.n) > (?, ?)", at.seq, at.n)
	few, err := fewMails(c, filter.ID)
	if err != nil {
		return at, false, err
	}
	last, bounded := at, false
	if few {
		from = "recipients r"
		q.and("r.mail IN (SELECT seq FROM mails WHERE id >= ? AND id < ?)", filter.ID, after(filter.ID))
	} else if last, bounded, err = stepEnd(c, from, condition, at); err != nil {
		return at, false, err
	} else if bounded {
		q.and("(r.mail, r.n) <= (?, ?)", last.seq, last.n)
	}
	q.filter(filter)
	seen, end := 0, at
	err = c.Each(func(r row) error {
		seen++
		end = cursor{r.Int(mailWidth + 8), r.Int(mailWidth + 7)}
		return f(r)
	}, "SELECT "+mailColumns+", "+recipientColumns+" FROM "+from+" CROSS JOIN mails m ON m.seq = r.mail WHERE "+
		strings.Join(q.where, " AND ")+" ORDER BY r.mail, r.n LIMIT ?", append(q.args, limit)...)
	if err != nil || seen == limit {
		return end, err == nil, err
	}
	return last, bounded, nil
}

// stepEnd is the last recipient of a step, if the step does not reach the end.
func stepEnd(c *conn, from, condition string, at cursor) (cursor, bool, error) {
	r, err := c.One("SELECT r.mail, r.n FROM "+from+" WHERE "+condition+
		" AND (r.mail, r.n) > (?, ?) ORDER BY r.mail, r.n LIMIT 1 OFFSET ?", at.seq, at.n, scanAtOnce-1)
	if err != nil || r == nil {
		return at, false, err
	}
	return cursor{r.Int(0), r.Int(1)}, true, nil
}

// fewMails: the beginning of an id leads to so few mails that going there is
// better than looking at all in order.
func fewMails(c *conn, prefix string) (bool, error) {
	if prefix == "" {
		return false, nil
	}
	n, err := c.Number("SELECT count(*) FROM (SELECT 1 FROM mails WHERE id >= ? AND id < ? LIMIT ?)", prefix, after(prefix), maxList+1)
	return n <= maxList, err
}

// after is a string greater than all that begin with prefix.
func after(prefix string) string { return prefix + "\U0010FFFF" }

// filter adds what a filter asks for.
func (q *query) filter(f queue.Filter) {
	if f.ID != "" {
		q.and("m.id >= ? AND m.id < ?", f.ID, after(f.ID))
	}
	if len(f.States) > 0 {
		var in []string
		for _, s := range f.States {
			switch s {
			case queue.Waiting:
				in = append(in, "0", "1")
			case queue.Claimed:
				in = append(in, "2")
			case queue.Held:
				in = append(in, "3")
			case queue.Sent:
				in = append(in, "4")
			case queue.Failed:
				in = append(in, "5")
			}
		}
		q.and("r.state IN (" + strings.Join(in, ", ") + ")")
	}
	if f.Sender != "" {
		q.and("m.sender = ? COLLATE NOCASE", f.Sender)
	}
	if f.Recipient != "" {
		q.and("r.addr = ? COLLATE NOCASE", f.Recipient)
	}
	if !f.From.IsZero() {
		q.and("m.received >= ?", millis(f.From))
	}
	if !f.Until.IsZero() {
		q.and("m.received < ?", millis(f.Until))
	}
}
