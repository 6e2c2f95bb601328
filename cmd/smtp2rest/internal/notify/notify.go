// Package notify tells the service manager how the daemon does, by the
// protocol of sd_notify(3): a datagram of lines to the socket that
// NOTIFY_SOCKET names. It is so little that a library would be more to read.
// Without a service manager all of it does nothing.
package notify

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Manager is who started the daemon. The zero Manager is nobody.
type Manager struct {
	socket   string
	watchdog time.Duration // 0: none is asked for
	log      *slog.Logger
}

// Options are what a Manager is made from.
type Options struct {
	Env func(string) (string, bool) // os.LookupEnv
	Log *slog.Logger
}

// New finds out who started the daemon.
func New(o Options) *Manager {
	m := &Manager{log: o.Log}
	m.socket, _ = o.Env("NOTIFY_SOCKET")
	m.watchdog = watchdog(o.Env)
	return m
}

// watchdog is sd_watchdog_enabled(3).
func watchdog(env func(string) (string, bool)) time.Duration {
	if pid, ok := env("WATCHDOG_PID"); ok && pid != strconv.Itoa(os.Getpid()) {
		return 0 // meant for a process that started us
	}
	text, _ := env("WATCHDOG_USEC")
	usec, err := strconv.ParseInt(text, 10, 64)
	if err != nil || usec <= 0 {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}

// Ready says that clients can connect, or that a reload is over.
func (m *Manager) Ready(status string) { m.send("READY=1", status) }

// Reloading says that a reload has begun; Ready ends it.
func (m *Manager) Reloading() {
	usec, ok := monotonic()
	if !ok {
		return // Type=notify-reload cannot use it without
	}
	m.send("RELOADING=1\nMONOTONIC_USEC="+strconv.FormatInt(usec, 10), "reloading")
}

// Stopping says that the end has begun, and has systemd wait for it so long,
// should its unit say less (TimeoutStopSec).
func (m *Manager) Stopping(status string, within time.Duration) {
	m.send("STOPPING=1\nEXTEND_TIMEOUT_USEC="+strconv.FormatInt(within.Microseconds(), 10), status)
}

func (m *Manager) send(state, status string) {
	if m.socket == "" {
		return
	}
	if status != "" {
		state += "\nSTATUS=" + strings.ReplaceAll(status, "\n", "; ")
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"}) // "@" is an abstract one
	if err == nil {
		_, err = conn.Write([]byte(state))
		_ = conn.Close()
	}
	if err != nil {
		m.log.Warn("the service manager cannot be told", "socket", m.socket, "state", strings.SplitN(state, "\n", 2)[0], "cause", err)
	}
}

// Watch tells the service manager's watchdog that the daemon is alive, at half
// the time it wants to hear of it, as long as alive says so. It returns when
// ctx ends.
func (m *Manager) Watch(ctx context.Context, alive func(context.Context) error) {
	if m.socket == "" || m.watchdog == 0 {
		return
	}
	ticker := time.NewTicker(m.watchdog / 2)
	defer ticker.Stop()
	for {
		if err := m.ask(ctx, alive); err != nil && ctx.Err() == nil {
			m.log.Error("the watchdog is not told that the daemon is alive; it will end the process", "within", m.watchdog, "cause", err)
		} else {
			m.send("WATCHDOG=1", "")
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// ask gives alive a quarter of the watchdog's time.
func (m *Manager) ask(ctx context.Context, alive func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, m.watchdog/4)
	defer cancel()
	return alive(ctx)
}
