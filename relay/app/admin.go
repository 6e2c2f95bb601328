package app

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
)

// AdminSocket is where a daemon with that configuration has its admin socket:
// beside the data, so that whoever may read the one may use the other.
func AdminSocket(c *config.Config) string {
	switch {
	case c.Admin.Socket != "":
		return c.Admin.Socket
	case c.Queue.Mode == config.OnDisk:
		return admin.SocketIn(c.Queue.DataDir)
	default:
		return admin.SocketIn(c.Admin.RuntimeDir)
	}
}

// buildAdmin lets operators, supervisors and monitoring in.
func (p *parts) buildAdmin(ctx context.Context) error {
	o := admin.Options{
		Version: p.opt.Version, Started: p.started, Pace: p.pacer.State, Warming: p.meter.State,
		Notes: p.notes, Log: p.opt.Log, Reload: p.reloads,
		History: p.history, LeftOut: LeftOut(p.config),
	}
	if p.store != nil {
		o.Queue = p.store
	}
	if p.records != nil {
		o.LastDay = func(ctx context.Context, since time.Time) (d admin.LastDay, err error) {
			d.Bounced, d.Complained, err = p.records.BadNews(ctx, since)
			return d, err
		}
	}
	local := admin.New(o)
	p.operators = admin.ServerOptions{
		Admin: local, History: p.pastOf(local), Suppressions: admin.NewSuppressions(p.suppressed), Metrics: p.metrics, Log: p.opt.Log,
		Health: admin.Health{Live: p.health.live, Ready: p.health.ready},
	}
	if err := p.openSocket(ctx); err != nil {
		// Mail goes before comfort: the queue can be looked at when it stops.
		level := slog.LevelError
		if p.config().Admin.Address != "" {
			level = slog.LevelWarn
		}
		p.opt.Log.Log(ctx, level, "there is no admin socket; admin.socket or admin.address give 'smtp2rest status' and 'smtp2rest queue' another way", "cause", err)
	}
	p.admin = newEndpoint("admin.address")
	ready, err := p.prepareAdmin(ctx, p.config())
	if err != nil {
		return err
	}
	p.onStop(p.admin.stop)
	ready.apply()
	return nil
}

// adminSettings are what admin.address takes.
func adminSettings(c *config.Config) any { return []any{c.Admin.Address, access(c.Admin)} }

func access(a config.Admin) admin.Access {
	return admin.Access{Token: a.Token.Reveal(), OpenMetrics: a.Open == config.OpenMetrics, OpenHealth: a.Open != config.OpenNothing}
}

// prepareAdmin has the server at an address that stays keep its connections; a
// new token binds them, too.
func (p *parts) prepareAdmin(ctx context.Context, c *config.Config) (change, error) {
	o := p.operators
	o.Address, o.Access = c.Admin.Address, access(c.Admin)
	ready, err := p.admin.prepare(ctx, o.Address, o.Address, func(ln net.Listener) webServer {
		o.Listener = ln
		return admin.NewServer(o)
	})
	if err != nil {
		return change{}, err
	}
	serve := ready.apply
	ready.apply = func() {
		serve()
		if server, ok := p.admin.serving().(*admin.Server); ok {
			access, _ := server.Prepare(o.Access) // it never fails
			access()
		}
	}
	return ready, nil
}

// openSocket makes the directory for the socket where there is no data
// directory that has it.
func (p *parts) openSocket(ctx context.Context) error {
	o := p.operators
	o.Path = AdminSocket(p.config())
	if p.store == nil && p.config().Admin.Socket == "" {
		if err := os.MkdirAll(filepath.Dir(o.Path), 0o700); err != nil {
			return err
		}
	}
	server := admin.NewServer(o)
	if err := server.Start(ctx); err != nil {
		return err
	}
	p.onStop(func(ctx context.Context) error {
		// A drain that took all its time is no reason to cut an operator off.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endpointDrain)
		defer cancel()
		return server.Stop(ctx)
	})
	return nil
}
