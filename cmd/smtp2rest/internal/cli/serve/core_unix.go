//go:build unix

package serve

import "golang.org/x/sys/unix"

func disableCoreDumps() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }
