package sqlite

import (
	"context"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/forward"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// forwardsSchema has what is posted to endpoints. Items of one mail are found by their
// order, so that only the first of them is due.
const forwardsSchema = `
CREATE TABLE forwards (
	seq INTEGER PRIMARY KEY AUTOINCREMENT, -- the order of arrival; never used twice
	endpoint TEXT NOT NULL,
	id TEXT NOT NULL,         -- of the event
	type TEXT NOT NULL,
	mail TEXT NOT NULL,
	address TEXT NOT NULL,    -- the recipient, in the form in which addresses are compared
	body BLOB NOT NULL,
	created INT NOT NULL,
	tries INT NOT NULL,
	due INT NOT NULL,
	dead INT NOT NULL,
	why TEXT NOT NULL
);
CREATE UNIQUE INDEX forwards_id ON forwards(endpoint, id);
CREATE INDEX forwards_live ON forwards(endpoint, seq) WHERE dead = 0;
CREATE INDEX forwards_mail ON forwards(endpoint, mail, seq) WHERE dead = 0;
CREATE INDEX forwards_address ON forwards(address);
`

var _ forward.Store = (*Records)(nil)

// AddForwards implements forward.Store.
func (s *Records) AddForwards(ctx context.Context, items []forward.Item, most map[string]int) (lost map[string]int, err error) {
	if err := s.room(); err != nil {
		return nil, err
	}
	err = s.change(ctx, func(t *tx) error {
		lost = map[string]int{}
		have := map[string]int64{}
		for _, i := range items {
			if _, counted := have[i.Endpoint]; !counted {
				have[i.Endpoint] = t.number("SELECT count(*) FROM forwards WHERE endpoint = ?", i.Endpoint)
			}
			if limit, bound := most[i.Endpoint]; bound && have[i.Endpoint] >= int64(limit) {
				if t.number("SELECT count(*) FROM forwards WHERE endpoint = ? AND id = ?", i.Endpoint, i.ID) == 0 {
					lost[i.Endpoint]++
				}
				continue
			}
			have[i.Endpoint] += t.exec(`INSERT INTO forwards (endpoint, id, type, mail, address, body, created, tries, due, dead, why)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (endpoint, id) DO NOTHING`,
				i.Endpoint, i.ID, i.Type, i.Mail, i.Address, i.Body, stored.Millis(i.Created), i.Tries, stored.Millis(i.Due), i.Dead, i.Why)
		}
		return nil
	})
	return lost, err
}

const (
	forwardColumns = "seq, endpoint, id, type, mail, address, body, created, tries, due, dead, why"
	// firstOfItsMail is true of an item f that no other one of its mail has to go before.
	firstOfItsMail = `NOT EXISTS (SELECT 1 FROM forwards e WHERE e.endpoint = f.endpoint AND e.mail = f.mail AND e.dead = 0 AND e.seq < f.seq)`
)

func readForward(r row) forward.Item {
	return forward.Item{
		Seq: r.Int(0), Endpoint: r.Text(1), ID: r.Text(2), Type: r.Text(3), Mail: r.Text(4), Address: r.Text(5), Body: append([]byte(nil), r.Blob(6)...),
		Created: stored.Time(r.Int(7)), Tries: int(r.Int(8)), Due: stored.Time(r.Int(9)), Dead: r.Bool(10), Why: r.Text(11),
	}
}

// DueForwards implements forward.Store.
func (s *Records) DueForwards(ctx context.Context, endpoint string, now time.Time, limit int) (items []forward.Item, next time.Time, err error) {
	err = s.read(ctx, func(c *conn) error {
		err := c.Each(func(r row) error {
			items = append(items, readForward(r))
			return nil
		}, "SELECT "+forwardColumns+" FROM forwards f WHERE endpoint = ? AND dead = 0 AND due <= ? AND "+firstOfItsMail+" ORDER BY seq LIMIT ?",
			endpoint, stored.Millis(now), limit)
		if err != nil || len(items) > 0 {
			return err
		}
		due, err := c.Number("SELECT coalesce(min(due), 0) FROM forwards f WHERE endpoint = ? AND dead = 0 AND "+firstOfItsMail, endpoint)
		next = stored.Time(due)
		return err
	})
	return items, next, err
}

// SettleForwards implements forward.Store.
func (s *Records) SettleForwards(ctx context.Context, settled []forward.Settled) error {
	return s.change(ctx, func(t *tx) error {
		for _, i := range settled {
			if i.Done {
				t.exec("DELETE FROM forwards WHERE seq = ?", i.Seq)
				continue
			}
			t.exec("UPDATE forwards SET tries = ?, due = ?, dead = ?, why = ? WHERE seq = ?", i.Tries, stored.Millis(i.Due), i.Dead, i.Why, i.Seq)
		}
		return nil
	})
}

// selected is the condition of a filter.
func selected(f forward.Filter) (where string, args []any) {
	conditions := []string{"1"}
	add := func(condition string, more ...any) {
		conditions, args = append(conditions, condition), append(args, more...)
	}
	if f.Endpoint != "" {
		add("endpoint = ?", f.Endpoint)
	}
	if f.ID != "" {
		add("id = ?", f.ID)
	}
	if f.Dead {
		add("dead = 1")
	}
	return strings.Join(conditions, " AND "), args
}

// ListForwards implements forward.Store.
func (s *Records) ListForwards(ctx context.Context, f forward.Filter) (items []forward.Item, err error) {
	where, args := selected(f)
	limit := f.Limit
	if limit <= 0 {
		limit = -1 // SQLite's none
	}
	err = s.readAll(ctx, func(c *conn) error {
		return c.Each(func(r row) error {
			items = append(items, readForward(r))
			return nil
		}, "SELECT "+forwardColumns+" FROM forwards WHERE seq > ? AND "+where+" ORDER BY seq LIMIT ?", append(append([]any{f.After}, args...), limit)...)
	})
	return items, err
}

// RetryForwards implements forward.Store.
func (s *Records) RetryForwards(ctx context.Context, f forward.Filter, now time.Time) (n int, err error) {
	where, args := selected(f)
	err = s.change(ctx, func(t *tx) error {
		n = int(t.exec("UPDATE forwards SET tries = 0, due = ?, dead = 0 WHERE "+where, append([]any{stored.Millis(now)}, args...)...))
		return nil
	})
	return n, err
}

// DropForwards implements forward.Store.
func (s *Records) DropForwards(ctx context.Context, f forward.Filter) (n int, err error) {
	where, args := selected(f)
	err = s.change(ctx, func(t *tx) error {
		n = int(t.exec("DELETE FROM forwards WHERE "+where, args...))
		return nil
	})
	return n, err
}

// CountForwards implements forward.Store.
func (s *Records) CountForwards(ctx context.Context) (counts map[string]forward.Count, err error) {
	counts = map[string]forward.Count{}
	err = s.read(ctx, func(c *conn) error {
		return c.Each(func(r row) error {
			counts[r.Text(0)] = forward.Count{Pending: r.Int(1), Dead: r.Int(2), Oldest: stored.Time(r.Int(3))}
			return nil
		}, "SELECT endpoint, count(*) FILTER (WHERE dead = 0), count(*) FILTER (WHERE dead = 1), coalesce(min(created) FILTER (WHERE dead = 0), 0) FROM forwards GROUP BY endpoint")
	})
	return counts, err
}
