//go:build unix

package smtpd

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A socket at which nobody can connect is refused at the start: mail would wait for a
// relay that says that it listens.
func TestInheritedSocketsThatCannotAccept(t *testing.T) {
	for name, tt := range map[string]struct {
		kind   int
		listen bool
		want   string
	}{
		"a datagram socket":       {syscall.SOCK_DGRAM, false, "cannot listen on systemd:smtp: it is a datagram socket; the .socket unit needs ListenStream="},
		"a socket without listen": {syscall.SOCK_STREAM, false, "cannot listen on systemd:smtp: nobody can connect to the socket; the .socket unit needs ListenStream= and Accept=no"},
		"a socket that listens":   {syscall.SOCK_STREAM, true, ""},
	} {
		fd, err := syscall.Socket(syscall.AF_UNIX, tt.kind, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: filepath.Join(t.TempDir(), "s")}); err != nil {
			t.Fatal(err)
		}
		if tt.listen {
			if err := syscall.Listen(fd, 1); err != nil {
				t.Fatal(err)
			}
		}
		f := os.NewFile(uintptr(fd), name)
		l, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		s := &Server{inherited: map[string][]net.Listener{"smtp": {l}}, socketNames: []string{"smtp"}}
		list, err := s.inherit("smtp")
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		for _, l := range list {
			_ = l.Close()
		}
		if _, err := l.Accept(); tt.want != "" && !strings.Contains(err.Error(), "closed") {
			t.Errorf("%s is still open: %v", name, err)
		}
	}
}

// One that systemd opened at a listener's own address is taken over, or refused, as well.
func TestASocketAtTheAddressThatCannotAccept(t *testing.T) {
	for _, listen := range []bool{false, true} {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
		if listen {
			if err := syscall.Listen(fd, 1); err != nil {
				t.Fatal(err)
			}
		}
		f := os.NewFile(uintptr(fd), "socket")
		l, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		s := &Server{inherited: map[string][]net.Listener{"smtp": {l}}}
		got, err := s.inheritAt(l.Addr().String())
		if (got == l) != listen || (err == nil) != listen {
			t.Errorf("one that listens (%v) is %v, %v", listen, got, err)
		}
		_ = l.Close()
	}
}
