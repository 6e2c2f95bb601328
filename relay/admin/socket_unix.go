//go:build unix

package admin

import "syscall"

const addrInUse, refused = syscall.EADDRINUSE, syscall.ECONNREFUSED

// private gives the socket its mode before it has a name, so that there is no
// moment at which others can connect; the umask, which net would leave it to,
// is not ours to trust. Linux makes the file with the mode of the socket. Where
// a system does not know of that, Chmod comes a moment later.
func private(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), socketMode) })
}
