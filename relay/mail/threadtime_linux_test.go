package mail_test

import (
	"time"

	"golang.org/x/sys/unix"
)

// threadTime returns how long this thread has run.
func threadTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
