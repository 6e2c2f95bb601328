//go:build unix

package holder

import "syscall"

// What the system says of an address that another program has, and of one that
// no program has.
const InUse, Refused = syscall.EADDRINUSE, syscall.ECONNREFUSED
