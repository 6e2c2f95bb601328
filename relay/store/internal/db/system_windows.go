package db

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// take locks a file for this process, or fails with ErrLocked. Windows keeps
// others from reading what is locked, so that is a byte far behind the text.
func take(f *os.File) error {
	far := &windows.Overlapped{OffsetHigh: 1}
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, far)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return ErrLocked
	}
	return err
}

// openOwn is OpenFile: making a link takes an administrator on Windows.
func openOwn(path string, flags int) (*os.File, error) { return OpenFile(path, flags) }

// open follows no link that is there beforehand.
func open(path string, flags int) (*os.File, error) {
	info, err := os.Lstat(path)
	if err == nil {
		err = checkKind(path, info.Mode())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(path, flags, 0o600)
}

// FreeBytes is the space left for us on the directory's file system.
func FreeBytes(dir string) (int64, error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(min(free, 1<<62)), nil
}

// SyncDir does nothing: Windows cannot sync a directory, and NTFS keeps the names
// of files in a journal of its own.
func SyncDir(string) error { return nil }
