// Package notify tells the service manager how the daemon does (sd_notify(3)),
// and answers its watchdog. Without a service manager it does nothing.
package notify

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Manager is the service manager that started the daemon, if one did.
type Manager struct {
	watchdog time.Duration // how often it must hear that the daemon is alive; 0 is never
	log      *slog.Logger
}

// New reads from the environment which service manager started the daemon.
func New(log *slog.Logger) *Manager {
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the service manager's watchdog is ignored", "cause", err)
	}
	return &Manager{watchdog: watchdog, log: log}
}

// Ready says that clients can connect, or that a reload is over. systemctl status
// shows the status.
func (m *Manager) Ready(status string) { m.send(daemon.SdNotifyReady, status) }

// Reloading says that a reload has begun; Ready ends it.
func (m *Manager) Reloading() {
	now := daemon.SdNotifyMonotonicUsec()
	if now == "" {
		return // Type=notify-reload cannot use it without
	}
	m.send(daemon.SdNotifyReloading+"\n"+strings.TrimSuffix(now, "\n"), "reloading")
}

// Stopping says that the daemon has begun to stop. It asks the service manager to
// wait at least that long for the end, even if the unit's TimeoutStopSec is less.
func (m *Manager) Stopping(status string, within time.Duration) {
	m.send(daemon.SdNotifyStopping+"\nEXTEND_TIMEOUT_USEC="+strconv.FormatInt(within.Microseconds(), 10), status)
}

func (m *Manager) send(state, status string) {
	name, _, _ := strings.Cut(state, "\n")
	if status != "" {
		state += "\nSTATUS=" + strings.ReplaceAll(status, "\n", "; ")
	}
	if _, err := daemon.SdNotify(false, state); err != nil {
		m.log.Warn("cannot notify the service manager", "state", name, "cause", err)
	}
}

// Watch tells the watchdog that the daemon is alive, twice in the time it allows,
// as long as alive returns nil. It returns when ctx ends.
func (m *Manager) Watch(ctx context.Context, alive func(context.Context) error) {
	if m.watchdog == 0 {
		return
	}
	ticker := time.NewTicker(m.watchdog / 2)
	defer ticker.Stop()
	for {
		if err := m.ask(ctx, alive); err != nil && ctx.Err() == nil {
			m.log.Error("the daemon does not answer; its watchdog is not notified, and will end the process", "within", m.watchdog, "cause", err)
		} else {
			m.send(daemon.SdNotifyWatchdog, "")
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
