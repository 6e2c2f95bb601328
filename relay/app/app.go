// Package app wires the relay from a configuration and holds its life: New, Start,
// Reload, Addrs, Stop. It is the only package that knows both the SMTP side and the
// REST side besides relay/intake, and the only one that takes relay/config apart
// into the other packages' Options.
//
// build.go has the wiring, from top to bottom. Each step there makes one part and
// says at the same place how the part ends, how it takes a reload and what it adds to
// health and status.
package app

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/logs"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// Options are what an App is made from.
type Options struct {
	Config  *config.Config
	Version string
	Log     *slog.Logger

	// Scratch is set when the queue is meant to be thrown away.
	Scratch bool

	// OpenPage is set where everybody on this machine may see and change everything on
	// the page without a login, as in a sandbox; else "".
	OpenPage string

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

// App is one relay. Several can live in one process.
type App struct {
	opt     Options
	metrics *prometheus.Registry // everything's below; two Apps share none
	health  *health

	reloading sync.Mutex // one at a time

	mu      sync.RWMutex
	running *daemon // nil before Start and after Stop
	stopped bool
}

// New returns an App that is not running. It opens nothing.
func New(o Options) *App {
	metrics := newRegistry(o.Version)
	o.Log = counted(o.Log, metrics)
	return &App{opt: o, metrics: metrics, health: &health{}}
}

// Metrics is where the relay's metrics can be gathered from Start on.
func (a *App) Metrics() prometheus.Gatherer { return a.metrics }

// Start builds the relay and begins to serve. When it returns without an
// error clients can connect; on an error nothing is left running. ctx bounds
// the start, not the life.
func (a *App) Start(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running != nil || a.stopped {
		return errors.New("the daemon was started before")
	}
	for _, w := range a.opt.Config.Warnings {
		a.opt.Log.Warn("configuration", "warning", w)
	}
	d := newDaemon(a.opt, a.metrics, a.health)
	core, err := d.build(ctx)
	if err == nil {
		err = d.listen(ctx, core, a.Reload)
	}
	if err != nil {
		return errors.Join(err, d.stop(ctx))
	}
	a.running = d
	a.health.set(serving)
	for _, addr := range d.smtp.Addrs() {
		a.opt.Log.Info("listening", "address", addr.String(), "version", a.opt.Version)
	}
	return nil
}

// Addrs are the addresses that are listened on, in the configuration's order;
// none when the relay is not running.
func (a *App) Addrs() []net.Addr {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.running == nil {
		return nil
	}
	return a.running.smtp.Addrs()
}

// WebhookAddr is where the provider's events come in; nil when there is no
// endpoint, or the relay is not running.
func (a *App) WebhookAddr() net.Addr {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.running == nil {
		return nil
	}
	return a.running.webhook.addr()
}

// AdminAddr is where the page, health and metrics are; nil when admin.address is not
// set, or the relay is not running.
func (a *App) AdminAddr() net.Addr {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.running == nil {
		return nil
	}
	return a.running.admin.addr()
}

// Alive is nil while the relay makes progress: it is what a watchdog asks. An
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
	if a.running == nil {
		return leastDrain
	}
	return a.running.drainTime()
}

// Stop ends the relay in two stages: no new mail, no new calls for queued mail,
// and idle clients told so, then, when ctx ends, sessions that are still under
// way are cut off. A call to the API that has begun ends by its own time-out. It
// waits for all of it. Stop before Start, or twice, is harmless.
func (a *App) Stop(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	if a.running == nil {
		return nil
	}
	a.health.set(stopping)
	err := a.running.stop(ctx)
	a.running = nil
	a.opt.Log.Info("stopped")
	return err
}

// daemon is one life of the relay: the configuration in force, and how the parts
// that build and listen made end, take a reload and warn. The parts themselves are
// locals of those two.
type daemon struct {
	opt     Options
	metrics *prometheus.Registry
	health  *health
	started time.Time
	conf    atomic.Pointer[config.Config] // in force

	drains   []func(context.Context)       // when the end begins
	stops    []func(context.Context) error // last to first
	reloads  []hook                        // in the order in which they apply
	warnings []warner

	// What has an address.
	smtp           *smtpd.Server
	webhook, admin *endpoint
}

func newDaemon(o Options, metrics *prometheus.Registry, h *health) *daemon {
	d := &daemon{opt: o, metrics: metrics, health: h, started: time.Now()}
	d.conf.Store(o.Config)
	d.opt.Config = nil // what is in force is conf
	return d
}

// config is the configuration in force.
func (d *daemon) config() *config.Config { return d.conf.Load() }

// onDrain has f called when the end begins, before anything is waited for. The end
// of its ctx is that of the drain.
func (d *daemon) onDrain(f func(ctx context.Context)) { d.drains = append(d.drains, f) }

// onStop has f called in the end, after those that come later.
func (d *daemon) onStop(f func(ctx context.Context) error) { d.stops = append(d.stops, f) }

const (
	// leastDrain is how long clients have at least to end what they are at.
	leastDrain = 25 * time.Second
	// afterCall is what is left at the end of it when the last call has ended.
	afterCall = time.Second
)

// drainTime is how long the end has, so that no call that is under way when it begins is
// cut off.
func (d *daemon) drainTime() time.Duration {
	return max(leastDrain, longestCall(d.config())+2*afterCall)
}

// beginStop has no calls begin that the end would cut off. Calls that are under
// way end by themselves while clients are still being served.
func (d *daemon) beginStop(ctx context.Context) {
	for _, f := range d.drains {
		f(ctx)
	}
	d.drains = nil
}

// stop takes apart what was built, last to first: no more mail comes in before
// the queue's workers end, and they end before the store closes.
func (d *daemon) stop(ctx context.Context) error {
	d.beginStop(ctx)
	var errs []error
	for i := len(d.stops) - 1; i >= 0; i-- {
		errs = append(errs, d.stops[i](ctx))
	}
	d.stops = nil
	return errors.Join(errs...)
}
