package sqlite

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// rewriteWAL is for a start. The process before may have crashed after a sync of
// the WAL that failed. The kernel says so only once, and takes for written what
// may not be on the disk: SQLite would read a commit there and add others behind
// it, and a loss of power would then take them all.
func (s *Store) rewriteWAL() error {
	if err := s.opts.rewrite(s.path() + "-wal"); err != nil {
		return fmt.Errorf("the queue's WAL: %w", err)
	}
	return nil
}

// rewrite writes all of a file again as it is, and syncs it.
func rewrite(name string) error {
	f, err := db.OpenFile(name, os.O_RDWR)
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
