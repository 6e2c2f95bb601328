package sqlite

import (
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

// checkpoint copies all of the log into the database and cuts it to nothing.
func checkpoint(c *conn) error {
	busy, err := c.number("PRAGMA wal_checkpoint(TRUNCATE)")
	if err == nil && busy != 0 {
		err = fmt.Errorf("the log cannot be copied back: a reader does not end")
	}
	return err
}

// tidy takes one step towards a small file and says when to take the next: at
// once while there is more to give back and nothing else was committed since
// the last step, else in a while, so that a busy queue is hardly slowed down.
func (w *writer) tidy() time.Duration {
	if err := w.repair(); err != nil {
		return w.s.opts.tidyEvery
	}
	quiet := w.commits == w.tidiedAt
	w.tidiedAt = w.commits
	free, err := w.conn.number("PRAGMA freelist_count")
	if err == nil && free > keepPages {
		err = w.conn.each(func(row) error { return nil }, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", tidyPages))
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
		var r row
		r, err = w.conn.one("PRAGMA wal_checkpoint(TRUNCATE)")
		w.truncated = err == nil && r.int(0) == 0 // else a reader is in the way: next time
	}
	if w.failed(err) != nil {
		w.s.log.Warn("giving back space failed", "err", err)
	}
	return w.s.opts.tidyEvery
}
