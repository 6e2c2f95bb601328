package sqlite

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// Get implements queue.Queue.
func (s *Queue) Get(ctx context.Context, id string) (queue.Mail, error) {
	var m queue.Mail
	err := s.read(ctx, func(c *conn) (err error) {
		m, err = readWhole(c, "m.id = ?", id)
		return err
	})
	return m, err
}

// readWhole reads one mail with its recipients and their histories.
func readWhole(c *conn, where string, key any) (queue.Mail, error) {
	v, err := c.One("SELECT "+mailColumns+" FROM mails m WHERE "+where, key)
	if err != nil {
		return queue.Mail{}, err
	}
	if v == nil {
		return queue.Mail{}, queue.ErrNotFound
	}
	m, err := readMail(v)
	if err != nil {
		m.Damaged = true // show what is there
	}
	err = c.Each(func(r row) error {
		m.Recipients = append(m.Recipients, readRecipient(r))
		return nil
	}, "SELECT "+recipientColumns+" FROM recipients r WHERE r.mail = ? ORDER BY r.n", m.seq)
	if err != nil {
		return queue.Mail{}, err
	}
	for i, r := range m.Recipients {
		if m.Recipients[i].History, err = attemptsOf(c, m.seq, int64(r.Number), queue.MaxHistory); err != nil {
			return queue.Mail{}, err
		}
	}
	return m.Mail, nil
}

// oldest is the number of a mail before which nothing is open, so that Stats
// does not pass over the same finished mail each time. It is taken before what
// is read and replaced after a commit that may have made it wrong, so that
// nobody can put back one that is.
type oldest struct{ seq int64 }

// Stats implements queue.Queue.
func (s *Queue) Stats(ctx context.Context) (queue.Stats, error) {
	var stats queue.Stats
	from := s.oldest.Load()
	err := s.read(ctx, func(c *conn) error {
		n, err := readCounts(c)
		if err != nil {
			return err
		}
		stats = queue.Stats{Recipients: map[queue.State]int64{}, Mails: n.kept.mails, Bytes: n.kept.bytes, FailedMails: n.failed.mails, FailedBytes: n.failed.bytes, Unbounced: n.unbounced}
		for state, count := range n.state {
			stats.Recipients[stateOf(int64(state))] += count
		}
		if n.state[ready]+n.state[claimed]+n.state[held] == 0 {
			return nil
		}
		r, err := c.One(`SELECT r.mail, m.received FROM recipients r CROSS JOIN mails m ON m.seq = r.mail
			WHERE r.mail >= ? AND r.state IN (0, 1, 2, 3) ORDER BY r.mail LIMIT 1`, from.seq)
		if err != nil || r == nil {
			return err
		}
		s.oldest.CompareAndSwap(from, &oldest{r.Int(0)})
		stats.Oldest = fromMillis(r.Int(1))
		return nil
	})
	return stats, err
}

// operateAtOnce is how many recipients an operator's change takes in one
// step, so that it does not hold up deliveries.
const operateAtOnce = 500

// subject is a recipient an operator changes.
type subject struct {
	seq, n  int64
	state   int64
	due     int64
	hold    bool
	bounced bool
	damaged bool
}

// operate applies change to all recipients that match, in steps. change says
// whether it applied.
func (s *Queue) operate(ctx context.Context, f queue.Filter, change func(t *tx, x subject) bool) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	total := 0
	for at, more := (cursor{seq: -1}), true; more; {
		// A transaction that fails is made again, so all that comes of it is for
		// after it.
		changed, end, again := 0, at, false
		err := s.do(ctx, func(t *tx) (err error) {
			changed = 0
			var subjects []subject
			end, again, err = scan(t.conn, f, at, operateAtOnce, func(r row) error {
				own := r[mailWidth:]
				subjects = append(subjects, subject{seq: own.Int(8), n: own.Int(7), state: own.Int(1), due: own.Int(2),
					hold: own.Bool(9), bounced: own.Bool(6), damaged: r.Bool(9)})
				return nil
			})
			if err != nil {
				return err
			}
			for _, x := range subjects {
				if change(t, x) {
					changed++
				}
			}
			return nil
		})
		if err != nil {
			return total, err
		}
		total += changed
		at, more = end, again
	}
	return total, nil
}

// Hold implements queue.Queue.
func (s *Queue) Hold(ctx context.Context, f queue.Filter) (int, error) {
	return s.operate(ctx, f, func(t *tx, x subject) bool {
		switch x.state {
		case ready, later:
			t.setState(x.seq, x.n, x.state, held)
		case claimed:
			t.setHold(x, 1)
		default:
			return false
		}
		return true
	})
}

// Release implements queue.Queue.
func (s *Queue) Release(ctx context.Context, f queue.Filter) (int, error) {
	return s.operate(ctx, f, func(t *tx, x subject) bool {
		switch {
		case x.state == held && x.due > 0:
			t.setState(x.seq, x.n, held, later)
		case x.state == held:
			t.setState(x.seq, x.n, held, ready)
		case x.state == claimed && x.hold:
			t.setHold(x, 0)
		default:
			return false
		}
		t.wakes = true
		return true
	})
}

// setState changes a recipient's state and the counts, and nothing else but
// the mark of a hold to come.
func (t *tx) setState(seq, n, from, to int64) {
	t.counts.move(from, to)
	t.exec("UPDATE recipients SET state = ?, hold = 0 WHERE mail = ? AND n = ?", to, seq, n)
}

func (t *tx) setHold(x subject, hold int) {
	t.exec("UPDATE recipients SET hold = ? WHERE mail = ? AND n = ?", hold, x.seq, x.n)
}

// Retry implements queue.Queue.
func (s *Queue) Retry(ctx context.Context, f queue.Filter, now time.Time) (int, error) {
	return s.operate(ctx, f, func(t *tx, x subject) bool {
		switch {
		case x.state == ready || x.state == later:
			t.exec("UPDATE recipients SET state = 0, due = 0 WHERE mail = ? AND n = ?", x.seq, x.n)
		case x.state == failed && !x.damaged:
			t.reopens = true
			t.countFailed(x.seq, -1)
			t.counts.move(failed, ready)
			if !x.bounced {
				t.counts.unbounced--
			}
			t.exec(`UPDATE recipients SET state = 0, due = 0, ended = 0, attempts = 0, since = ? WHERE mail = ? AND n = ?`,
				millis(now), x.seq, x.n)
		default:
			return false
		}
		t.wakes = true
		return true
	})
}

// Drop implements queue.Queue.
func (s *Queue) Drop(ctx context.Context, f queue.Filter) (int, error) {
	return s.operate(ctx, f, func(t *tx, x subject) bool {
		if x.state != sent {
			t.drop(x)
		}
		return x.state != sent
	})
}

// drop removes one recipient, with its mail if it was the last.
func (t *tx) drop(x subject) {
	others := t.one("SELECT 1 FROM recipients WHERE mail = ? AND n <> ? LIMIT 1", x.seq, x.n)
	t.countFailed(x.seq, -1)
	if others == nil {
		t.remove(x.seq)
		return
	}
	t.counts.add(x.state, -1)
	if x.state == failed && !x.bounced {
		t.counts.unbounced--
	}
	t.exec("DELETE FROM attempts WHERE mail = ? AND n = ?", x.seq, x.n)
	t.exec("DELETE FROM recipients WHERE mail = ? AND n = ?", x.seq, x.n)
	last := t.number("SELECT max(ended) FROM recipients WHERE mail = ?", x.seq)
	if !t.finish(x.seq, fromMillis(last)) {
		t.countFailed(x.seq, 1)
	}
}

// Reassign implements queue.Queue.
func (s *Queue) Reassign(ctx context.Context, f queue.Filter, account string) (int, error) {
	if strings.Contains(account, "/") {
		return 0, fmt.Errorf("%q cannot be an account", account)
	}
	return s.operate(ctx, f, func(t *tx, x subject) bool { return x.state != sent && t.reassign(x.seq, account) })
}

// reassign gives a mail to another account. It is false if the account has it already,
// and for a mail that is damaged: its sum must not make it look whole.
func (t *tx) reassign(seq int64, account string) bool {
	v := t.one("SELECT "+mailColumns+" FROM mails m WHERE m.seq = ?", seq)
	if v == nil {
		return false
	}
	m, err := readMail(v)
	if err != nil || m.Message.Account == account || !m.intact(v.Text(6)) {
		return false // the claim will mark it as damaged
	}
	m.Message.Account = account
	t.exec("UPDATE mails SET account = ?, envelope_sum = ? WHERE seq = ?", account, envelopeSum(m.Mail, v.Text(6)), seq)
	t.wakes = true
	t.exec("UPDATE recipients SET turn = ? WHERE mail = ?", turnOf(m.Mail), seq)
	return true
}

// Accounts implements queue.Queue.
func (s *Queue) Accounts(ctx context.Context) (map[string]int, error) {
	counts := map[string]int{}
	err := s.read(ctx, func(c *conn) error {
		clear(counts)
		for account := ""; ; {
			r, err := c.One("SELECT account FROM mails INDEXED BY mails_account WHERE account <> '' AND done = 0 AND account > ? ORDER BY account LIMIT 1", account)
			if err != nil || r == nil {
				return err
			}
			account = r.Text(0)
			n, err := c.Number("SELECT count(*) FROM (SELECT 1 FROM mails INDEXED BY mails_account WHERE account <> '' AND done = 0 AND account = ? LIMIT ?)", account, queue.MaxCounted)
			if err != nil {
				return err
			}
			counts[account] = int(n)
		}
	})
	return counts, err
}

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
func (s *Queue) List(ctx context.Context, f queue.Filter) ([]queue.Entry, string, error) {
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
			e.Recipient.History, err = attemptsOf(c, m.seq, own.Int(7), 1)
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
		for stored, state := range states {
			if slices.Contains(f.States, state) {
				in = append(in, strconv.Itoa(stored))
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
	switch f.Account {
	case "":
	case relay.DefaultAccount:
		q.and("m.account = ''")
	default:
		q.and("m.account = ?", f.Account)
	}
	if !f.From.IsZero() {
		q.and("m.received >= ?", millis(f.From))
	}
	if !f.Until.IsZero() {
		q.and("m.received < ?", millis(f.Until))
	}
}
