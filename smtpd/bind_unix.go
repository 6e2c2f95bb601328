//go:build unix

package smtpd

import (
	"io/fs"
	"syscall"
)

// chmodSocket gives a socket a mode before it has a name, where the system knows
// of that.
func chmodSocket(fd uintptr, mode fs.FileMode) { _ = syscall.Fchmod(int(fd), uint32(mode.Perm())) }
