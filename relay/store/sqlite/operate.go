package sqlite

import (
	"context"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

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
func (s *Store) operate(ctx context.Context, f queue.Filter, change func(t *tx, x subject) (bool, error)) (int, error) {
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
				subjects = append(subjects, subject{seq: own.Int(8), n: own.Int(7), damaged: r.Bool(9)})
				return nil
			})
			if err != nil {
				return err
			}
			for _, x := range subjects {
				if err := t.load(&x); err != nil {
					return err
				}
				applied, err := change(t, x)
				if err != nil {
					return err
				}
				if applied {
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

// load reads the rest of a subject.
func (t *tx) load(x *subject) error {
	r, err := t.One("SELECT state, due, hold, bounced FROM recipients WHERE mail = ? AND n = ?", x.seq, x.n)
	if err == nil && r != nil {
		x.state, x.due, x.hold, x.bounced = r.Int(0), r.Int(1), r.Bool(2), r.Bool(3)
	}
	return err
}

// Hold implements queue.Queue.
func (s *Store) Hold(ctx context.Context, f queue.Filter) (int, error) {
	return s.operate(ctx, f, func(t *tx, x subject) (bool, error) {
		switch x.state {
		case ready, later:
			return true, t.setState(x.seq, x.n, x.state, held)
		case claimed:
			return true, t.setHold(x, 1)
		}
		return false, nil
	})
}

// Release implements queue.Queue.
func (s *Store) Release(ctx context.Context, f queue.Filter) (int, error) {
	return s.operate(ctx, f, func(t *tx, x subject) (bool, error) {
		switch {
		case x.state == held && x.due > 0:
			t.wakes = true
			return true, t.setState(x.seq, x.n, held, later)
		case x.state == held:
			t.wakes = true
			return true, t.setState(x.seq, x.n, held, ready)
		case x.state == claimed && x.hold:
			return true, t.setHold(x, 0)
		}
		return false, nil
	})
}

func (t *tx) setHold(x subject, hold int) error {
	_, err := t.change("UPDATE recipients SET hold = ? WHERE mail = ? AND n = ?", hold, x.seq, x.n)
	return err
}

// Retry implements queue.Queue.
func (s *Store) Retry(ctx context.Context, f queue.Filter, now time.Time) (int, error) {
	return s.operate(ctx, f, func(t *tx, x subject) (bool, error) {
		switch {
		case x.state == ready || x.state == later:
			t.wakes = true
			_, err := t.change("UPDATE recipients SET state = 0, due = 0 WHERE mail = ? AND n = ?", x.seq, x.n)
			return true, err
		case x.state == failed && !x.damaged:
			t.wakes, t.reopens = true, true
			if err := t.countFailed(x.seq, -1); err != nil {
				return false, err
			}
			t.counts.move(failed, ready)
			if !x.bounced {
				t.counts.unbounced--
			}
			_, err := t.change(`UPDATE recipients SET state = 0, due = 0, ended = 0, attempts = 0, since = ? WHERE mail = ? AND n = ?`,
				millis(now), x.seq, x.n)
			return true, err
		}
		return false, nil
	})
}

// Drop implements queue.Queue.
func (s *Store) Drop(ctx context.Context, f queue.Filter) (int, error) {
	return s.operate(ctx, f, func(t *tx, x subject) (bool, error) {
		if x.state == sent {
			return false, nil
		}
		return true, t.drop(x)
	})
}

// drop removes one recipient, with its mail if it was the last.
func (t *tx) drop(x subject) error {
	r, err := t.One("SELECT 1 FROM recipients WHERE mail = ? AND n <> ? LIMIT 1", x.seq, x.n)
	if err != nil {
		return err
	}
	if err := t.countFailed(x.seq, -1); err != nil {
		return err
	}
	if r == nil {
		return t.remove(x.seq)
	}
	t.counts.add(x.state, -1)
	if x.state == failed && !x.bounced {
		t.counts.unbounced--
	}
	for _, q := range [...]string{
		"DELETE FROM attempts WHERE mail = ? AND n = ?",
		"DELETE FROM recipients WHERE mail = ? AND n = ?",
	} {
		if _, err := t.change(q, x.seq, x.n); err != nil {
			return err
		}
	}
	last, err := t.Number("SELECT max(ended) FROM recipients WHERE mail = ?", x.seq)
	if err != nil {
		return err
	}
	if err := t.finish(x.seq, fromMillis(last)); err != nil {
		return err
	}
	return t.countFailed(x.seq, 1)
}
