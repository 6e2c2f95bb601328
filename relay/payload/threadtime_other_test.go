//go:build !linux

package payload

import "time"

// threadTime stands for what other systems do not count by thread.
func threadTime() time.Duration { return time.Duration(time.Now().UnixNano()) }
