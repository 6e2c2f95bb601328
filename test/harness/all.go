package harness

import (
	"cmp"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// All reports whether SMTP2REST_TEST=all is set, as by 'make test-all' and CI. Then no
// test is left out because it takes long, and a test that lacks something fails.
func All() bool { return os.Getenv("SMTP2REST_TEST") == "all" }

// OnlyAll skips a test unless everything is tested; why is the reason.
func OnlyAll(t *testing.T, why string) {
	t.Helper()
	if !All() {
		t.Skipf("left to 'make test-all': %s", why)
	}
}

// Quick has the tests of this process take less time unless everything is tested: their
// files are in memory, and each property is tried 20 times and not 100. Call it first in
// TestMain. The command line, which is read later, still counts. Benchmarks measure a disk.
func Quick() {
	if !All() {
		if !slices.ContainsFunc(os.Args, func(arg string) bool { return strings.HasPrefix(arg, "-test.bench") }) {
			inMemory()
		}
		_ = flag.Set("rapid.checks", "20") // there is no such flag without properties
	}
}

// Disk is the directory for temporary files that have to be on a disk after Quick, too.
func Disk() string {
	if os.Getenv("TMPDIR") == Memory {
		return "/tmp"
	}
	return os.TempDir()
}

// Scaled is how often a test tries something: often when everything is tested, and seldom
// when not.
func Scaled(seldom, often int) int {
	if All() {
		return often
	}
	return seldom
}

// Missing skips a test that lacks something on this machine, or fails it with All.
func Missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if All() {
		t.Fatalf("SMTP2REST_TEST=all, and "+format, args...)
	}
	t.Skipf(format, args...)
}

// Tool returns the path of a program, and ends the test when there is none.
func Tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "%s is not installed", name)
	}
	return path
}

// Needs ends a test when a file is missing. The name can be a pattern.
func Needs(t *testing.T, file string) {
	t.Helper()
	if found, _ := filepath.Glob(file); len(found) == 0 {
		Missing(t, "%s is not installed", file)
	}
}

// Cache is the directory where the scripts in test/ keep what they made: other programs,
// and whole systems.
func Cache() string {
	return cmp.Or(os.Getenv("SMTP2REST_TEST_CACHE"), "/var/cache/smtp2rest-test")
}

// AsRoot skips a test that needs root.
func AsRoot(t *testing.T, what string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skipf("%s runs as root only", what)
	}
}
