//go:build unix

package admin

import "syscall"

const addrInUse, refused = syscall.EADDRINUSE, syscall.ECONNREFUSED

// private sets the mode of the socket before its file exists, so that nobody else can
// connect in between; the umask may be anything. Linux gives the file the mode of the
// socket. On a system that does not, Chmod follows a moment later.
func private(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), socketMode) })
}
