package main

import (
	"runtime/debug"

	"github.com/smtp2rest/smtp2rest/relay/config"
)

// otherMemory is what the process takes besides mail in flight: its code's
// data, the storage, calls to the API, and what the garbage collector needs to
// be left alone. Measured idle: TestMemoryUnderFlood prints it.
const otherMemory = 20 << 20

// boundMemory has the garbage collector keep the process to the memory that the
// settings allow: left to itself it lets the heap grow to twice what is in
// use. Who sets GOMEMLIMIT knows better.
func boundMemory(t *terminal, cfg *config.Config) {
	if _, set := t.env("GOMEMLIMIT"); !set {
		debug.SetMemoryLimit(cfg.Limits.Memory + otherMemory)
	}
}
