package sqlite

import (
	"fmt"
	"slices"
)

// openSegments finds out, at the start, what segments there are, and forgets
// those that have nothing. A new segment never has the number of an old one.
func (w *writer) openSegments() error {
	if _, err := w.conn.Exec("DELETE FROM segments WHERE live = 0"); err != nil {
		return err
	}
	known, err := w.conn.Number("SELECT max(id) FROM segments")
	if err != nil {
		return err
	}
	w.lastSegment = max(known, segmentOf(w.counts.place))
	var ids []int64
	err = w.s.spool.fs.Names(w.s.spool.dir, func(name string) error {
		if id, ok := segmentID(name); ok {
			ids = append(ids, id)
			w.lastSegment = max(w.lastSegment, id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if w.counts.place == 0 { // nothing was ever logged
		w.passed = place(w.lastSegment+1, 0)
		return nil
	}
	slices.Sort(ids)
	return w.replay(ids)
}

// replay makes anew the rows of mails that were logged and are not, or not any
// more, in the database.
func (w *writer) replay(ids []int64) error {
	mails := 0
	for _, id := range ids {
		if id < segmentOf(w.counts.place) {
			continue
		}
		n, err := w.replaySegment(id)
		if err != nil {
			return fmt.Errorf("segment %d: %w", id, err)
		}
		mails += n
	}
	if mails > 0 {
		w.s.log.Info("a crash had taken mail from the queue's database; its segments had it", "mails", mails)
	}
	return nil
}

func (w *writer) replaySegment(id int64) (int, error) {
	f, err := w.s.spool.open(segmentName(id))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	mails, offset := 0, int64(0)
	if id == segmentOf(w.counts.place) {
		offset = offsetOf(w.counts.place)
	}
	for {
		p, ok, err := readPortion(f, id, offset)
		// Another number is of what a failed transaction left.
		if err != nil || !ok || p.first != w.counts.seq+1 {
			return mails, err
		}
		if mails == 0 { // all that is there now may be in the kernel's memory only
			if err := w.s.spool.sync(segmentName(id)); err != nil {
				return mails, err
			}
		}
		if err := w.take(p); err != nil {
			return mails, err
		}
		mails, offset = mails+len(p.parcels), offsetOf(p.end)
	}
}

// take stores the rows of a portion that is in its segment already.
func (w *writer) take(p portion) error {
	var g group
	g.add(op{run: func(t *tx) error { return t.insertPortion(p) }})
	if err := w.transact(&g, true); err != nil {
		return err
	}
	return g.results[0].err
}

func (t *tx) insertPortion(p portion) error {
	t.segments.current = segmentOf(p.end)
	t.counts.place = p.end
	return t.insertMails(p.parcels)
}
