package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/logs"
)

// hook is how one part of the daemon takes part in a reload. A part has a function that
// returns its settings from a configuration; the start uses the same function. A test fails
// for a setting that no hook takes, unless the setting's tag says why it needs a restart.
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

// onReload adds a part to those that a reload prepares: settings is what it takes from
// a configuration, and prepare makes ready to go on with them.
func onReload[S any](d *daemon, name string, settings func(*config.Config) S, prepare func(S) (apply func(), err error)) {
	d.reloads = append(d.reloads, hook{
		name:     name,
		settings: func(c *config.Config) any { return settings(c) },
		prepare: func(_ context.Context, c *config.Config) (change, error) {
			apply, err := prepare(settings(c))
			return change{apply: apply}, err
		},
	})
}

// reload goes on with a configuration, or leaves everything as it is.
func (d *daemon) reload(ctx context.Context, next *config.Config) ([]config.Change, error) {
	changes, err := d.config().WithoutRestart(next)
	if err != nil {
		return nil, err
	}
	var ready []change
	for _, h := range d.reloads {
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
	d.conf.Store(next)
	return changes, nil
}

// errNoReload is returned by a daemon without Options.Load.
var errNoReload = errors.New("this daemon cannot load its configuration again")

// errBetween is returned while no configuration is in force that could be replaced.
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
	case a.running == nil:
		return r, nil, errBetween
	case a.opt.Load == nil:
		return r, nil, errNoReload
	}
	defer func() { at = a.running.smtp.Addrs() }()
	next, err := a.opt.Load()
	if err != nil {
		return r, nil, err
	}
	changes, err := a.running.reload(ctx, next)
	if err != nil {
		return r, nil, err
	}
	r.Warnings = next.Warnings
	for _, c := range changes {
		r.Changes = append(r.Changes, admin.Change{Setting: c.Path, Old: c.Old, New: c.New})
	}
	return r, nil, nil
}

// prepareLog is the log's part of a reload.
func (d *daemon) prepareLog(s logs.Settings) (apply func(), err error) {
	return func() {
		if d.opt.SetLog != nil {
			d.opt.SetLog(s)
		}
	}, nil
}
