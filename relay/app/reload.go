package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
)

// hook is where one part of the daemon takes part in a reload. What a new part
// takes from the configuration it takes in a function of its own, which the
// start uses as well, and hooks in here; a test fails for a setting that none
// of the hooks takes and whose field has no tag that says why it takes a restart.
type hook struct {
	name string
	// settings is what the part takes from a configuration. Only a test reads
	// it: a file that a setting names may have changed when no setting did, so
	// that a reload prepares all parts.
	settings func(*config.Config) any
	// prepare does all that can fail. Nothing of it shows before apply.
	prepare func(context.Context, *config.Config) (change, error)
}

// change ends with one of the two; undo may be nil.
type change struct{ apply, undo func() }

// hooks are in the order in which they apply: who may send before what serves.
func (p *parts) hooks() []hook {
	return []hook{
		{"log", func(c *config.Config) any { return c.Log }, p.prepareLog},
		{"API", func(c *config.Config) any { return p.apiSettings(c) }, p.prepareAPI},
		{"pace", func(c *config.Config) any { return c.API.Settings }, each(func(c *config.Config) (func(), error) { return p.pacer.Prepare(c.API.Settings) })},
		{"warming", func(c *config.Config) any { return c.Warming }, each(func(c *config.Config) (func(), error) { return p.meter.Prepare(c.Warming) })},
		{"queue", func(c *config.Config) any { return c.Queue.Options }, p.prepareQueue},
		{"history", func(c *config.Config) any { return c.History.Bounds }, p.prepareHistory},
		{"suppressions", func(c *config.Config) any { return suppressSettings(c) }, each(func(c *config.Config) (func(), error) { return p.suppressions.Prepare(suppressSettings(c)) })},
		{"webhook", webhookSettings, p.prepareWebhook},
		{"admin", func(c *config.Config) any { return adminSettings(c) }, p.prepareAdmin},
		{"aliases", func(c *config.Config) any { return c.Addresses }, p.prepareAliases},
		{"users", func(c *config.Config) any { return userSettings(c) }, p.prepareUsers},
		{"engine", func(c *config.Config) any { return engineSettings(c) }, p.prepareEngine},
		{"intake", func(c *config.Config) any { return intakeSettings(c) }, each(func(c *config.Config) (func(), error) { return p.intake.Prepare(intakeSettings(c)) })},
		{"SMTP", func(c *config.Config) any { return smtpSettings(c) }, p.prepareServer},
	}
}

// each is the prepare of a part that has nothing to undo.
func each(prepare func(*config.Config) (apply func(), err error)) func(context.Context, *config.Config) (change, error) {
	return func(_ context.Context, c *config.Config) (change, error) { return applied(prepare(c)) }
}

// applied is the change of a part that has nothing to undo.
func applied(apply func(), err error) (change, error) { return change{apply: apply}, err }

// reload goes on with a configuration, or leaves everything as it is.
func (p *parts) reload(ctx context.Context, next *config.Config) ([]config.Change, error) {
	changes, err := p.config().WithoutRestart(next)
	if err != nil {
		return nil, err
	}
	var ready []change
	for _, h := range p.hooks() {
		one, err := h.prepare(ctx, next)
		if err != nil {
			for _, c := range ready {
				if c.undo != nil {
					c.undo()
				}
			}
			return nil, err
		}
		ready = append(ready, one)
	}
	for _, c := range ready {
		c.apply()
	}
	p.conf.Store(next)
	return changes, nil
}

// config is the configuration in force.
func (p *parts) config() *config.Config { return p.conf.Load() }

// errNoReload is of a daemon that nobody told where its configuration is.
var errNoReload = errors.New("this daemon cannot load its configuration again")

// errBetween is of a daemon that has no configuration in force to replace.
var errBetween = errors.New("the daemon is starting or being stopped")

// Reload loads the configuration again and goes on with it: all of it, or
// nothing, when anything in it is wrong. No connection and no mail is lost by
// it. What came of it is logged as well.
func (a *App) Reload(ctx context.Context) (admin.Reload, error) {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	began := time.Now()
	done := func([]net.Addr, error) {}
	if a.opt.OnReload != nil {
		done = a.opt.OnReload()
	}
	result, at, err := a.reload(ctx)
	done(at, err)
	if err != nil {
		a.opt.Log.Error("reload: the configuration was not taken; the one from before stays in force", "cause", err)
		return admin.Reload{}, fmt.Errorf("%w:\n%w", admin.ErrNotTaken, err)
	}
	for _, w := range result.Warnings {
		a.opt.Log.Warn("configuration", "warning", w)
	}
	for _, c := range result.Changes {
		a.opt.Log.Info("setting changed", "setting", c.Setting, "from", c.Old, "to", c.New)
	}
	a.opt.Log.Info("reloaded", "changes", len(result.Changes), "duration", time.Since(began))
	return result, nil
}

func (a *App) reload(ctx context.Context) (r admin.Reload, at []net.Addr, err error) {
	// Start and Stop hold the lock for long, and Stop waits for the operator's
	// call that may have brought us here: so nobody waits for them.
	if !a.mu.TryRLock() {
		return r, nil, errBetween
	}
	defer a.mu.RUnlock()
	switch {
	case a.parts == nil:
		return r, nil, errBetween
	case a.opt.Load == nil:
		return r, nil, errNoReload
	}
	defer func() { at = a.parts.server.Addrs() }()
	next, err := a.opt.Load()
	if err != nil {
		return r, nil, err
	}
	changes, err := a.parts.reload(ctx, next)
	if err != nil {
		return r, nil, err
	}
	r.Warnings = next.Warnings
	for _, c := range changes {
		r.Changes = append(r.Changes, admin.Change{Setting: c.Path, Old: c.Old, New: c.New})
	}
	return r, nil, nil
}

func (p *parts) prepareLog(_ context.Context, c *config.Config) (change, error) {
	return change{apply: func() {
		if p.opt.SetLog != nil {
			p.opt.SetLog(c.Log)
		}
	}}, nil
}

func (p *parts) prepareAPI(_ context.Context, c *config.Config) (change, error) {
	o, err := p.apiOptions(c)
	if err != nil {
		return change{}, err
	}
	apply, err := p.client.Prepare(o)
	if err != nil {
		return change{}, fmt.Errorf("api: %w", err)
	}
	return change{apply: func() {
		apply()
		p.pacer.Probe() // the right key, or another address, may mend it
	}}, nil
}

// apiSettings are apiOptions without what is read from a file, so that it
// cannot fail.
func (p *parts) apiSettings(c *config.Config) any {
	return struct {
		options nexuspromail.Options
		caFile  string
	}{p.apiWithoutCAs(c), c.API.CAFile}
}

func (p *parts) prepareAliases(_ context.Context, c *config.Config) (change, error) {
	return applied(p.aliases.prepare(c.Addresses))
}

func (p *parts) prepareUsers(_ context.Context, c *config.Config) (change, error) {
	return applied(p.logins.prepare(c))
}

// nothing is the change of a part that is not there.
func nothing() (change, error) { return change{apply: func() {}}, nil }

func (p *parts) prepareEngine(_ context.Context, c *config.Config) (change, error) {
	if p.engine == nil {
		return nothing()
	}
	return applied(p.engine.Prepare(engineSettings(c)))
}

// prepareQueue is for the queue and for the records beside it.
func (p *parts) prepareQueue(_ context.Context, c *config.Config) (change, error) {
	if p.opened == nil {
		return nothing()
	}
	return applied(p.opened.Prepare(c.Queue.Options))
}

func (p *parts) prepareHistory(_ context.Context, c *config.Config) (change, error) {
	if p.recorder == nil {
		return nothing()
	}
	return applied(p.recorder.Prepare(c.History.Bounds))
}

func (p *parts) prepareServer(ctx context.Context, c *config.Config) (change, error) {
	o := smtpSettings(c)
	o.Users = p.usersOf(c)
	ready, err := p.server.Prepare(ctx, o)
	if err != nil {
		return change{}, err
	}
	return change{apply: func() {
		ready.Apply()
		p.opt.Log.Debug("SMTP goes on", "addresses", p.server.Addrs())
	}, undo: ready.Undo}, nil
}
