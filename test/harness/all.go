package harness

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// All says that everything is to be tested, as 'make test-all' and CI do with
// SMTP2REST_TEST=all: what takes long is not left out, and what a test needs of
// the machine must be there.
func All() bool { return os.Getenv("SMTP2REST_TEST") == "all" }

// OnlyAll leaves a test to 'make test-all', with the reason.
func OnlyAll(t *testing.T, why string) {
	t.Helper()
	if !All() {
		t.Skipf("left to 'make test-all': %s", why)
	}
}

// Missing ends a test that lacks something of the machine.
func Missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if All() {
		t.Fatalf("SMTP2REST_TEST=all, and "+format, args...)
	}
	t.Skipf(format, args...)
}

// Tool is where a program is. Without it there is nothing to test.
func Tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "%s is not installed", name)
	}
	return path
}

// Needs ends a test where a file of a library is missing. The name may be a
// pattern.
func Needs(t *testing.T, file string) {
	t.Helper()
	if found, _ := filepath.Glob(file); len(found) == 0 {
		Missing(t, "%s is not installed", file)
	}
}

// Cache is where the scripts in test/ keep what they have made once: other
// programs, and whole systems to run the program in.
func Cache() string {
	return cmp.Or(os.Getenv("SMTP2REST_TEST_CACHE"), "/var/cache/smtp2rest-test")
}

// AsRoot skips what takes root's rights.
func AsRoot(t *testing.T, what string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skipf("%s runs as root only", what)
	}
}
