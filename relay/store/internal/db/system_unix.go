//go:build unix

package db

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// take locks a file for this process, or fails with ErrLocked.
func take(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

// openOwn opens a file that is written to and that whoever owns the directory may
// have put there: neither a link to another's file nor anything but a file.
func openOwn(path string, flags int) (*os.File, error) {
	f, err := OpenFile(path, flags)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			err = fmt.Errorf("%s has another name elsewhere; it must be a file of its own", path)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// open follows no link, and does not wait for the other end of a pipe.
func open(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	switch {
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.EMLINK): // FreeBSD says the second
		return nil, errors.Join(checkKind(path, os.ModeSymlink), err)
	case errors.Is(err, syscall.ENXIO):
		return nil, errors.Join(checkKind(path, os.ModeSocket), err)
	}
	return f, err
}

// FreeBytes is the space left for us on the directory's file system.
func FreeBytes(dir string) (int64, error) {
	free, err := freeBytes(dir)
	if err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return free, nil
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
