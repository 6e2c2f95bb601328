//go:build !linux

package mail_test

import "time"

// threadTime returns the wall clock, because other systems do not count by thread.
func threadTime() time.Duration { return time.Duration(time.Now().UnixNano()) }
