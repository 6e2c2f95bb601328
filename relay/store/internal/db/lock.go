package db

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ErrLocked: another process has the file.
var ErrLocked = errors.New("it is locked")

// Lock takes a file for this process, making it if it is not there. The kernel
// lets go of it when the process ends, however it ends, so there is nothing to
// clean up. Who has it writes its number into it, for the message that the next
// one gets; nothing else depends on that.
func Lock(path string) (*os.File, error) { return lock(path, os.O_CREATE|os.O_RDWR) }

// LockExisting is Lock for a file that must be there.
func LockExisting(path string) (*os.File, error) { return lock(path, os.O_RDWR) }

func lock(path string, flags int) (*os.File, error) {
	f, err := openOwn(path, flags)
	if err != nil {
		return nil, err
	}
	err = take(f)
	if err == nil {
		sign(f)
		return f, nil
	}
	holder := holder(f)
	_ = f.Close()
	if errors.Is(err, ErrLocked) {
		return nil, fmt.Errorf("%w%s", ErrLocked, holder)
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// sign writes who has the lock. On a full disk it stays empty.
func sign(f *os.File) {
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
}

// holder is who has the lock, as the end of a sentence, if it can be told.
func holder(f *os.File) string {
	text := make([]byte, 16)
	n, _ := f.ReadAt(text, 0) // shorter than that
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" by process %d", pid)
}
