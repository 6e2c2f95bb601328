package notify

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// manager is a service manager's socket.
func manager(t *testing.T, watchdog string) (*Manager, func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", watchdog)
	t.Setenv("WATCHDOG_PID", "")
	m := New(slog.New(slog.DiscardHandler))
	return m, func() string {
		t.Helper()
		buf := make([]byte, 4096)
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := conn.Read(buf)
		if err != nil {
			return err.Error()
		}
		return string(buf[:n])
	}
}

func TestStates(t *testing.T) {
	m, next := manager(t, "")
	m.Ready("taking mail\non :25")
	if got := next(); got != "READY=1\nSTATUS=taking mail; on :25" {
		t.Errorf("Ready: %q", got)
	}
	m.Reloading()
	got := next()
	state, usec, _ := strings.Cut(strings.TrimSuffix(got, "\nSTATUS=reloading"), "\nMONOTONIC_USEC=")
	if n, err := strconv.ParseInt(usec, 10, 64); state != "RELOADING=1" || err != nil || n <= 0 {
		t.Errorf("Reloading: %q", got)
	}
	m.Stopping("", 35*time.Second)
	if got := next(); got != "STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000" {
		t.Errorf("Stopping: %q", got)
	}
}

// Nobody to tell, and somebody who does not listen, are no trouble.
func TestNobodyListens(t *testing.T) {
	for _, tt := range []struct{ socket, said string }{{"", ""}, {"/nowhere/at/all", "cannot notify the service manager"}} {
		t.Setenv("NOTIFY_SOCKET", tt.socket)
		var log strings.Builder
		m := New(slog.New(slog.NewTextHandler(&log, nil)))
		m.Ready("x")
		m.Watch(t.Context(), func(context.Context) error { t.Error("asked"); return nil })
		if got := log.String(); !strings.Contains(got, tt.said) || tt.said == "" && got != "" {
			t.Errorf("%q: the log is %q", tt.socket, got)
		}
	}
}

func TestWatchdogIsForThisProcess(t *testing.T) {
	for _, tt := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0}, {"x", "", 0}, {"-1", "", 0}, {"30000000", "", 30 * time.Second},
		{"30000000", strconv.Itoa(os.Getpid()), 30 * time.Second}, {"30000000", "1", 0},
	} {
		t.Setenv("WATCHDOG_USEC", tt.usec)
		t.Setenv("WATCHDOG_PID", tt.pid)
		if got := New(slog.New(slog.DiscardHandler)).watchdog; got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

// The pings stop while the daemon does not answer, and come again when it does.
func TestWatch(t *testing.T) {
	m, next := manager(t, "40000")
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error)
	var wg sync.WaitGroup
	wg.Go(func() {
		m.Watch(ctx, func(context.Context) error {
			select {
			case err := <-asked:
				return err
			case <-ctx.Done():
				return nil
			}
		})
	})
	defer wg.Wait()
	defer cancel()
	asked <- nil
	if got := next(); got != "WATCHDOG=1" {
		t.Errorf("alive: %q", got)
	}
	asked <- errors.New("the loop hangs")
	asked <- errors.New("the loop hangs")
	m.Stopping("", 35*time.Second)
	if got := next(); got != "STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000" {
		t.Errorf("the watchdog was told %q of a daemon that hangs", got)
	}
	asked <- nil
	if got := next(); got != "WATCHDOG=1" {
		t.Errorf("alive again: %q", got)
	}
}
