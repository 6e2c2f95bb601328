package app

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/mail"
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

// adminOptions are what an operator can be told, and do.
func (d *daemon) adminOptions(c *core) admin.Options {
	k := c.kept
	local := admin.Options{
		Version: d.opt.Version, Started: d.started, Pace: c.accounts[0].pace.State, Warming: c.accounts[0].warming.State,
		Warnings: d.status, Log: d.opt.Log,
		History: k.history, LeftOut: LeftOut(d.config),
	}
	for _, a := range c.accounts[1:] {
		local.Others = append(local.Others, admin.AccountOptions{Name: a.name, Pace: a.pace.State, Warming: a.warming.State})
	}
	if k.queue != nil {
		local.Queue = k.queue
		local.LastDay = func(ctx context.Context, since time.Time) (day admin.LastDay, err error) {
			day.Bounced, day.Complained, err = k.records.BadNews(ctx, since)
			return day, err
		}
	}
	return local
}

// operators are what every server for operators, supervisors and monitoring has.
func (d *daemon) operators(c *core, reload func(context.Context) (admin.Reload, error)) admin.ServerOptions {
	k, local := c.kept, d.adminOptions(c)
	local.Reload = reload
	names := []string{""}
	for _, a := range c.accounts[1:] {
		names = append(names, a.name)
	}
	past := admin.HistoryOptions{}
	if k.queue != nil {
		past.Store, past.Flush = k.records, k.recorder.Flush
	}
	a := admin.New(local)
	past.Admin = a
	return admin.ServerOptions{
		Admin: a, History: admin.NewHistory(past), Suppressions: admin.NewSuppressions(k.suppressed, names...), Metrics: d.metrics, Log: d.opt.Log,
		Health: admin.Health{Live: d.health.live, Ready: d.health.ready},
	}
}

// LeftOut is what of a mail the API is not given, by the configuration as it is
// when it is asked.
func LeftOut(current func() *config.Config) func(raw []byte, from string) []history.LeftOut {
	return func(raw []byte, from string) []history.LeftOut {
		parsed, err := mail.Map(raw, from, Mapping(current(), "").Options)
		if err != nil {
			return nil // it is refused, and its attempts say so
		}
		return history.LeftOutOf(parsed.Omissions)
	}
}

// adminSettings are what admin.address takes.
func adminSettings(c *config.Config) any { return []any{c.Admin.Address, access(c.Admin)} }

func access(a config.Admin) admin.Access {
	return admin.Access{Token: a.Token.Reveal(), OpenMetrics: a.Open == config.OpenMetrics, OpenHealth: a.Open != config.OpenNothing}
}

// prepareAdmin has the server at an address that stays keep its connections; a
// new token binds them, too.
func (d *daemon) prepareAdmin(ctx context.Context, c *config.Config, o admin.ServerOptions) (change, error) {
	o.Address, o.Access = c.Admin.Address, access(c.Admin)
	ready, err := d.admin.prepare(ctx, o.Address, o.Address, func(ln net.Listener) webServer {
		o.Listener = ln
		return admin.NewServer(o)
	})
	if err != nil {
		return change{}, err
	}
	serve := ready.apply
	ready.apply = func() {
		serve()
		if server, ok := d.admin.serving().(*admin.Server); ok {
			access, _ := server.Prepare(o.Access) // it never fails
			access()
		}
	}
	return ready, nil
}

// openSocket makes the directory for the socket where no store in it has made it.
func (d *daemon) openSocket(ctx context.Context, o admin.ServerOptions) error {
	c := d.config()
	o.Path = AdminSocket(c)
	if (c.Queue.Mode == config.NoQueue || c.Store.URL.IsSet()) && c.Admin.Socket == "" {
		if err := os.MkdirAll(filepath.Dir(o.Path), 0o700); err != nil {
			return err
		}
	}
	server := admin.NewServer(o)
	if err := server.Start(ctx); err != nil {
		return err
	}
	d.onStop(func(ctx context.Context) error {
		// A drain that took all its time is no reason to cut an operator off.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endpointDrain)
		defer cancel()
		return server.Stop(ctx)
	})
	return nil
}
