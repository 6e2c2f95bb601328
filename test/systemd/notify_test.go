//go:build unix

// Package systemd runs the relay as a service manager does: what it is told, what
// it is given, and what docs/service.md says of it.
package systemd

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// supervisor stands in for systemd: it hears what the daemon says.
type supervisor struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newSupervisor(t *testing.T) *supervisor {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &supervisor{t, conn, path}
}

// next is what the daemon says next, or "" when it says nothing for so long.
func (s *supervisor) next(wait time.Duration) string {
	s.t.Helper()
	buf := make([]byte, 4096)
	_ = s.conn.SetReadDeadline(time.Now().Add(wait))
	n, err := s.conn.Read(buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// want waits for a state and returns it; pings in between are skipped.
func (s *supervisor) want(state string) string {
	s.t.Helper()
	for {
		got := s.next(harness.Patience)
		if strings.HasPrefix(got, state) {
			return got
		}
		if got != "WATCHDOG=1" {
			s.t.Fatalf("the daemon says %q, want %q", got, state)
		}
	}
}

// The whole of a service's life as its manager hears it.
func TestWhatTheServiceManagerHears(t *testing.T) {
	_, env, _ := harness.SandboxProcess(t, "--key", harness.PlantedKey)
	s := newSupervisor(t)
	file := harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n")
	p := harness.Launch(t, harness.Environ(t, append(env, "NOTIFY_SOCKET="+s.path, "WATCHDOG_USEC=400000")...), "serve", "--config", file)
	ready := s.want("READY=1")
	_, address, ok := strings.Cut(ready, "STATUS=taking mail on ")
	if !ok {
		t.Fatalf("it is ready and says %q", ready)
	}
	idle := harness.Dial(t, address) // ready is when clients can connect, not before
	idle.Do("", "220 ")
	if got := s.want("WATCHDOG=1"); got != "WATCHDOG=1" {
		t.Errorf("the watchdog hears %q", got)
	}
	harness.Rewrite(t, file, "[[listener]]\naddress = \"127.0.0.1:0\"\n[limits]\nrecipients = 5\n")
	p.Signal(syscall.SIGHUP)
	if got := s.want("RELOADING=1"); !strings.Contains(got, "\nMONOTONIC_USEC=") {
		t.Errorf("reloading: %q", got)
	}
	if got := s.want("READY=1"); !strings.HasSuffix(got, "taking mail on "+address) {
		t.Errorf("after the reload: %q", got)
	}
	harness.Rewrite(t, file, "[limits]\nrecipients = 0\n")
	p.Signal(syscall.SIGHUP)
	s.want("RELOADING=1")
	if got := s.want("READY=1"); !strings.Contains(got, address+"; the last reload was refused") {
		t.Errorf("after a reload that was refused: %q", got)
	}
	// A process that stands still: nothing more comes than was on its way.
	p.Signal(syscall.SIGSTOP)
	quiet := false
	for range 10 {
		if quiet = s.next(time.Second) == ""; quiet {
			break
		}
	}
	if !quiet {
		t.Error("the watchdog is told that a process which stands still is alive")
	}
	p.Signal(syscall.SIGCONT)
	s.want("WATCHDOG=1")
	p.Signal(syscall.SIGTERM)
	if got := s.want("STOPPING=1"); !regexp.MustCompile(`mail that is being handed over has [1-9][0-9]*s`).MatchString(got) {
		t.Errorf("stopping: %q", got)
	}
	idle.Do("", "421 4.3.2")
	if code := p.Exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// What the watchdog ends, and what panics, ends by a signal: exit code 2, which is
// Go's, is among those after which the unit is not started again.
func TestACrashIsNoWrongCommandLine(t *testing.T) {
	s := harness.ServeSandbox(t, "")
	s.Signal(syscall.SIGABRT)
	s.Exit()
	status, ok := s.Cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGABRT || status.CoreDump() {
		t.Errorf("it ends with %v", s.Cmd.ProcessState)
	}
	if !strings.Contains(s.Err.String(), "SIGABRT: abort") || !strings.Contains(s.Err.String(), "goroutine ") {
		t.Errorf("its stacks are not on standard error:\n%s", s.Err)
	}
}
