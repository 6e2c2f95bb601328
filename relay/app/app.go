// Package app wires the daemon from a configuration, top to bottom, and holds
// its life: New, Start, Reload, Addrs, Stop. It is the only package that knows both
// the SMTP side and the REST side besides relay/intake, and the only one that
// takes relay/config apart into the other packages' Options.
package app

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/logs"
)

// Options are what an App is made from.
type Options struct {
	Config  *config.Config
	Version string
	Log     *slog.Logger

	// Scratch is set when the queue is meant to be thrown away.
	Scratch bool

	// Load loads the configuration again, for Reload; nil: it cannot be.
	Load func() (*config.Config, error)
	// SetLog changes how Log is written; nil: it stays.
	SetLog func(logs.Settings)
	// OnReload, if set, is told that a reload begins; what it returns, of what
	// came of it and of the addresses that are listened on now. It must not call
	// the App, which may be waited for.
	OnReload func() (done func(at []net.Addr, err error))

	// dial replaces the network on the way to the API, for tests in virtual time.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// App is one daemon. Several can live in one process.
type App struct {
	opt     Options
	metrics *prometheus.Registry // everything's below; two Apps share none
	health  *health

	reloading sync.Mutex // one at a time

	mu      sync.RWMutex
	parts   *parts // nil before Start and after Stop
	stopped bool
}

// New returns an App that is not running. It opens nothing.
func New(o Options) *App {
	metrics := newRegistry(o.Version)
	o.Log = counted(o.Log, metrics)
	return &App{opt: o, metrics: metrics, health: &health{}}
}

// Metrics is where the daemon's metrics can be gathered from Start on.
func (a *App) Metrics() prometheus.Gatherer { return a.metrics }

// Start builds the daemon and begins to serve. When it returns without an
// error clients can connect; on an error nothing is left running. ctx bounds
// the start, not the life.
func (a *App) Start(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.parts != nil || a.stopped {
		return errors.New("the daemon was started before")
	}
	for _, w := range a.opt.Config.Warnings {
		a.opt.Log.Warn("configuration", "warning", w)
	}
	p := newParts(a.opt, a.metrics, a.health)
	p.reloads = a.Reload
	if err := p.build(ctx); err != nil {
		return errors.Join(err, p.stop(ctx))
	}
	a.parts = p
	a.health.set(serving)
	for _, addr := range p.server.Addrs() {
		a.opt.Log.Info("listening", "address", addr.String(), "version", a.opt.Version)
	}
	return nil
}

// Addrs are the addresses that are listened on, in the configuration's order;
// none when the daemon is not running.
func (a *App) Addrs() []net.Addr {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.parts == nil {
		return nil
	}
	return a.parts.server.Addrs()
}

// WebhookAddr is where the provider's events come in; nil when there is no
// endpoint, or the daemon is not running.
func (a *App) WebhookAddr() net.Addr {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.parts == nil {
		return nil
	}
	return a.parts.webhook.addr()
}

// Alive is nil while the daemon makes progress: it is what a watchdog asks. An
// API or a disk that fails is no reason to end a process, which would meet the
// same again; one that hangs is.
func (a *App) Alive(ctx context.Context) error {
	return a.health.live(ctx)
}

// DrainTime is how long Stop should have by the configuration in force, so that
// each call to the API that is under way can end.
func (a *App) DrainTime() time.Duration {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.parts == nil {
		return leastDrain
	}
	return a.parts.drainTime()
}

// Stop ends the daemon in two stages: no new mail, no new calls for queued mail,
// and idle clients told so, then, when ctx ends, sessions that are still under
// way are cut off. A call to the API that has begun ends by its own time-out. It
// waits for all of it. Stop before Start, or twice, is harmless.
func (a *App) Stop(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	if a.parts == nil {
		return nil
	}
	a.health.set(stopping)
	err := a.parts.stop(ctx)
	a.parts = nil
	a.opt.Log.Info("stopped")
	return err
}
