//go:build !unix

package notify

// monotonic is not known: this system has no service manager that asks for it.
func monotonic() (usec int64, ok bool) { return 0, false }
