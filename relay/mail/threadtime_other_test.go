//go:build !linux

package mail_test

import "time"

// threadTime stands for what other systems do not count by thread.
func threadTime() time.Duration { return time.Duration(time.Now().UnixNano()) }
