package main

import (
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// crashBySignal has a crash end the process by SIGABRT, after its stacks. Go's own
// way is exit code 2, which is ours for a wrong command line: a service manager
// that rightly does not try that again would not start a relay again that
// panicked, or that its watchdog ended. No core is written, as secrets would be in
// it.
func crashBySignal() error {
	debug.SetTraceback("crash")
	return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}
