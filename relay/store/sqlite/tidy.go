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

// tidy takes one step towards a small file and says when to take the next:
// at once while there is more to give back and nothing to do, which is when
// the timer gets its turn. A select between an op and the timer is fair, so a
// busy queue still gets a step in now and then.
func (w *writer) tidy() time.Duration {
	if err := w.repair(); err != nil {
		return w.s.opts.tidyEvery
	}
	free, err := w.conn.number("PRAGMA freelist_count")
	if err == nil && free > keepPages {
		err = w.conn.each(func(row) error { return nil }, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", tidyPages))
		if w.failed(err) == nil {
			return 0
		}
	}
	if err == nil && w.commits != w.truncatedAt {
		if w.commits == w.tidiedAt { // quiet since the last look
			_, err = w.conn.one("PRAGMA wal_checkpoint(TRUNCATE)") // busy: next time
			w.truncatedAt = w.commits
		}
		w.tidiedAt = w.commits
	}
	if w.failed(err) != nil {
		w.s.log.Warn("giving back space failed", "err", err)
	}
	return w.s.opts.tidyEvery
}
