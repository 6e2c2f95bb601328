package holder

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What the kernel of a machine said; 0100007F is 127.0.0.1.
const (
	table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0A21 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:0A21 0100007F:8C52 01 00000000:00000000 00:00000000 00000000   101        0 4712 1 0000000000000000 100 0 0 10 0
   2: 0100007F:0A22 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65534        0 4716 1 0000000000000000 100 0 0 10 0
   3: 00000000:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0000000000000000 100 0 0 10 0
`
	table6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:0A21 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   102        0 4714 1 0000000000000000 100 0 0 10 0
   1: 0000000000000000FFFF00000201000A:1F40 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   103        0 4715 1 0000000000000000 100 0 0 10 0
`
)

func TestFind(t *testing.T) {
	proc := t.TempDir()
	write := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(proc, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("self/net/tcp", table+"a line that is cut sho")
	write("self/net/tcp6", table6)
	write("812/comm", "exim4\n")
	if err := os.Mkdir(filepath.Join(proc, "812/fd"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("socket:[4713]", filepath.Join(proc, "812/fd/5")); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"127.0.0.1:25":   "exim4 (pid 812)", // who listens everywhere is in the way
		":25":            "exim4 (pid 812)",
		"0.0.0.0:2593":   "a program of the user with uid 101",
		"127.0.0.1:2593": "a program of the user with uid 101",
		"[::1]:2593":     "a program of the user with uid 102",
		"10.0.1.2:8000":  "a program of the user with uid 103",
		"localhost:2593": "a program of the user with uid 101",
		"127.0.0.1:2594": "", // of a user whom nobody can name
		"10.0.1.3:8000":  "",
		"127.0.0.1:26":   "",
	} {
		host, port, err := split(address)
		if err != nil {
			t.Fatal(err)
		}
		got := find(proc, host, port, time.Now().Add(time.Minute))
		if _, name, found := strings.Cut(got, "of the user "); found && !strings.HasPrefix(name, "with uid ") {
			t.Skipf("this machine has a user of an id of the table: %s", got)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
	if got := find(proc, netip.Addr{}, 25, time.Now().Add(-time.Second)); got == "exim4 (pid 812)" {
		t.Error("it looks on when its time is over")
	}
	for _, wrong := range []string{"", "25", "x:smtp", ":"} {
		if got := Of(wrong); wrong != "25" && got != "" {
			t.Errorf("%q is held by %q", wrong, got)
		}
	}
}

// The real thing, where there is a /proc.
func TestOf(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has this /proc")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if got := Of(l.Addr().String()); got != "this daemon itself" {
		t.Errorf("it is held by %q", got)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "60")
	child.ExtraFiles = []*os.File{f}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	at := l.Addr().String()
	_, _ = l.Close(), f.Close()
	if got, want := Of(at), "sleep (pid "+strconv.Itoa(child.Process.Pid)+")"; got != want {
		t.Errorf("it is held by %q, want %q", got, want)
	}
}
