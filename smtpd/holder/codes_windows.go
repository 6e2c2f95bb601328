package holder

import "golang.org/x/sys/windows"

// What the system says of an address that another program has, and of one that
// no program has.
const InUse, Refused = windows.WSAEADDRINUSE, windows.WSAECONNREFUSED
