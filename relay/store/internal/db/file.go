package db

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	driversqlite "modernc.org/sqlite"
)

// CheapSync leaves the time stamps out of every sync. It is process-wide, but
// takes away nothing that is needed to read the data back.
func CheapSync() error {
	_, err := driversqlite.Fdatasync(true)
	if errors.Is(err, driversqlite.ErrFdatasyncUnavailable) {
		return nil
	}
	return err
}

// Name is how a file is called in Connect; vfs is SQLite's own when "".
func Name(path, vfs string) string {
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath()
	if vfs != "" {
		dsn += "?vfs=" + url.QueryEscape(vfs)
	}
	return dsn
}

// CreatePrivate makes the database's file before SQLite would, because SQLite
// gives the log the database's mode, and the umask is not ours to trust.
func CreatePrivate(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Prepare gives an empty file what must come before its first table. It is not
// asked for again, because asking alone writes to the file.
func Prepare(dsn, path string) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() > 0 {
		return err
	}
	c, err := Connect(dsn, "PRAGMA auto_vacuum=INCREMENTAL", "PRAGMA journal_mode=WAL")
	if err != nil {
		return err
	}
	return c.Close()
}

// Checkpoint copies all of the log into the database and cuts it to nothing.
func Checkpoint(c *Conn) error {
	busy, err := c.Number("PRAGMA wal_checkpoint(TRUNCATE)")
	if err == nil && busy != 0 {
		err = fmt.Errorf("the log cannot be copied back: a reader does not end")
	}
	return err
}

// SetAside renames a database and its log, so that the next who opens it
// begins a new one. Nothing is removed. It returns the database's new name.
func SetAside(path, suffix string) (string, error) {
	for _, name := range [...]string{path + "-wal", path} { // the database last: it makes a second try complete
		if err := Rename(name, suffix); err != nil {
			return "", err
		}
	}
	// The index of a log that is not there any more.
	if err := os.Remove(path + "-shm"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	return path + suffix, SyncDir(filepath.Dir(path))
}

// Rename adds a suffix to a file's or directory's name, if there is one of
// that name, and never writes over another.
func Rename(path, suffix string) error {
	if _, err := os.Lstat(path + suffix); err == nil {
		return fmt.Errorf("%s exists already", path+suffix)
	}
	if err := os.Rename(path, path+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
