//go:build unix

package holder

import "syscall"

// The errors of the system for an address that is in use, and for one on which nobody
// listens.
const InUse, Refused = syscall.EADDRINUSE, syscall.ECONNREFUSED
