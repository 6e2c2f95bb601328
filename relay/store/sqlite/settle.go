package sqlite

import (
	"context"
	"errors"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// Settle implements queue.Queue.
func (s *Queue) Settle(ctx context.Context, settlements ...queue.Settlement) error {
	if err := stored.CheckResults(settlements); err != nil {
		return err
	}
	var stale []queue.Token
	err := s.change(ctx, func(t *tx) error {
		stale = nil
		for _, x := range settlements {
			if !t.settle(x) {
				stale = append(stale, x.Token)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(stale) > 0 {
		return &queue.StaleError{Tokens: stale}
	}
	return nil
}

// attempt is a recipient as settle needs it.
type attempt struct {
	seq, n         int64
	state          int64
	fence, settled int64
	started        int64
	hold, bounced  bool
}

// settle ends one attempt. It is false for one that is stale.
func (t *tx) settle(x queue.Settlement) bool {
	r := t.one(`SELECT r.mail, r.n, r.state, r.fence, r.settled, r.started, r.hold, r.bounced
		FROM mails m JOIN recipients r ON r.mail = m.seq WHERE m.id = ? AND r.n = ?`, x.Token.Mail, x.Token.Recipient)
	if r == nil {
		// Forgotten because it was sent, or dropped: for the former this is a
		// repetition, for the latter there is nothing to settle. Only the
		// second is news, and they cannot be told apart.
		return t.s.bounds.Load().ForgetSent && x.Result == queue.Done
	}
	a := attempt{seq: r.Int(0), n: r.Int(1), state: r.Int(2), fence: r.Int(3), settled: r.Int(4), started: r.Int(5), hold: r.Bool(6), bounced: r.Bool(7)}
	switch {
	case a.fence != x.Token.Fence:
		return false
	case a.settled == a.fence:
		return true // the first word stands
	}
	t.apply(a, x)
	if x.Count != "" {
		t.addMark(x.Count, 1)
	}
	if x.Result != queue.Later && !t.finish(a.seq, x.At) {
		t.countFailed(a.seq, 1)
	}
	return true
}

// apply writes what came of an attempt.
func (t *tx) apply(a attempt, x queue.Settlement) {
	to, due, ended, back := int64(sent), int64(0), stored.Millis(x.At), 0
	switch x.Result {
	case queue.GaveUp:
		to = failed
		if !a.bounced {
			t.counts.unbounced++
		}
	case queue.Later:
		due, ended = stored.Millis(x.Due), 0
		to = later
		if a.hold || a.state == held { // the latter when its owner is gone, and its word comes late
			to = held
		} else if due == 0 {
			to = ready
		}
		if x.NotAnAttempt {
			back = 1
		}
		t.wakes = t.wakes || to == ready
	}
	t.counts.move(a.state, to)
	t.exec(`UPDATE recipients SET state = ?, hold = 0, due = ?, ended = ?, attempts = attempts - ?, settled = fence
		WHERE mail = ? AND n = ?`, to, due, ended, back, a.seq, a.n)
	record := queue.Attempt{Started: stored.Time(a.started), Outcome: x.Outcome, NotAnAttempt: x.NotAnAttempt && x.Result == queue.Later}
	t.insertAttempt(a.seq, a.n, a.fence, record)
	t.trimAttempts(a.seq, a.n)
}

// finish lets go of a mail's content when its last recipient was sent, and of
// the whole mail if sent ones are not kept. It says whether it did.
func (t *tx) finish(seq int64, at time.Time) bool {
	if t.one("SELECT 1 FROM recipients WHERE mail = ? AND state <> 4 ORDER BY n DESC LIMIT 1", seq) != nil { // see countFailed
		return false
	}
	if t.s.bounds.Load().ForgetSent {
		t.remove(seq)
		return true
	}
	t.removeBody(seq)
	t.exec("UPDATE mails SET body = 0, spool = '', done = ? WHERE seq = ?", max(1, stored.Millis(at)), seq)
	return true
}

// removeBody lets go of a mail's content. A file of it is removed
// after the commit.
func (t *tx) removeBody(seq int64) {
	r := t.one("SELECT body, spool, size FROM mails WHERE seq = ?", seq)
	if r == nil || r.Int(0) == bodyGone {
		return
	}
	t.counts.kept.mails--
	t.counts.kept.bytes -= r.Int(2)
	if r.Int(0) == bodySpool {
		*t.files = append(*t.files, r.Text(1))
		return
	}
	t.exec("DELETE FROM bodies WHERE seq = ?", seq)
}

// remove lets go of a mail with everything that belongs to it.
func (t *tx) remove(seq int64) {
	t.each(func(r row) {
		t.counts.add(r.Int(0), -1)
		if r.Int(0) == failed && r.Int(1) == 0 {
			t.counts.unbounced--
		}
	}, "SELECT state, bounced FROM recipients WHERE mail = ?", seq)
	t.removeBody(seq)
	t.exec("DELETE FROM attempts WHERE mail = ?", seq)
	t.exec("DELETE FROM recipients WHERE mail = ?", seq)
	t.exec("DELETE FROM mails WHERE seq = ?", seq)
}

// Purge implements queue.Queue.
func (s *Queue) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	removed := 0
	err := s.change(ctx, func(t *tx) error {
		removed = 0
		var mails []int64
		t.each(func(r row) {
			mails = append(mails, r.Int(0))
		}, "SELECT seq FROM mails WHERE done > 0 AND done < ? ORDER BY done LIMIT ?", stored.Millis(before), limit)
		for _, seq := range mails {
			if removed >= limit {
				return nil
			}
			sentBefore := t.counts.state[sent]
			t.remove(seq)
			removed += int(sentBefore - t.counts.state[sent])
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return removed, nil
}

// PurgeFailed implements queue.Queue. What can go is looked for by a reader, so that
// nobody waits for that, and looked at once more before it goes.
func (s *Queue) PurgeFailed(ctx context.Context, before time.Time, limit int) (int, error) {
	var old []int64
	err := s.read(ctx, func(c *conn) (err error) {
		old, err = failedBefore(c, before, limit)
		return err
	})
	if err != nil || len(old) == 0 {
		return 0, err
	}
	removed := 0
	err = s.change(ctx, func(t *tx) error {
		removed = 0
		for _, seq := range old {
			if t.one(endedBefore, seq, stored.Millis(before)) == nil {
				continue // retried meanwhile
			}
			t.countFailed(seq, -1)
			t.remove(seq)
			removed++
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return removed, nil
}

// endedBefore finds a mail if nothing of it is open, or still to be told, and it ended
// before a time.
const endedBefore = `SELECT 1 FROM mails WHERE seq = ?1 AND NOT EXISTS (SELECT 1 FROM recipients
	WHERE mail = ?1 AND (state < 4 OR state = 5 AND bounced = 0 OR ended >= ?2))`

// mostYounger is how many younger failed mails are looked at in a row before no older
// ones are expected behind them: mail is in the order in which it came, but for clocks
// that were set.
const mostYounger = 1000

// failedBefore returns the first mails that PurgeFailed may remove.
func failedBefore(c *conn, before time.Time, limit int) (old []int64, err error) {
	younger := 0
	for after := int64(0); len(old) < limit && younger < mostYounger; {
		r, err := c.One("SELECT f.mail, m.received FROM recipients f LEFT JOIN mails m ON m.seq = f.mail WHERE f.state = 5 AND f.mail > ? ORDER BY f.mail LIMIT 1", after)
		if err != nil || r == nil {
			return old, err
		}
		after = r.Int(0)
		if r.Int(1) >= stored.Millis(before) {
			younger++
			continue
		}
		younger = 0
		found, err := c.One(endedBefore, after, stored.Millis(before))
		if err != nil {
			return old, err
		}
		if found != nil {
			old = append(old, after)
		}
	}
	return old, nil
}

// BouncesDue implements queue.Queue.
func (s *Queue) BouncesDue(ctx context.Context, now time.Time, grace time.Duration, limit int) ([]queue.Bounce, error) {
	var bounces []queue.Bounce
	err := s.read(ctx, func(c *conn) error {
		bounces = nil
		for after := int64(0); len(bounces) < limit; {
			r, err := c.One("SELECT mail FROM recipients WHERE state = 5 AND bounced = 0 AND mail > ? ORDER BY mail LIMIT 1", after)
			if err != nil || r == nil {
				return err
			}
			after = r.Int(0)
			due, err := bounceDue(c, after, now, grace)
			if err != nil {
				return err
			}
			if !due {
				continue
			}
			b, err := readBounce(c, after)
			if errors.Is(err, queue.ErrNotFound) {
				continue // a repaired database may have lost the mail: there is nobody to tell
			}
			if err != nil {
				return err
			}
			bounces = append(bounces, b)
		}
		return nil
	})
	return bounces, err
}

// bounceDue: nothing of the mail is open any more, or it failed long enough ago;
// or later than now, which was before the clock was set back.
func bounceDue(c *conn, seq int64, now time.Time, grace time.Duration) (bool, error) {
	r, err := c.One("SELECT 1 FROM recipients WHERE mail = ? AND state = 5 AND bounced = 0 AND (ended <= ? OR ended > ?) LIMIT 1",
		seq, stored.Millis(now.Add(-grace)), stored.Millis(now))
	if err != nil || r != nil {
		return r != nil, err
	}
	r, err = c.One("SELECT 1 FROM recipients WHERE mail = ? AND state IN (0, 1, 2, 3) LIMIT 1", seq)
	return r == nil, err
}

func readBounce(c *conn, seq int64) (queue.Bounce, error) {
	m, err := readWhole(c, "m.seq = ?", seq)
	if err != nil {
		return queue.Bounce{}, err
	}
	return stored.BounceOf(m), nil
}

// Bounced implements queue.Queue. It looks at neither capacity nor free space:
// a bounce ends more than it begins.
func (s *Queue) Bounced(ctx context.Context, id string, recipients []int, bounce *queue.Mail) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	var parcels []*parcel
	if bounce != nil {
		var err error
		if parcels, err = s.wrap([]queue.Mail{*bounce}, false); err != nil {
			return err
		}
	}
	enqueued := false
	err := s.do(ctx, func(t *tx) error {
		enqueued = false
		marked, err := t.markBounced(id, recipients)
		if err != nil || marked == 0 {
			return err
		}
		enqueued = len(parcels) > 0
		t.insertMails(parcels)
		return nil
	})
	if err == nil || !enqueued {
		s.discard(unused(parcels, enqueued))
	}
	return err
}

// markBounced says how many of the recipients were still to be bounced.
func (t *tx) markBounced(id string, recipients []int) (int, error) {
	m := t.one("SELECT seq FROM mails WHERE id = ?", id)
	if m == nil {
		return 0, queue.ErrNotFound
	}
	marked := 0
	for _, n := range recipients {
		changed, err := t.conn.Exec("UPDATE recipients SET bounced = 1 WHERE mail = ? AND n = ? AND state = 5 AND bounced = 0", m.Int(0), n)
		if err != nil {
			return 0, err
		}
		t.writes += int(changed)
		marked += int(changed)
	}
	t.counts.unbounced -= int64(marked)
	return marked, nil
}
