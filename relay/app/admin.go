package app

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/admin/web"
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
		local.Queue, local.Relays = k.queue, k.relays
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
	forwards := admin.NewForwards(k.forwards, nil)
	if k.forwarder != nil {
		forwards = admin.NewForwards(k.forwards, k.forwarder.Wake)
	}
	return admin.ServerOptions{
		Admin: a, History: admin.NewHistory(past), Suppressions: admin.NewSuppressions(k.suppressed, names...), Forwards: forwards, Metrics: d.metrics, Log: d.opt.Log,
		Health: admin.Health{Live: d.health.live, Ready: d.health.ready},
	}
}

// LeftOut is what of a mail the API is not given, by the configuration as it is
// when it is asked.
func LeftOut(current func() *config.Config) func(raw []byte, m relay.Message) []history.LeftOut {
	return func(raw []byte, m relay.Message) []history.LeftOut {
		parsed, err := mail.Map(raw, m.From, Mapping(current(), m.Account).ForClient(m.Client))
		if err != nil {
			return nil // it is refused, and its attempts say so
		}
		return history.LeftOutOf(parsed.Omissions)
	}
}

// adminSettings are what admin.address takes.
func adminSettings(c *config.Config) any {
	return []any{c.Admin.Address, c.Admin.CertFile, c.Admin.KeyFile, access(c.Admin), pageAccess(c)}
}

// pageAccess says who may log in at the page. Whoever has the token of admin.address may
// do so as well, for it opens the same by other ways.
func pageAccess(c *config.Config) web.Access {
	a := web.Access{Hosts: c.Admin.Hosts}
	for _, o := range c.Operators {
		a.Operators = append(a.Operators, web.Operator{Name: o.Name, Role: web.RoleOf(o.Role), Hash: o.Hash})
	}
	if c.Admin.Token.IsSet() {
		a.Operators = append(a.Operators, web.Operator{Name: "admin.token", Role: web.Operate, Hash: web.Hash(c.Admin.Token.Reveal())})
	}
	return a
}

// newPage makes the page for browsers.
func (d *daemon) newPage(o admin.ServerOptions) *web.Site {
	return web.New(web.Options{Admin: o.Admin, History: o.History, Suppressions: o.Suppressions, Facts: d.facts, Log: d.opt.Log})
}

// facts are the settings in force and the certificates that they name.
func (d *daemon) facts() web.Facts {
	c := d.config()
	var f web.Facts
	for _, s := range c.Describe() {
		f.Settings = append(f.Settings, web.Setting{Path: s.Path, Value: s.Value, Origin: s.Origin, Doc: s.Doc})
	}
	add := func(use, file string) {
		if file != "" {
			f.Certificates = append(f.Certificates, certificateIn(use, file))
		}
	}
	for _, l := range c.Listeners {
		add("SMTP on "+l.Address, l.TLS.CertFile)
	}
	add("events on "+c.Webhook.Address, c.Webhook.CertFile)
	add("this page on "+c.Admin.Address, c.Admin.CertFile)
	return f
}

// certificateIn reads the first certificate of a file, which is the server's own.
func certificateIn(use, file string) web.Certificate {
	out := web.Certificate{Use: use, File: file}
	data, err := os.ReadFile(file)
	if err != nil {
		out.Problem = "it cannot be read: " + err.Error()
		return out
	}
	block, rest := pem.Decode(data)
	for block != nil && block.Type != "CERTIFICATE" {
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		out.Problem = "it has no certificate"
		return out
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		out.Problem = err.Error()
		return out
	}
	out.Until, out.Names = leaf.NotAfter, leaf.DNSNames
	for _, ip := range leaf.IPAddresses {
		out.Names = append(out.Names, ip.String())
	}
	if len(out.Names) == 0 && leaf.Subject.CommonName != "" {
		out.Names = []string{leaf.Subject.CommonName}
	}
	return out
}

func access(a config.Admin) admin.Access {
	return admin.Access{Token: a.Token.Reveal(), OpenMetrics: a.Open == config.OpenMetrics, OpenHealth: a.Open != config.OpenNothing}
}

// prepareAdmin has the server at an address that stays keep its connections; a
// new token binds them, too.
func (d *daemon) prepareAdmin(ctx context.Context, c *config.Config, o admin.ServerOptions, page *web.Site) (change, error) {
	o.Address, o.Access, o.CertFile, o.KeyFile = c.Admin.Address, access(c.Admin), c.Admin.CertFile, c.Admin.KeyFile
	o.Page = page.Handler(func() web.Access {
		a := pageAccess(d.config())
		a.Open = d.opt.OpenPage
		return a
	})
	ready, err := d.admin.prepare(ctx, o.Address, [3]string{o.Address, o.CertFile, o.KeyFile}, func(ln net.Listener) webServer {
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
func (d *daemon) openSocket(ctx context.Context, o admin.ServerOptions, page *web.Site) error {
	c := d.config()
	o.Page = page.Handler(func() web.Access { return web.Access{Open: "admin socket"} })
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
