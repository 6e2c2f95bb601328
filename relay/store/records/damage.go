package records

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// check reads what is needed at once. The other tables are found damaged when
// they are used: a start must not take as long as the history is big.
func check(c *db.Conn) error {
	for _, table := range [...]string{"sqlite_schema", "suppressions", "removals"} {
		r, err := c.One("PRAGMA quick_check('" + table + "')")
		if err != nil {
			return err
		}
		if r == nil || r.Text(0) != "ok" {
			return &db.DamagedError{Reason: table + ": " + r.Text(0)}
		}
	}
	return nil
}

func damaged(err error) bool {
	_, ok := errors.AsType[*db.DamagedError](err)
	return ok || db.IsCorrupt(err)
}

// marker is a file that says that the database was found damaged while it was
// in use. The next Open sees to it: other connections have the file open now.
func (s *Store) marker() string { return s.path() + ".damaged" }

// setAside puts a new file in the place of a damaged one, which is kept.
func (s *Store) setAside(cause error) error {
	name, err := db.SetAside(s.path(), time.Now().UTC().Format(".damaged-20060102-150405.000"))
	if err != nil {
		return fmt.Errorf("%s is damaged (%w) and cannot be set aside: %w", s.path(), cause, err)
	}
	if err := os.Remove(s.marker()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	s.log.Error("the records were damaged: suppressions and history begin anew, mail is not touched; "+
		"what is readable can be rescued with sqlite3's .recover", "kept", name, "cause", cause)
	return nil
}

// describe says of a storage error what it means to a person, and leaves word
// for the next start when the file is damaged.
func (s *Store) describe(err error) error {
	switch {
	case db.IsCorrupt(err) && s.opts.Existing:
		return fmt.Errorf("%w: %s: %w", ErrDamaged, s.path(), err)
	case db.IsCorrupt(err):
		s.failing(fmt.Errorf("%s is damaged: %w", s.path(), err), true)
		if f, ferr := os.OpenFile(s.marker(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); ferr == nil {
			err = errors.Join(err, f.Close())
			s.log.Error("the records are damaged; mail is not touched, and the next start sets the file aside and begins a new one",
				"file", s.path(), "cause", err)
		}
		return fmt.Errorf("%s is damaged: %w", s.path(), err)
	case db.IsDiskFull(err), db.IsIO(err):
		return fmt.Errorf("records in %s: %w", s.opts.Dir, err)
	}
	return err
}
