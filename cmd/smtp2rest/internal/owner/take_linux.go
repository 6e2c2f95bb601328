package owner

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// take keeps the right to go through any directory and to read: with
// DynamicUser=yes systemd has the data below /var/lib/private, where nobody but
// root may go. A binary that was built with cgo cannot keep it.
func take(uid, gid int) error {
	keep := func() error { // for each thread, because the kernel has it so
		_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0)
		return ofErrno(errno)
	}
	switch err := keep(); {
	case errors.Is(err, syscall.ENOTSUP):
		return drop(uid, gid)
	case err != nil:
		return err
	}
	if err := drop(uid, gid); err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	sets[0].Effective = 1 << unix.CAP_DAC_READ_SEARCH
	sets[0].Permitted = sets[0].Effective
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets[0])), 0)
	return ofErrno(errno)
}

func ofErrno(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
