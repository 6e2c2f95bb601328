package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// ErrLocked: another process has the data directory open.
var ErrLocked = errors.New("another smtp2rest is using this data directory; stop it, or name another directory")

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
		return nil, fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return f, err
}
