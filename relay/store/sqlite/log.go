package sqlite

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
)

// A transaction that has nothing but new mails, and enough of them, is logged:
// all its rows are made from is in a segment, whose sync is the only one that
// the callers wait for. The database's own log is written and not synced, so a
// loss of power can take the rows; the next start makes them anew (replay).
// Any later commit that syncs the log, as all others do, makes them durable.
//
// counts.place says up to where the segments are in the database. It is stored
// with each commit, and SQLite's log gives back commits in order without a
// gap, so what is behind the place is exactly what is missing.

const (
	// logGroup is how many mails a transaction must have to be logged. Below
	// it, the log's sync alone is faster than writing to two files.
	logGroup = 8
	// maxUnsynced is how many logged mails there may be until the database's log is
	// synced: what a start may have to make anew.
	maxUnsynced = 4096
)

// logs says whether a transaction that begins with these ops is logged. They
// must all be taken: what is refused must not be in a segment.
func (w *writer) logs(ops []op) bool {
	if w.unsynced >= maxUnsynced || w.passed > w.counts.place {
		return false
	}
	mails := 0
	for _, o := range ops {
		if !o.enqueues {
			return false
		}
		mails += len(o.parcels)
	}
	return mails >= w.s.opts.logGroup && w.counts.fit(w.s, ops)
}

// fit says whether there is room for all mails of a group.
func (n counts) fit(s *Store, ops []op) bool {
	mails, bytes := n.mails, n.bytes
	for _, o := range ops {
		for i := range o.parcels {
			mails, bytes = mails+1, bytes+o.parcels[i].Size
		}
	}
	return s.checkRoom(mails, bytes) == nil
}

// joins takes an op into a group, or keeps it for the next: in a logged
// transaction are none but enqueues.
func (w *writer) joins(g *group, o op) {
	if g.logged && !o.enqueues {
		w.next = append(w.next, o)
		return
	}
	g.add(o)
}

// putOff keeps the ops from an index on for the next transaction.
func (w *writer) putOff(g *group, from int) {
	w.next = append(w.next, g.ops[from:]...)
	clear(g.ops[from:])
	g.ops, g.results = g.ops[:from], g.results[:from]
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

// openSegments finds out, at the start, what segments there are, and forgets
// those that have nothing.
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

// replay makes anew the rows of mails that are in segments and not, or not any
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
		if err != nil || !ok || p.first != w.counts.seq+1 {
			return mails, err
		}
		var g group
		g.add(op{run: func(t *tx) error {
			t.segments.current = id
			t.counts.place = place(id, p.end)
			return t.insertMails(p.parcels)
		}})
		if err := w.transact(&g, true); err != nil {
			return mails, err
		}
		if err := g.results[0].err; err != nil {
			return mails, err
		}
		mails, offset = mails+len(p.parcels), p.end
	}
}

// rewrite writes all of a file again as it is, and syncs it. After a sync that
// failed the kernel may take for written what is not; so it has to write it.
func rewrite(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	b := make([]byte, 1<<20)
	for offset := int64(0); err == nil; {
		var n int
		n, err = f.ReadAt(b, offset)
		if _, errWrite := f.WriteAt(b[:n], offset); errWrite != nil {
			err = errWrite
		}
		offset += int64(n)
	}
	if errors.Is(err, io.EOF) {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
