package sqlite

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// repair opens the connection anew after an I/O error. A write or fsync that
// failed leaves pages of which nobody knows whether they are on the disk, and
// the kernel reports that only once. So the log is not written to any more
// before all of it was written again and synced, for what was logged only is in
// there as well, and copied to the database, synced there, and cut to nothing.
func (w *writer) repair() error {
	if w.broken == nil {
		return nil
	}
	w.s.log.Error("queue storage failed; opening it anew", "err", w.broken)
	if w.conn != nil {
		_ = w.conn.Close() // of a connection that is given up
		w.conn = nil
	}
	if err := w.s.rewriteLog(); err != nil {
		return err
	}
	c, err := w.s.connectWriter()
	if err != nil {
		return err
	}
	w.conn, w.unsyncing = c, false
	if err := db.Checkpoint(c); err != nil {
		return err
	}
	// Now it is empty, and must stay so: a commit that failed in its sync is
	// not to come up after a crash, before mail that is logged meanwhile.
	if err := w.s.rewriteLog(); err != nil {
		return err
	}
	if w.counts, err = loadCounts(c); err != nil {
		return err
	}
	n := w.counts
	w.s.published.Store(&n)
	w.s.oldest.Store(&oldest{}) // what failed in its sync may have been stored after all
	w.broken = nil
	w.s.metrics.broken.Set(0)
	w.s.log.Info("queue storage works again")
	return nil
}

// rewriteLog rewrites the database's log.
func (s *Store) rewriteLog() error {
	if err := s.opts.rewrite(s.path() + "-wal"); err != nil {
		return fmt.Errorf("the queue's log: %w", err)
	}
	return nil
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
