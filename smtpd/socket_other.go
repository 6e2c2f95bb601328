//go:build !unix

package smtpd

import (
	"io/fs"
	"net"
)

// chmodSocket does nothing: what is no Unix has no modes.
func chmodSocket(uintptr, fs.FileMode) {}

// canAccept knows nothing against a socket here: there is no systemd.
func canAccept(net.Listener) error { return nil }

// readArrived finds nothing here: only what came with what was read before
// counts as too early.
func readArrived(conn net.Conn, p []byte) (int, error) { return readExpired(conn, p) }
