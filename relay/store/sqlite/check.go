package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// CorruptError: the database is damaged. Nothing was changed or removed.
type CorruptError struct {
	Path   string
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("the queue's database %[1]s is damaged (%[2]s); nothing was changed. "+
		"Stop smtp2rest and keep a copy of the file, then either restore it from a backup, "+
		"or rescue what is readable with: sqlite3 %[1]s .recover | sqlite3 rescued.db, and put rescued.db in its place, "+
		"or begin with an empty queue after 'smtp2rest queue set-aside', which renames it and removes nothing", e.Path, e.Reason)
}

// checkIntegrity reads the tables that steer delivery. Bodies are left out so
// that a start does not take as long as the backlog is big: each has a
// checksum of its own, verified when it is read.
func checkIntegrity(c *conn, path string) error {
	for _, table := range [...]string{"sqlite_schema", "counts", "marks", "recipients"} {
		r, err := c.one("PRAGMA quick_check('" + table + "')")
		if isCorrupt(err) {
			return &CorruptError{Path: path, Reason: err.Error()}
		}
		if err != nil {
			return err
		}
		if r == nil || r.text(0) != "ok" {
			return &CorruptError{Path: path, Reason: table + ": " + r.text(0)}
		}
	}
	return nil
}

// SetAside renames the database of a data directory that is not in use, with
// its log and its spool, so that the next Open begins with an empty queue.
// Nothing is removed. It returns the database's new name.
func SetAside(dir string, now time.Time) (string, error) {
	l, err := lock(dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	suffix := now.UTC().Format(".damaged-20060102-150405")
	for _, name := range [...]string{spoolDir, fileName + "-wal", fileName} { // the database last: it makes a second try complete
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path + suffix); err == nil {
			return "", fmt.Errorf("%s exists already", path+suffix)
		}
		if err := os.Rename(path, path+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	// The index of a log that is not there any more.
	if err := os.Remove(filepath.Join(dir, fileName+"-shm")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	return filepath.Join(dir, fileName+suffix), syncDir(dir)
}
