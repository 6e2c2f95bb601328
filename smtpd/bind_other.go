//go:build !unix

package smtpd

import "io/fs"

// chmodSocket does nothing: what is no Unix has no modes.
func chmodSocket(uintptr, fs.FileMode) {}
