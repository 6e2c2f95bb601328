package sqlite

import (
	"errors"
	"fmt"
	"time"
)

const (
	// tidyPages is one step of giving back, about 2 ms: what an op may wait for it.
	tidyPages = 256
	// keepPages stay in the file for the next mails, so that it does not grow
	// and shrink all the time.
	keepPages = 256
)

// truncate cuts the log if no reader is in the way. It does not wait for one:
// that would hold up every writer.
func (w *writer) truncate() (bool, error) {
	if err := w.conn.Script("PRAGMA busy_timeout=0"); err != nil {
		return false, err
	}
	r, err := w.conn.One("PRAGMA wal_checkpoint(TRUNCATE)")
	done := err == nil && r.Int(0) == 0
	return done, errors.Join(err, w.conn.Script("PRAGMA busy_timeout=5000"))
}

// tidy takes one step towards a small file and says when to take the next: at
// once while there is more to give back and nothing else was committed since
// the last step, else in a while, so that a busy queue is hardly slowed down.
// Negative is not before something was committed: an idle queue has no clock.
func (w *writer) tidy() time.Duration {
	if w.repair() != nil || w.payOwed() != nil || w.failed(w.syncs(true)) != nil {
		return w.s.opts.tidyEvery
	}
	quiet := w.commits == w.tidiedAt
	w.tidiedAt = w.commits
	free, err := w.conn.Number("PRAGMA freelist_count")
	if err == nil && free > keepPages {
		err = w.conn.Each(func(row) error { return nil }, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", tidyPages))
		w.truncated = false
		if err == nil && quiet {
			return 0
		}
	}
	if err == nil {
		var more bool
		more, err = w.compact(quiet)
		w.tidiedAt = w.commits // which may have been its own
		if err == nil && more && quiet {
			return 0
		}
	}
	if err == nil && quiet && !w.truncated {
		w.truncated, err = w.truncate()
	}
	if w.failed(err) != nil {
		w.s.log.Warn("giving back space failed", "err", err)
	} else if quiet && w.truncated {
		w.rest()
		return -1
	}
	return w.s.opts.tidyEvery
}

// rest gives back the memory that a queue needs only while it is busy.
func (w *writer) rest() {
	if err := errors.Join(w.conn.Rest(), w.s.readers.Rest()); err != nil {
		w.s.log.Warn("giving back memory failed", "err", err)
	}
}
