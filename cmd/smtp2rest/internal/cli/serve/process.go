package serve

import (
	"runtime/debug"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/config"
)

// crashBySignal has a crash end the process by SIGABRT, after its stacks. Go's own
// way is exit code 2, which is ours for a wrong command line: a service manager
// that rightly does not try that again would not start a relay again that
// panicked, or that its watchdog ended. No core is written, as secrets would be in
// it.
func crashBySignal() error {
	debug.SetTraceback("crash")
	return noCore()
}

// otherMemory is what the process takes besides mail in flight: its code's
// data, the storage, calls to the API, and what the garbage collector needs to
// be left alone. Measured idle: TestMemoryUnderFlood prints it.
const otherMemory = 20 << 20

// boundMemory has the garbage collector keep the process to the memory that the
// settings allow: left to itself it lets the heap grow to twice what is in
// use. Who sets GOMEMLIMIT knows better.
func boundMemory(t *terminal.Terminal, cfg *config.Config) {
	if _, set := t.Env("GOMEMLIMIT"); !set {
		debug.SetMemoryLimit(cfg.Limits.Memory + otherMemory)
	}
}
