package app

import (
	"context"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/archive"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/deliver"
	"github.com/smtp2rest/smtp2rest/relay/forward"
	"github.com/smtp2rest/smtp2rest/relay/intake"
	"github.com/smtp2rest/smtp2rest/relay/logs"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/webhook"
	"github.com/smtp2rest/smtp2rest/smtpd"
	"github.com/smtp2rest/smtp2rest/smtpd/budget"
)

// core is the relay without its sockets: what those lead to.
type core struct {
	memory   *budget.Budget
	kept     kept
	accounts []account // the default one first
	intake   *intake.Intake
	users    *users
	events   webhook.Handlers
}

// build makes the relay from top to bottom: the store, the accounts, the queue's workers,
// and intake. Nothing is reachable before listen. After an error, stop ends the parts that
// were built.
func (d *daemon) build(ctx context.Context) (*core, error) {
	c, log := d.config(), d.opt.Log
	onReload(d, "log", func(c *config.Config) logs.Settings { return c.Log }, d.prepareLog)

	d.tellRedirections(redirections(c))
	onReload(d, "redirections", redirections, d.prepareRedirections)
	d.onStatus(func(context.Context, time.Time) []admin.Warning { return redirectWarnings(d.config()) })

	memory := budget.New(c.Limits.Memory, d.metrics)
	stopResting := memory.AtRest(debug.FreeOSMemory) // Go alone gives it back late, and not all of it
	d.onStop(func(context.Context) error { stopResting(); return nil })
	d.onStatus(func(context.Context, time.Time) []admin.Warning { return memoryWarnings(memory.Waiting()) })
	tally := bounce.NewTally(d.metrics) // of senders that were told, or could not be
	d.onStatus(func(_ context.Context, now time.Time) []admin.Warning { return untoldWarnings(tally, d.started, now) })

	copies := archive.NewTally(d.metrics) // for archive_bcc
	d.onStatus(func(_ context.Context, now time.Time) []admin.Warning { return archiveWarnings(copies, d.started, now) })

	aliases, err := newAliases(c.Addresses, log)
	if err != nil {
		return nil, err
	}
	onReload(d, "aliases", aliasSettings, aliases.prepare)

	kept, err := d.openStore(ctx)
	if err != nil {
		return nil, err
	}

	// The queue tests an API that is down. Without an engine, and when that takes
	// no mail, nobody but the clients can.
	var engines *deliver.Group
	var telling *deliver.Engine // of failures that the provider tells later
	var accounts []account
	for _, name := range accountNames(c) {
		a, err := d.buildAccount(ctx, name, kept, func() bool { return engines != nil && engines.Engine(name).TakesMail() })
		if err != nil {
			return nil, err
		}
		accounts = append(accounts, a)
	}
	if kept.queue != nil {
		if err := forgetMeters(ctx, accountNames(c), kept.queue); err != nil {
			return nil, err
		}
	}

	var queued intake.Queue = intake.NoQueue{} // what does not go out at once
	if kept.queue != nil {
		engines = deliver.NewGroup(d.engineOptions(c, kept, accounts, memory, tally, copies)...)
		engines.Start()
		telling = engines.Engine("")
		d.onDrain(func(context.Context) { engines.StopClaiming() })
		d.onStop(func(ctx context.Context) error { engines.Stop(ctx); return nil })
		for _, a := range accounts {
			onReload(d, "engine", func(c *config.Config) deliver.Settings { return engineSettings(c, a.name) }, engines.Engine(a.name).Prepare)
			d.onStatus(func(ctx context.Context, _ time.Time) []admin.Warning { return d.forbidden(ctx, a, kept.queue) })
		}
		d.onStatus(func(context.Context, time.Time) []admin.Warning { return engineWarnings(engines, kept.place) })
		d.onStatus(func(ctx context.Context, _ time.Time) []admin.Warning { return orphanWarnings(ctx, kept.queue, c) })
		logOrphans(log, orphanWarnings(ctx, kept.queue, c))
		d.health.addLive(engines.Alive)
		d.gauge("delivery_alive", "1 while the loop that sends queued mail gets on, or shows that it would if there were any. 0 is a fault of this program.", d.alive)
		queued = engines
	}

	in := intake.New(intake.Options{
		Settings:     intakeSettings(c),
		Attempts:     accounts[0].attempts,
		Suppressions: accounts[0].suppressions,
		Others:       d.others(accounts, kept.queue),
		Queue:        queued,
		Marks:        kept.queue,
		Warming:      freshWarming{accounts[0].warming, kept.queue, d.logOf("")},
		Aliases:      aliases,
		History:      kept.history,
		Tally:        tally,
		Copies:       copies,
		Log:          log,
		Metrics:      d.metrics,
	})
	if err := in.Restore(ctx); err != nil {
		return nil, err
	}
	d.onDrain(func(ctx context.Context) { d.endCalls(ctx, in) })
	d.onStatus(func(_ context.Context, now time.Time) []admin.Warning {
		return refusedFilesWarnings(in.RefusedFiles(), d.started, now)
	})
	onReload(d, "intake", intakeSettings, in.Prepare)

	users, err := d.buildUsers(ctx, kept)
	if err != nil {
		return nil, err
	}

	events := d.buildEvents(c, accounts, telling, kept.forwarder)
	whole := &core{memory, kept, accounts, in, users, events}
	return whole, d.buildNotify(ctx, whole)
}

// engineOptions are those of each account's part of the queue's workers.
func (d *daemon) engineOptions(c *config.Config, kept kept, accounts []account, memory *budget.Budget, tally *bounce.Tally, copies *archive.Tally) []deliver.Options {
	var each []deliver.Options
	for _, a := range accounts {
		each = append(each, deliver.Options{
			Settings: engineSettings(c, a.name),
			Account:  a.name,
			Queue:    kept.queue,
			Attempts: a.attempts,
			Pace:     a.pace,
			Warming:  a.warming,
			Memory:   func() deliver.Memory { return backlogMemory{memory.Share()} },
			History:  kept.history,
			Records:  written{kept.records, kept.recorder},
			Tally:    tally,
			Copies:   copies,
			Log:      d.logOf(a.name),
			Metrics:  d.metricsOf(a.name),
		})
	}
	return each
}

// buildEvents makes what takes the provider's events, for each account at a path of its own.
func (d *daemon) buildEvents(c *config.Config, accounts []account, telling *deliver.Engine, forwarder *forward.Forwarder) webhook.Handlers {
	var events webhook.Handlers
	for _, a := range accounts {
		of := func(c *config.Config) webhook.Settings { return EventSettings(c, a.name) }
		h := webhook.NewHandler(webhook.Options{Settings: of(c), Provider: c.API.Vendor.Events, Taker: taker{a.name, a.suppressions, telling, forwarder}, Log: d.logOf(a.name), Metrics: d.metricsOf(a.name)})
		onReload(d, "events", of, h.Prepare)
		d.onStatus(func(_ context.Context, now time.Time) []admin.Warning {
			return d.about(a.name, eventWarnings(h.Standing(), a.name, now))
		})
		events = append(events, h)
	}
	return events
}

// others are intake's part of all accounts but the default one.
func (d *daemon) others(accounts []account, marks queue.Marks) map[string]intake.Account {
	m := map[string]intake.Account{}
	for _, a := range accounts[1:] {
		m[a.name] = intake.Account{Attempts: a.attempts, Suppressions: a.suppressions, Warming: freshWarming{a.warming, marks, d.logOf(a.name)}}
	}
	return m
}

// endCalls makes sure that fresh mail begins no call which the end of the drain would cut
// off: late in the drain, mail is queued instead.
func (d *daemon) endCalls(drain context.Context, in *intake.Intake) {
	by, bounded := drain.Deadline()
	if !bounded {
		return
	}
	last := time.AfterFunc(time.Until(by)-longestCall(d.config())-afterCall, in.EndCalls)
	context.AfterFunc(drain, func() { last.Stop() })
}

// backlogMemory is the queue's part of the memory that clients use as well.
type backlogMemory struct{ *budget.Share }

func (m backlogMemory) Hold(ctx context.Context, n int64) error {
	return m.Share.Hold(ctx, budget.Backlog, n)
}

// listen opens the sockets: first those for operators and monitoring, so that they can watch
// the start, then those for clients, and then the one for the provider's events. reload is
// what an operator's reload calls.
func (d *daemon) listen(ctx context.Context, core *core, reload func(context.Context) (admin.Reload, error)) error {
	operators := d.operators(core, reload)
	page := d.newPage(operators)
	if err := d.openSocket(ctx, operators, page); err != nil {
		// Mail matters more than the admin socket: a stopped relay's queue can be read without it.
		level := slog.LevelError
		if d.config().Admin.Address != "" {
			level = slog.LevelWarn
		}
		d.opt.Log.Log(ctx, level, "there is no admin socket; admin.socket or admin.address give 'smtp2rest status' and 'smtp2rest queue' another way", "cause", err)
	}
	d.admin = newEndpoint("admin.address")
	d.onStop(d.admin.stop)
	err := d.begin(ctx, hook{"admin", adminSettings, func(ctx context.Context, c *config.Config) (change, error) {
		return d.prepareAdmin(ctx, c, operators, page)
	}})
	if err != nil {
		return err
	}

	options := func(c *config.Config) smtpd.Options {
		o := smtpSettings(c)
		o.Backend, o.Users, o.Memory, o.Log, o.Metrics = core.intake, core.users.of(c), core.memory, d.opt.Log, d.metrics
		return o
	}
	server, err := smtpd.New(options(d.config()))
	if err != nil {
		return err
	}
	if err := server.Start(ctx); err != nil {
		return err
	}
	d.smtp = server
	d.onStop(server.Stop)
	d.reloads = append(d.reloads, hook{"SMTP", func(c *config.Config) any { return smtpSettings(c) }, func(ctx context.Context, c *config.Config) (change, error) {
		ready, err := server.Prepare(ctx, options(c))
		if err != nil {
			return change{}, err
		}
		return change{undo: ready.Undo, apply: func() {
			ready.Apply()
			d.opt.Log.Debug("SMTP goes on", "addresses", server.Addrs())
		}}, nil
	}})

	d.onStatus(func(context.Context, time.Time) []admin.Warning { return socketWarnings(server.UnusedSockets()) })
	d.startSpool(core, server)

	d.webhook = newEndpoint("webhook.address")
	d.onStop(d.webhook.stop)
	return d.begin(ctx, hook{"webhook", webhookSettings, func(ctx context.Context, c *config.Config) (change, error) {
		return d.prepareWebhook(ctx, c, core.events)
	}})
}

// begin starts a part in the way in which a reload changes it.
func (d *daemon) begin(ctx context.Context, h hook) error {
	ready, err := h.prepare(ctx, d.config())
	if err != nil {
		return err
	}
	ready.apply()
	d.reloads = append(d.reloads, h)
	return nil
}

// prepareWebhook is for the endpoint of the provider's events, if there is to be one.
func (d *daemon) prepareWebhook(ctx context.Context, c *config.Config, events webhook.Handlers) (change, error) {
	w := c.Webhook
	var settings any = w.Address
	if w.CertFile != "" {
		settings = nil // what is in the files may be new
	}
	ready, err := d.webhook.prepare(ctx, w.Address, settings, func(ln net.Listener) webServer {
		return webhook.NewServer(webhook.ServerOptions{Listener: ln, CertFile: w.CertFile, KeyFile: w.KeyFile, Log: d.opt.Log, Handler: events})
	})
	if err != nil {
		return change{}, err
	}
	serve := ready.apply
	ready.apply = func() {
		before := d.webhook.addr()
		serve()
		if at := d.webhook.addr(); at != nil && at != before {
			d.opt.Log.Info("listening for events", "address", at.String(), "path", w.Path, "tls", w.CertFile != "")
		}
	}
	return ready, nil
}
