//go:build unix

package admin

import (
	"io/fs"
	"net"
	"os"
	"syscall"
	"testing"
)

func TestOnlyTheOwnerMayOpenTheSocket(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	// Without the Chmod, so that the mode is right from the first moment.
	path := socketPath(t)
	ln, err := (&net.ListenConfig{Control: private}).Listen(t.Context(), "unix", path)
	must(t, err)
	wantMode(t, path)
	must(t, ln.Close())
	_, path = serve(t, fake{})
	wantMode(t, path)
}

func wantMode(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	if got := info.Mode(); got != fs.ModeSocket|0o600 {
		t.Errorf("mode %s, want Srw-------", got)
	}
}
