package holder

import "golang.org/x/sys/windows"

// The errors of the system for an address that is in use, and for one on which nobody
// listens.
const InUse, Refused = windows.WSAEADDRINUSE, windows.WSAECONNREFUSED
