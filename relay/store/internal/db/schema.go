package db

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Schema is what a store's file holds.
type Schema struct {
	// ApplicationID marks the store's files, so that file(1) and we ourselves
	// know them.
	ApplicationID uint32
	// Migrations[i] takes a database from version i to i+1. A released one is
	// never changed.
	Migrations []string
	// Newer is the error for a file that a later version of this program wrote,
	// Older for one that would have to be converted.
	Newer, Older error
}

// DamagedError is of a file that is no database.
type DamagedError struct{ Reason string }

func (e *DamagedError) Error() string { return e.Reason }

// CheckHeader looks at the file's first bytes without opening it as a
// database, because opening alone may write. The version stands there and not
// in the log only: Migrate sees to that.
func (s Schema) CheckHeader(path string) error {
	_, err := s.version(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// CheckCurrent is CheckHeader of a file that must be there and need no
// conversion.
func (s Schema) CheckCurrent(path string) error {
	version, err := s.version(path)
	if err == nil && version < len(s.Migrations) {
		err = fmt.Errorf("%w (version %d of %d)", s.Older, version, len(s.Migrations))
	}
	return err
}

// version is of a file's schema, 0 when it is not made yet.
func (s Schema) version(path string) (int, error) {
	f, err := OpenFile(path, os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	var header [100]byte // https://www.sqlite.org/fileformat2.html#the_database_header
	switch _, err := io.ReadFull(f, header[:]); {
	case errors.Is(err, io.EOF):
		return 0, nil // empty: not yet made into a database
	case err != nil:
		return 0, &DamagedError{Reason: "it is too short to be a database"}
	}
	if string(header[:16]) != "SQLite format 3\x00" {
		return 0, &DamagedError{Reason: "it is not an SQLite database"}
	}
	version := binary.BigEndian.Uint32(header[60:])
	id := binary.BigEndian.Uint32(header[68:])
	if id != s.ApplicationID && (version != 0 || id != 0) {
		return 0, fmt.Errorf("%s is a database of another program (application id %#x)", path, id)
	}
	if int(version) > len(s.Migrations) {
		return 0, fmt.Errorf("%w (version %d, known up to %d)", s.Newer, version, len(s.Migrations))
	}
	return int(version), nil
}

// Migrate brings the schema up to date, each step in one transaction.
func (s Schema) Migrate(c *Conn) error {
	version, err := c.Number("PRAGMA user_version")
	if err != nil {
		return err
	}
	if version > int64(len(s.Migrations)) {
		return fmt.Errorf("%w (version %d)", s.Newer, version)
	}
	for ; version < int64(len(s.Migrations)); version++ {
		step := fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA user_version = %d; PRAGMA application_id = %d; COMMIT",
			s.Migrations[version], version+1, s.ApplicationID)
		if err := c.Script(step); err != nil {
			return fmt.Errorf("schema, step %d: %w", version+1, err)
		}
		if err := Checkpoint(c); err != nil { // for CheckHeader
			return err
		}
	}
	return nil
}
