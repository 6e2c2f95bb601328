package sqlite

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// spoolDir is where bodies above spoolAbove are, one file each, and segments.
const spoolDir = "spool"

// spoolAbove: larger bodies do not go through the database, where they would
// be written twice and hold up the commits of small mail meanwhile. See
// docs/internals/storage.md for the measurement.
const spoolAbove = 128 << 10

// spoolFS is what the spool needs of a file system, so that tests can make it
// fail. Names are paths.
type spoolFS interface {
	// Create makes a file that must not be there yet, with mode 0600.
	Create(name string) (spoolFile, error)
	Open(name string) (spoolReader, error)
	Remove(name string) error
	// Sync makes durable what is in a file that somebody else wrote.
	Sync(name string) error
	SyncDir(name string) error
	// Names lists a directory, n at a time, into f.
	Names(dir string, f func(name string) error) error
}

type spoolReader interface {
	io.ReadCloser
	io.ReaderAt
}

type spoolFile interface {
	io.Writer
	Truncate(size int64) error
	Sync() error
	Close() error
}

// spool keeps bodies as files, and segments of many. A file is complete and synced, and so is its
// name, before a row tells of it; the row is gone before the file is. What a
// crash leaves over is swept at the next start.
type spool struct {
	dir string
	fs  spoolFS
}

func (s spool) path(name string) string { return filepath.Join(s.dir, name) }

// put stores a body and returns its name.
func (s spool) put(raw []byte) (string, error) {
	name := rand.Text()
	f, err := s.fs.Create(s.path(name))
	if err != nil {
		return "", err
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = s.fs.SyncDir(s.dir)
	}
	if err != nil {
		return "", errors.Join(err, s.remove(name))
	}
	return name, nil
}

func (s spool) open(name string) (spoolReader, error) { return s.fs.Open(s.path(name)) }

// sync makes a file and its name durable.
func (s spool) sync(name string) error {
	if err := s.fs.Sync(s.path(name)); err != nil {
		return err
	}
	return s.fs.SyncDir(s.dir)
}

// remove is not synced: a file that comes back after a crash is swept.
func (s spool) remove(name string) error {
	err := s.fs.Remove(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// discard removes files that no row tells of any more.
func (s *Store) discard(names []string) {
	for _, name := range names {
		if err := s.spool.remove(name); err != nil {
			s.log.Warn("spool file could not be removed; the next start will", "file", s.spool.path(name), "err", err)
		}
	}
}

// checkMissing refuses to begin a new database beside what is left of one that
// is gone or was cut to nothing: SQLite would remove the log, and the sweep take
// the bodies for leftovers.
func (s *Store) checkMissing(path string) error {
	what := "missing"
	info, err := os.Lstat(path)
	switch {
	case err == nil && info.Size() > 0:
		return nil
	case err == nil:
		what = "empty"
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	refuse := func(beside string) error {
		return fmt.Errorf("%s is %s, and %s beside it has the mail of it: put the file back, or begin with an empty queue after 'smtp2rest queue set-aside', which renames what is there and removes nothing", path, what, beside)
	}
	if log, err := os.Lstat(path + "-wal"); err == nil && log.Size() > 0 {
		return refuse(path + "-wal")
	}
	return s.spool.fs.Names(s.spool.dir, func(string) error { return refuse(s.spool.dir) })
}

// sweepSpool removes what a crash left over between a file and its row.
func (s *Store) sweepSpool(c *conn) error {
	swept := 0
	err := s.spool.fs.Names(s.spool.dir, func(name string) error {
		q, key := "SELECT 1 FROM mails WHERE spool = ? AND spool <> ''", any(name)
		if id, ok := segmentID(name); ok {
			q, key = "SELECT 1 FROM segments WHERE id = ?", id
		}
		r, err := c.One(q, key)
		if err != nil || r != nil {
			return err
		}
		swept++
		return s.spool.remove(name)
	})
	if swept > 0 {
		s.log.Info("removed spool files that belong to no mail", "files", swept)
	}
	return err
}

// osFS is the operating system's file system.
type osFS struct{}

func (osFS) Create(name string) (spoolFile, error) {
	return os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}

func (osFS) Open(name string) (spoolReader, error) { return os.Open(name) }
func (osFS) Remove(name string) error              { return os.Remove(name) }
func (osFS) Sync(name string) error                { return syncFile(name) }
func (osFS) SyncDir(name string) error             { return db.SyncDir(name) }

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (osFS) Names(dir string, f func(name string) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	for {
		names, err := d.Readdirnames(1000)
		for _, name := range names {
			if err := f(name); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// noSpace reports whether a file could not be written for want of space, or
// of quota.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || db.IsDiskFull(err)
}
