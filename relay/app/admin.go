package app

import (
	"context"
	"log/slog"
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
	c := p.opt.Config.Admin
	local := admin.New(o)
	common := admin.ServerOptions{
		Admin: local, History: p.pastOf(local), Suppressions: admin.NewSuppressions(p.suppressed), Metrics: p.metrics, Log: p.opt.Log,
		Health: admin.Health{Live: p.health.live, Ready: p.health.ready},
	}
	onSocket, onTCP := common, common
	onSocket.Path = AdminSocket(p.opt.Config)
	if err := p.openSocket(ctx, onSocket); err != nil {
		// Mail goes before comfort: the queue can be looked at when it stops.
		level := slog.LevelError
		if c.Address != "" {
			level = slog.LevelWarn
		}
		p.opt.Log.Log(ctx, level, "there is no admin socket; admin.socket or admin.address give 'smtp2rest status' and 'smtp2rest queue' another way", "cause", err)
	}
	if c.Address == "" {
		return nil
	}
	onTCP.Address, onTCP.Token = c.Address, c.Token.Reveal()
	onTCP.OpenMetrics = c.Open == config.OpenMetrics
	onTCP.OpenHealth = c.Open != config.OpenNothing
	return p.serveAdmin(ctx, onTCP)
}

// openSocket makes the directory for the socket where there is no data
// directory that has it.
func (p *parts) openSocket(ctx context.Context, o admin.ServerOptions) error {
	if p.store == nil && p.opt.Config.Admin.Socket == "" {
		if err := os.MkdirAll(filepath.Dir(o.Path), 0o700); err != nil {
			return err
		}
	}
	return p.serveAdmin(ctx, o)
}

func (p *parts) serveAdmin(ctx context.Context, o admin.ServerOptions) error {
	server := admin.NewServer(o)
	if err := server.Start(ctx); err != nil {
		return err
	}
	p.admin = append(p.admin, server.Addr())
	p.onStop(func(ctx context.Context) error {
		// A drain that took all its time is no reason to cut an operator off.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		return server.Stop(ctx)
	})
	return nil
}
