//go:build unix

package smtpd

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// From its first moment the socket is open to no more than its mode says,
// whatever the umask is.
func TestUnixSocketBeforeItsMode(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux makes a socket's file with the mode of the socket")
	}
	defer syscall.Umask(syscall.Umask(0))
	for _, mode := range []os.FileMode{0o600, 0o660, 0o666} {
		path := filepath.Join(t.TempDir(), "smtp")
		l, err := bindUnix(t.Context(), path, mode)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%v, %v, want %v", info.Mode(), err, mode)
		}
		_ = l.Close()
	}
}
