//go:build !unix

package smtpd

import (
	"io/fs"
	"net"
)

// chmodSocket does nothing: what is no Unix has no modes.
func chmodSocket(uintptr, fs.FileMode) {}

// readArrived finds nothing here: only what came with what was read before
// counts as too early.
func readArrived(conn net.Conn, p []byte) (int, error) { return readExpired(conn, p) }
