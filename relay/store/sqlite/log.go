package sqlite

import "errors"

// Many new mails that come together are logged: all that their rows are made
// from is appended to a segment, and once that is synced their callers are
// answered. Their rows are stored meanwhile, in a transaction that commits
// without a sync. A loss of power can take those; the next start makes them anew
// (replay.go). Any later commit that syncs, as all others do, makes them durable.
//
// counts.place says up to where the segments are in the database. It is stored
// with each commit, and SQLite's log gives back commits in order without a
// gap, so what is behind the place is exactly what is missing.

const (
	// logGroup is how many mails are logged. Fewer go to the database, which
	// then is the only file that is written.
	logGroup = 4
	// maxUnsynced is how many logged mails there may be until the database's
	// log is synced: what a start may have to make anew.
	maxUnsynced = 4096
)

// log takes the enqueues out of a group if they can be logged, and answers them.
func (w *writer) log(g *group) {
	if countMails(g.ops) < w.s.opts.logGroup {
		return
	}
	var ops []op
	for _, o := range g.ops {
		if o.enqueues {
			ops = append(ops, o)
		}
	}
	// What is refused must not be in a segment, so there must be room for all.
	if !w.canLog() || !w.fit(ops) || w.spaceFor(ops) != nil || !w.logAll(ops) {
		return
	}
	rest := group{}
	for _, o := range g.ops {
		if !o.enqueues {
			rest.add(o)
		}
	}
	*g = rest
}

// countMails is how many mails a group is to store.
func countMails(ops []op) int {
	n := 0
	for _, o := range ops {
		n += len(o.parcels)
	}
	return n
}

// fit says whether there is room for all mails of a group.
func (w *writer) fit(ops []op) bool {
	more := kept{}
	for _, o := range ops {
		for i := range o.parcels {
			more.add(o.parcels[i].Size)
		}
	}
	return w.s.checkRoom(w.counts, more, false) == nil
}

// canLog brings about what must be before anything is logged.
func (w *writer) canLog() bool {
	if w.payOwed() != nil {
		return false
	}
	if w.unsynced < w.s.opts.maxUnsynced && w.passed <= w.counts.place {
		return true
	}
	var g group
	g.add(op{run: func(t *tx) error { t.writes++; return nil }})
	return w.transact(&g, true) == nil
}

// logAll logs ops that enqueue, and answers them. It is false when they could not be
// logged; then nothing was changed and nobody answered.
func (w *writer) logAll(ops []op) bool {
	t, err := w.begin(false)
	if err != nil {
		return false
	}
	// From here on readers wait, so that whoever was answered finds his mail.
	behind := make(chan struct{})
	w.s.behind.Store(&behind)
	defer func() {
		w.s.behind.Store(nil)
		close(behind)
	}()
	p, durable := w.appendMails(ops)
	err = t.insertPortion(p)
	if err == nil {
		err = w.save(t, new(result))
	}
	if errAppend := <-durable; errAppend != nil {
		w.s.log.Error("queue storage failed; its mail goes to the database", "file", w.s.spool.path(segmentName(w.segment.id)), "err", errAppend)
		_ = w.failed(w.rollback(errors.Join(err, errAppend)))
		w.void(p)
		return false
	}
	w.segment.told = true
	if err == nil {
		_, err = t.Exec("COMMIT")
	}
	if err != nil {
		w.s.log.Error("queue storage failed; mail that was taken waits in a segment for it to work", "mails", len(p.parcels), "err", w.failed(w.rollback(err)))
		w.owed = &p
		return true
	}
	w.unsynced += len(p.parcels)
	w.committed(t)
	w.s.discard(seenFiles(p.parcels))
	return true
}

// payOwed stores the rows that somebody was answered for already. They come
// before all else, as they would have.
func (w *writer) payOwed() error {
	if w.owed == nil {
		return nil
	}
	err := w.take(*w.owed)
	if err == nil {
		w.owed = nil
	}
	return err
}

// end is the end of the writer. What is owed then is for the next start.
func (w *writer) end() {
	if err := w.payOwed(); err != nil {
		w.s.log.Warn("mail in a segment is not in the queue's database; the next start sees to it", "err", err)
	}
	w.retire()
}

// syncs says whether commits sync the database's log. It is only copied back
// after one that does: SQLite says nothing of a sync that failed before that.
func (w *writer) syncs(log bool) error {
	if log == !w.unsyncing {
		return nil
	}
	q := "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=4000"
	if !log {
		q = "PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0"
	}
	if err := w.conn.Script(q); err != nil {
		return err
	}
	w.unsyncing = !log
	return nil
}
