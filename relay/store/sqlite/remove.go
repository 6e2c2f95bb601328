package sqlite

import (
	"context"
	"time"
)

// finish lets go of a mail's content when its last recipient was sent, and of
// the whole mail if sent ones are not kept.
func (t *tx) finish(seq int64, at time.Time) error {
	r, err := t.One("SELECT 1 FROM recipients WHERE mail = ? AND state <> 4 LIMIT 1", seq)
	if err != nil || r != nil {
		return err
	}
	if t.s.bounds.Load().Queue.ForgetSent {
		return t.remove(seq)
	}
	if err := t.removeBody(seq); err != nil {
		return err
	}
	_, err = t.change("UPDATE mails SET body = 0, spool = '', place = 0, done = ? WHERE seq = ?", max(1, millis(at)), seq)
	return err
}

// removeBody lets go of a mail's content. A file of it is removed
// after the commit.
func (t *tx) removeBody(seq int64) error {
	r, err := t.One("SELECT body, spool, size, place FROM mails WHERE seq = ?", seq)
	if err != nil || r == nil || r.Int(0) == bodyGone {
		return err
	}
	t.counts.mails--
	t.counts.bytes -= r.Int(2)
	switch r.Int(0) {
	case bodySpool:
		t.files = append(t.files, r.Text(1))
		return nil
	case bodySegment:
		t.segments.remove(segmentOf(r.Int(3)), 1)
		return nil
	}
	_, err = t.change("DELETE FROM bodies WHERE seq = ?", seq)
	return err
}

// remove lets go of a mail with everything that belongs to it.
func (t *tx) remove(seq int64) error {
	err := t.Each(func(r row) error {
		t.counts.add(r.Int(0), -1)
		if r.Int(0) == failed && r.Int(1) == 0 {
			t.counts.unbounced--
		}
		return nil
	}, "SELECT state, bounced FROM recipients WHERE mail = ?", seq)
	if err != nil {
		return err
	}
	if err := t.removeBody(seq); err != nil {
		return err
	}
	for _, q := range [...]string{
		"DELETE FROM attempts WHERE mail = ?",
		"DELETE FROM recipients WHERE mail = ?",
		"DELETE FROM mails WHERE seq = ?",
	} {
		if _, err := t.change(q, seq); err != nil {
			return err
		}
	}
	return nil
}

// Purge implements queue.Queue.
func (s *Store) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	removed := 0
	err := s.change(ctx, func(t *tx) error {
		removed = 0
		var mails []int64
		err := t.Each(func(r row) error {
			mails = append(mails, r.Int(0))
			return nil
		}, "SELECT seq FROM mails WHERE done > 0 AND done < ? ORDER BY done LIMIT ?", millis(before), limit)
		if err != nil {
			return err
		}
		for _, seq := range mails {
			if removed >= limit {
				return nil
			}
			sentBefore := t.counts.state[sent]
			if err := t.remove(seq); err != nil {
				return err
			}
			removed += int(sentBefore - t.counts.state[sent])
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return removed, nil
}
