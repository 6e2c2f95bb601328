package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
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

// checkIntegrity reads the tables that steer delivery: a queue that cannot claim
// or settle stands still. Bodies are left out so that a start does not take as
// long as the backlog is big: each has a checksum of its own, verified when it is
// read. So are attempts, of which each recipient may have twenty.
func checkIntegrity(c *conn, path string) error {
	for _, table := range [...]string{"sqlite_schema", "counts", "marks", "recipients", "mails"} {
		r, err := c.One("PRAGMA quick_check('" + table + "')")
		if db.IsCorrupt(err) {
			return &CorruptError{Path: path, Reason: err.Error()}
		}
		if err != nil {
			return err
		}
		if r == nil || r.Text(0) != "ok" {
			return &CorruptError{Path: path, Reason: table + ": " + r.Text(0)}
		}
	}
	return nil
}

// SetAside renames the database of a data directory that is not in use, with
// its log and its spool, so that the next Open begins with an empty queue.
// Nothing is removed. It returns the database's new name.
func SetAside(dir string, now time.Time) (string, error) {
	// A lock that is not there has nobody, and must not be made by whoever comes.
	l, err := locked(db.LockExisting(lockName(dir)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	defer func() { _ = l.Close() }()
	suffix := now.UTC().Format(".damaged-20060102-150405.000")
	if err := db.Rename(filepath.Join(dir, spoolDir), suffix); err != nil {
		return "", err
	}
	return db.SetAside(filepath.Join(dir, FileName), suffix)
}

// lock takes the data directory for this process.
func (o Options) lock() (*os.File, error) {
	if o.Existing {
		return locked(db.LockExisting(lockName(o.Dir)))
	}
	if err := os.MkdirAll(filepath.Join(o.Dir, spoolDir), 0o700); err != nil {
		return nil, err
	}
	return locked(db.Lock(lockName(o.Dir)))
}

func lockName(dir string) string { return filepath.Join(dir, "lock") }

func locked(f *os.File, err error) (*os.File, error) {
	if errors.Is(err, db.ErrLocked) {
		return nil, fmt.Errorf("%w: %w", queue.ErrLocked, err)
	}
	return f, err
}
