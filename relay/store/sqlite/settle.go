package sqlite

import (
	"context"
	"fmt"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// Settle implements queue.Queue.
func (s *Store) Settle(ctx context.Context, settlements ...queue.Settlement) error {
	for _, x := range settlements {
		if x.Result < queue.Done || x.Result > queue.GaveUp {
			return fmt.Errorf("a settlement without a result for mail %s", x.Token.Mail)
		}
	}
	var stale []queue.Token
	err := s.change(ctx, func(t *tx) error {
		stale = nil
		for _, x := range settlements {
			ok, err := t.settle(x)
			if err != nil {
				return err
			}
			if !ok {
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
func (t *tx) settle(x queue.Settlement) (bool, error) {
	r, err := t.One(`SELECT r.mail, r.n, r.state, r.fence, r.settled, r.started, r.hold, r.bounced
		FROM mails m JOIN recipients r ON r.mail = m.seq WHERE m.id = ? AND r.n = ?`, x.Token.Mail, x.Token.Recipient)
	if err != nil {
		return false, err
	}
	if r == nil {
		// Forgotten because it was sent, or dropped: for the former this is a
		// repetition, for the latter there is nothing to settle. Only the
		// second is news, and they cannot be told apart.
		return t.s.bounds.Load().Queue.ForgetSent && x.Result == queue.Done, nil
	}
	a := attempt{seq: r.Int(0), n: r.Int(1), state: r.Int(2), fence: r.Int(3), settled: r.Int(4), started: r.Int(5), hold: r.Bool(6), bounced: r.Bool(7)}
	switch {
	case a.fence != x.Token.Fence:
		return false, nil
	case a.settled == a.fence:
		return true, nil // the first word stands
	}
	if err := t.apply(a, x); err != nil {
		return false, err
	}
	if x.Count != "" {
		if _, err := t.addMark(x.Count, 1); err != nil {
			return false, err
		}
	}
	if x.Result == queue.Later {
		return true, nil
	}
	if err := t.finish(a.seq, x.At); err != nil {
		return false, err
	}
	return true, t.countFailed(a.seq, 1)
}

// apply writes what came of an attempt.
func (t *tx) apply(a attempt, x queue.Settlement) error {
	to, due, ended, back := int64(sent), int64(0), millis(x.At), 0
	switch x.Result {
	case queue.GaveUp:
		to = failed
		if !a.bounced {
			t.counts.unbounced++
		}
	case queue.Later:
		due, ended = millis(x.Due), 0
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
	_, err := t.change(`UPDATE recipients SET state = ?, hold = 0, due = ?, ended = ?, attempts = attempts - ?, settled = fence
		WHERE mail = ? AND n = ?`, to, due, ended, back, a.seq, a.n)
	if err != nil {
		return err
	}
	record := queue.Attempt{Started: fromMillis(a.started), Outcome: x.Outcome, NotAnAttempt: x.NotAnAttempt && x.Result == queue.Later}
	if err := t.insertAttempt(a.seq, a.n, a.fence, record); err != nil {
		return err
	}
	return t.trimAttempts(a.seq, a.n)
}
