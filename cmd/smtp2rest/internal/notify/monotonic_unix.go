//go:build unix

package notify

import "golang.org/x/sys/unix"

// monotonic is CLOCK_MONOTONIC in microseconds.
func monotonic() (usec int64, ok bool) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, false
	}
	return now.Nano() / 1000, true
}
