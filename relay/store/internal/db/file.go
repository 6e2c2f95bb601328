package db

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// CheckFiles refuses a database of which one of the files is a link, a pipe or
// anything but a file: SQLite would follow it, or wait for ever for who writes
// into it. What is not there is well.
func CheckFiles(path string) error {
	for _, suffix := range [...]string{"", "-wal", "-shm", "-journal"} {
		info, err := os.Lstat(path + suffix)
		if err == nil {
			err = checkKind(path+suffix, info.Mode())
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// checkKind says what is in the place of a file.
func checkKind(path string, mode os.FileMode) error {
	if mode.IsRegular() {
		return nil
	}
	what := "a device"
	switch {
	case mode.IsDir():
		what = "a directory"
	case mode&os.ModeSymlink != 0:
		what = "a symbolic link"
	case mode&os.ModeNamedPipe != 0:
		what = "a pipe"
	case mode&os.ModeSocket != 0:
		what = "a socket"
	}
	return fmt.Errorf("%s is %s; it must be a file", path, what)
}

// OpenFile opens a file that should be there, and nothing that is in its place.
// It never waits.
func OpenFile(path string, flags int) (*os.File, error) {
	f, err := open(path, flags)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = checkKind(path, info.Mode())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
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

// Rewrite writes all of a file again as it is, if there is one, and syncs it.
func Rewrite(name string) error {
	f, err := OpenFile(name, os.O_RDWR)
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
