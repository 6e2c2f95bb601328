//go:build unix

package smtpd

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
)

// chmodSocket gives a socket a mode before it has a name, where the system knows
// of that.
func chmodSocket(fd uintptr, mode fs.FileMode) { _ = syscall.Fchmod(int(fd), uint32(mode.Perm())) }

// canAccept returns why nobody can connect to a socket that another process opened.
func canAccept(l net.Listener) error {
	system, ok := l.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := system.SyscallConn()
	if err != nil {
		return err
	}
	done := raw.Control(func(fd uintptr) {
		// A system that does not know an option says nothing against the socket.
		if kind, unknown := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_TYPE); unknown == nil && kind != syscall.SOCK_STREAM {
			err = errors.New("it is a datagram socket; the .socket unit needs ListenStream=")
			return
		}
		if listens, unknown := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); unknown == nil && listens == 0 {
			err = errors.New("nobody can connect to the socket; the .socket unit needs ListenStream= and Accept=no")
		}
	})
	return errors.Join(err, done)
}

// readArrived reads what has arrived on a connection, without waiting for more.
func readArrived(conn net.Conn, p []byte) (n int, err error) {
	system, ok := conn.(syscall.Conn)
	if !ok {
		return readExpired(conn, p)
	}
	raw, err := system.SyscallConn()
	if err != nil {
		return 0, err
	}
	// net makes its sockets non-blocking; true says not to wait until this one
	// can be read.
	if done := raw.Read(func(fd uintptr) bool { n, err = syscall.Read(int(fd), p); return true }); done != nil {
		return 0, done
	}
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return 0, os.ErrDeadlineExceeded
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}
