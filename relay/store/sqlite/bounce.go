package sqlite

import (
	"context"
	"errors"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// BouncesDue implements queue.Queue.
func (s *Store) BouncesDue(ctx context.Context, now time.Time, grace time.Duration, limit int) ([]queue.Bounce, error) {
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
		seq, millis(now.Add(-grace)), millis(now))
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
	b := queue.Bounce{Mail: m}
	for _, r := range m.Recipients {
		if r.State == queue.Failed && !r.Bounced {
			b.Failed = append(b.Failed, r)
		}
	}
	return b, nil
}

// Bounced implements queue.Queue. It looks at neither capacity nor free space:
// a bounce ends more than it begins.
func (s *Store) Bounced(ctx context.Context, id string, recipients []int, bounce *queue.Mail) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	var parcels []parcel
	if bounce != nil {
		var err error
		if parcels, err = s.wrap(ctx, []queue.Mail{*bounce}, false); err != nil {
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
		return t.insertMails(pointers(parcels))
	})
	if err == nil || !enqueued {
		s.discard(unused(parcels, enqueued))
	}
	return err
}

// markBounced says how many of the recipients were still to be bounced.
func (t *tx) markBounced(id string, recipients []int) (int, error) {
	m, err := t.One("SELECT seq FROM mails WHERE id = ?", id)
	if err != nil {
		return 0, err
	}
	if m == nil {
		return 0, queue.ErrNotFound
	}
	marked := 0
	for _, n := range recipients {
		changed, err := t.Exec("UPDATE recipients SET bounced = 1 WHERE mail = ? AND n = ? AND state = 5 AND bounced = 0", m.Int(0), n)
		if err != nil {
			return 0, err
		}
		t.writes += int(changed)
		marked += int(changed)
	}
	t.counts.unbounced -= int64(marked)
	return marked, nil
}
