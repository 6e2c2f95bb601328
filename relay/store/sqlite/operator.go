package sqlite

import (
	"context"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
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
			stats.Recipients[stored.StateOf(int64(state))] += count
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
		stats.Oldest = stored.Time(r.Int(1))
		return nil
	})
	return stats, err
}

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
	for at, more := (stored.BeforeAll()), true; more; {
		// A transaction that fails is made again, so all that comes of it is for
		// after it.
		changed, end, again := 0, at, false
		err := s.do(ctx, func(t *tx) (err error) {
			changed = 0
			var subjects []subject
			end, again, err = scan(t.conn, f, at, stored.OperateAtOnce, func(r row) error {
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
				stored.Millis(now), x.seq, x.n)
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
	if !t.finish(x.seq, stored.Time(last)) {
		t.countFailed(x.seq, 1)
	}
}

// Reassign implements queue.Queue.
func (s *Queue) Reassign(ctx context.Context, f queue.Filter, account string) (int, error) {
	if err := stored.CheckAccount(account); err != nil {
		return 0, err
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

// List implements queue.Queue.
func (s *Queue) List(ctx context.Context, f queue.Filter) ([]queue.Entry, string, error) {
	at, err := stored.ParseCursor(f.Cursor)
	if err != nil {
		return nil, "", err
	}
	limit := stored.PageSize(f.Limit)
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

// dialect is SQLite's.
func dialect() stored.Dialect {
	return stored.Dialect{Mails: "mails", Recipients: "mail_recipients", Events: "events", Join: "CROSS JOIN", // which keeps the order
		Same: "%s = ? COLLATE NOCASE", Contains: "instr(lower(%s), lower(?)) > 0", Account: "coalesce(json_extract(m.head, '$.account'), '')"}
}

// source is the index that leads to the filter's recipients. All run in the order of
// arrival.
func source(f queue.Filter) (from, condition string) {
	switch state, _ := stored.FewStates(f); state {
	case held:
		return "recipients r INDEXED BY recipients_held", "r.state = 3"
	case failed:
		return "recipients r INDEXED BY recipients_failed", "r.state = 5"
	}
	return "recipients r", "1"
}

// scan calls f for the recipients that match, in order, from after a cursor
// on, at most limit of them and looking at no more than stored.ScanAtOnce. It says
// where it ended and whether that was before the end.
func scan(c *conn, filter queue.Filter, at stored.Cursor, limit int, f func(r row) error) (stored.Cursor, bool, error) {
	from, condition := source(filter)
	var w stored.Where
	w.And(condition)
	w.And("(r.mail, r.n) > (?, ?)", at.Mail, at.N)
	few, err := fewMails(c, filter.ID)
	if err != nil {
		return at, false, err
	}
	last, bounded := at, false
	if few {
		from = "recipients r"
		w.And("r.mail IN (SELECT seq FROM mails WHERE id >= ? AND id < ?)", filter.ID, stored.After(filter.ID))
	} else if last, bounded, err = stepEnd(c, from, condition, at); err != nil {
		return at, false, err
	} else if bounded {
		w.And("(r.mail, r.n) <= (?, ?)", last.Mail, last.N)
	}
	dialect().Filter(&w, filter, stored.Millis)
	seen, end := 0, at
	err = c.Each(func(r row) error {
		seen++
		end = stored.Cursor{Mail: r.Int(mailWidth + 8), N: r.Int(mailWidth + 7)}
		return f(r)
	}, "SELECT "+mailColumns+", "+recipientColumns+" FROM "+from+" CROSS JOIN mails m ON m.seq = r.mail"+
		w.String()+" ORDER BY r.mail, r.n LIMIT ?", append(w.Args, limit)...)
	if err != nil || seen == limit {
		return end, err == nil, err
	}
	return last, bounded, nil
}

// stepEnd is the last recipient of a step, if the step does not reach the end.
func stepEnd(c *conn, from, condition string, at stored.Cursor) (stored.Cursor, bool, error) {
	r, err := c.One("SELECT r.mail, r.n FROM "+from+" WHERE "+condition+
		" AND (r.mail, r.n) > (?, ?) ORDER BY r.mail, r.n LIMIT 1 OFFSET ?", at.Mail, at.N, stored.ScanAtOnce-1)
	if err != nil || r == nil {
		return at, false, err
	}
	return stored.Cursor{Mail: r.Int(0), N: r.Int(1)}, true, nil
}

// fewMails: the beginning of an id leads to so few mails that going there is
// better than looking at all in order.
func fewMails(c *conn, prefix string) (bool, error) {
	if prefix == "" {
		return false, nil
	}
	n, err := c.Number("SELECT count(*) FROM (SELECT 1 FROM mails WHERE id >= ? AND id < ? LIMIT ?)", prefix, stored.After(prefix), stored.MaxList+1)
	return n <= stored.MaxList, err
}
