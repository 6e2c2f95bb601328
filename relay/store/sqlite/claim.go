package sqlite

import (
	"context"
	"fmt"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// promoteAtOnce bounds how many recipients that became due one Claim makes
// ready, and so how long it can take when a whole backlog becomes due.
const promoteAtOnce = 1000

// Claim implements queue.Queue.
func (s *Store) Claim(ctx context.Context, r queue.ClaimRequest) ([]queue.Claim, error) {
	if r.Max < 1 {
		return nil, fmt.Errorf("a claim of %d recipients", r.Max)
	}
	s.clock.Store(millis(r.Now))
	var claims []queue.Claim
	err := s.change(ctx, func(t *tx) error {
		claims = claims[:0]
		if err := t.promote(r); err != nil {
			return err
		}
		taken, err := t.choose(r)
		if err != nil {
			return err
		}
		for _, d := range taken {
			c, ok, err := t.claim(d, r)
			if err != nil {
				return err
			}
			if ok {
				claims = append(claims, c)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return claims, nil
}

// setState changes a recipient's state and the counts, and nothing else but
// the mark of a hold to come.
func (t *tx) setState(seq, n, from, to int64) error {
	t.counts.move(from, to)
	_, err := t.change("UPDATE recipients SET state = ?, hold = 0 WHERE mail = ? AND n = ?", to, seq, n)
	return err
}

// promote makes recipients ready that became due.
func (t *tx) promote(r queue.ClaimRequest) error {
	if err := t.promoteWhere("due <= ?", millis(r.Now)); err != nil || r.MaxWait <= 0 {
		return err
	}
	return t.promoteWhere("due > ?", millis(r.Now.Add(r.MaxWait)))
}

func (t *tx) promoteWhere(due string, at int64) error {
	first, err := t.One("SELECT 1 FROM recipients WHERE state = 1 AND "+due+" LIMIT 1", at)
	if err != nil || first == nil {
		return err
	}
	_, err = t.change("UPDATE recipients SET state = 0 WHERE (mail, n) IN "+
		"(SELECT mail, n FROM recipients WHERE state = 1 AND "+due+" ORDER BY due, mail, n LIMIT ?)", at, promoteAtOnce)
	return err
}

// claim records an attempt and returns it. It is false when what is stored is
// not what came: then the mail is marked damaged instead.
func (t *tx) claim(d due, r queue.ClaimRequest) (queue.Claim, bool, error) {
	v, err := t.One(`SELECT `+mailColumns+`, r.addr, r.sum, r.attempts, r.since, r.fence, r.settled, r.started, r.state
		FROM recipients r JOIN mails m ON m.seq = r.mail WHERE r.mail = ? AND r.n = ?`, d.seq, d.n)
	if err != nil {
		return queue.Claim{}, false, err
	}
	if v == nil { // a recipient without its mail
		return queue.Claim{}, false, &CorruptError{Path: t.s.path(), Reason: fmt.Sprintf("mail %d is missing", d.seq)}
	}
	own := v[mailWidth:]
	if own.Int(7) != ready { // given up in this very call, because of an earlier recipient of the mail
		return queue.Claim{}, false, nil
	}
	m, err := readMail(v)
	addr, fence, settled := own.Text(0), own.Int(4), own.Int(5)
	if err != nil || !m.intact(v.Text(6)) || addressSum(m.Message.ID, int(d.n), addr) != own.Int(1) {
		return queue.Claim{}, false, t.damage(d.seq, m.Message.ID, r.Now)
	}
	c := queue.Claim{Mail: m.Mail, Addr: addr, Attempt: int(own.Int(2)) + 1, Since: fromMillis(own.Int(3)), Unknown: fence != settled}
	if c.Unknown {
		if err := t.recordUnknown(d.seq, d.n, fence, fromMillis(own.Int(6))); err != nil {
			return queue.Claim{}, false, err
		}
	}
	t.counts.fence++
	t.counts.move(ready, claimed)
	c.Token = queue.Token{Mail: m.Message.ID, Recipient: int(d.n), Fence: t.counts.fence}
	_, err = t.change(`UPDATE recipients SET state = 2, hold = 0, attempts = attempts + 1, started = ?, fence = ?
		WHERE mail = ? AND n = ?`, millis(r.Now), t.counts.fence, d.seq, d.n)
	return c, true, err
}

// recordUnknown keeps the record of an attempt that was never settled.
func (t *tx) recordUnknown(seq, n, fence int64, started time.Time) error {
	if err := t.insertAttempt(seq, n, fence, queue.Attempt{Started: started, Unknown: true}); err != nil {
		return err
	}
	return t.trimAttempts(seq, n)
}

// recoverClaims ends, at the start, what the process before this one held:
// nobody else can hold anything, because the data directory is locked.
func (s *Store) recoverClaims(c *conn) error {
	if err := c.Script("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	n, err := loadCounts(c)
	if err != nil {
		return err
	}
	freed, err := c.Exec("UPDATE recipients SET state = iif(hold, 3, 0), hold = 0 WHERE state = 2")
	if err != nil {
		return err
	}
	if freed > 0 {
		s.log.Warn("attempts were under way when the process ended; each may have been sent", "recipients", freed)
		heldNow, err := c.Number("SELECT count(*) FROM recipients WHERE state = 3")
		if err != nil {
			return err
		}
		n.state[ready] += freed - (heldNow - n.state[held])
		n.state[claimed], n.state[held] = 0, heldNow
		if err := n.save(c); err != nil {
			return err
		}
	}
	return c.Script("COMMIT")
}

// NextDue implements queue.Queue.
func (s *Store) NextDue(ctx context.Context, r queue.ClaimRequest) (time.Time, bool, error) {
	var at time.Time
	found := false
	err := s.read(ctx, func(c *conn) error {
		ok, err := readyWithin(c, r.Limits)
		if err != nil || ok {
			at, found = r.Now, ok
			return err
		}
		due, err := c.One(`SELECT (SELECT min(due) FROM recipients WHERE state = 1), (SELECT max(due) FROM recipients WHERE state = 1)`)
		if err != nil || due == nil || due[0] == nil {
			return err
		}
		at, found = fromMillis(due.Int(0)), true
		if at.Before(r.Now) || r.MaxWait > 0 && fromMillis(due.Int(1)).After(r.Now.Add(r.MaxWait)) {
			at = r.Now
		}
		return nil
	})
	return at, found, err
}

// readyWithin reports whether anything is ready that the limits do not stop.
func readyWithin(c *conn, limits map[string]int) (bool, error) {
	q, args := "SELECT turn FROM recipients WHERE state = 0 ORDER BY turn LIMIT 1", []any(nil)
	for {
		r, err := c.One(q, args...)
		if err != nil || r == nil {
			return false, err
		}
		turn := r.Text(0)
		if turn == "" {
			return true, nil
		}
		if n, limited := limits[turn[1:]]; !limited || n > 0 {
			return true, nil
		}
		q, args = "SELECT turn FROM recipients WHERE state = 0 AND turn > ? ORDER BY turn LIMIT 1", []any{turn}
	}
}
