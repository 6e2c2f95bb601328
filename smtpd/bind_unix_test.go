//go:build unix

package smtpd

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// TestInherited passes sockets on as systemd does, but for their numbers.
func TestInherited(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	first, err := syscall.Dup(int(f.Fd())) // which inherited closes
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"LISTEN_PID": "4711", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "smtp:other"}
	list, err := inherited("smtp", func(name string) string { return env[name] }, 4711, first)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(list[0].Addr()); len(list) != 1 || got != l.Addr().String() {
		t.Errorf("%d sockets, %s", len(list), got)
	}
	_ = list[0].Close()
}

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
