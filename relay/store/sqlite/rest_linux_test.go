//go:build !race

package sqlite

import (
	"os"
	"regexp"
	"runtime/debug"
	"strconv"
	"testing"
)

// private is the memory of the process in MiB, without what is mapped from
// files, and without what Go could give back. SQLite's is not Go's: it counts
// nowhere else.
func private(t *testing.T) int {
	t.Helper()
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	must(t, err)
	m := regexp.MustCompile(`RssAnon:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Skip("the kernel does not say what memory the process has")
	}
	kib, err := strconv.Atoi(string(m[1]))
	must(t, err)
	return kib >> 10
}

// A queue that was busy gives back its memory once it is not: what it keeps does
// not depend on how much it had to do. Under the race detector the process keeps some of the
// detector's own memory, which counts here too.
func TestMemoryIsGivenBack(t *testing.T) {
	s := openQueue(t, t.TempDir(), Options{})
	before := private(t)
	for range 100 {
		for _, m := range testMails(20, 20<<10) {
			must(t, s.Enqueue(ctx, m))
		}
	}
	settleAll(t, s)
	busy := private(t) - before
	if busy < 15 {
		t.Skipf("%d MiB while it is busy: too little to tell", busy)
	}
	until(t, "the memory is given back", func() bool { return private(t)-before <= busy/3 })
}
