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
func lock(dir string) (*os.File, error) {
	f, err := db.Lock(filepath.Join(dir, "lock"))
	if errors.Is(err, db.ErrLocked) {
		return nil, fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return f, err
}
