package owner

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// switchUser becomes another user but keeps the right to enter and read any directory: with
// DynamicUser=yes systemd has the data below /var/lib/private, which only root may
// enter. A binary that was built with cgo cannot keep that right.
func switchUser(uid, gid int) error {
	// Capabilities belong to a thread, so every one of them has to keep and set them.
	switch _, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0); errno {
	case 0:
	case syscall.ENOTSUP:
		return drop(uid, gid)
	default:
		return errno
	}
	if err := drop(uid, gid); err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	sets[0].Effective = 1 << unix.CAP_DAC_READ_SEARCH
	sets[0].Permitted = sets[0].Effective
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets[0])), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
