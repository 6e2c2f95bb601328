package app

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/deliver"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/intake"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/relay/warm"
	"github.com/smtp2rest/smtp2rest/relay/webhook"
	"github.com/smtp2rest/smtp2rest/smtpd"
	"github.com/smtp2rest/smtp2rest/smtpd/budget"
)

// parts are what a running daemon is made of.
type parts struct {
	opt     Options
	metrics *prometheus.Registry
	health  *health
	started time.Time
	conf    atomic.Pointer[config.Config] // in force

	known
	outbound
	kept
	inbound
	operated

	cleanups []func(context.Context) error // run last to first
}

// known is what is remembered of recipients and of mail that is gone.
type known struct {
	suppressions *suppress.List
	suppressed   suppress.Store    // what keeps them
	records      store.Records     // nil without a queue
	recorder     *history.Recorder // of them
	history      history.Noter     // the recorder, if there is one
	webhook      *endpoint         // where the provider tells what became of mail
	events       *webhook.Handler  // of it
}

// outbound is the way to the API.
type outbound struct {
	client   *nexuspromail.Client
	pacer    *pace.Pacer
	keeper   *gatekeeper // of the pacer's state over a restart
	attempts *attempt.Sender
	meter    *warm.Meter
}

// kept is the queue and what drains it. All but queue are nil without one.
type kept struct {
	queue  intake.Queue // what intake hands over to
	opened *store.Store
	store  store.Queue // of it
	marks  queue.Marks // of it
	engine *deliver.Engine
}

// inbound is the SMTP side.
type inbound struct {
	server  *smtpd.Server
	intake  *intake.Intake
	memory  *budget.Budget
	aliases *aliases
	logins  *users
}

// operated is what operators and monitoring have.
type operated struct {
	tally       *bounce.Tally // of senders that were told, or could not be
	admin       *endpoint
	operators   admin.ServerOptions // of every server for them
	noteSources []func(context.Context, time.Time) []admin.Note
	reloads     func(context.Context) (admin.Reload, error)
}

func newParts(o Options, metrics *prometheus.Registry, h *health) *parts {
	p := &parts{opt: o, metrics: metrics, health: h}
	p.tally = bounce.NewTally(metrics)
	p.conf.Store(o.Config)
	p.opt.Config = nil // what is in force is conf
	return p
}

func (p *parts) onStop(f func(context.Context) error) { p.cleanups = append(p.cleanups, f) }

const (
	// leastDrain is how long clients have at least to end what they are at.
	leastDrain = 25 * time.Second
	// afterCall is what is left at the end of it when the last call has ended.
	afterCall = time.Second
)

// drainTime is how long the end has: what is called for when it begins is not
// cut off.
func (p *parts) drainTime() time.Duration {
	return max(leastDrain, p.config().API.Timeout+2*afterCall)
}

// beginStop has no calls begin that the end would cut off: none for queued mail
// any more, and none for a mail that comes late in the end. Calls that are under
// way end by themselves while clients are still being served. The end of ctx is
// that of the drain; end ends with it.
func (p *parts) beginStop(ctx context.Context) (end func()) {
	if p.engine != nil {
		p.engine.StopClaiming()
	}
	by, bounded := ctx.Deadline()
	if p.intake == nil || !bounded {
		return func() {}
	}
	last := time.AfterFunc(time.Until(by)-p.config().API.Timeout-afterCall, p.intake.EndCalls)
	return func() { last.Stop() }
}

// stop takes apart what was built, last to first: no more mail comes in before
// the queue's workers end, and they end before the store closes.
func (p *parts) stop(ctx context.Context) error {
	defer p.beginStop(ctx)()
	var errs []error
	for i := len(p.cleanups) - 1; i >= 0; i-- {
		errs = append(errs, p.cleanups[i](ctx))
	}
	p.cleanups = nil
	return errors.Join(errs...)
}

func (p *parts) build(ctx context.Context) error {
	p.started = time.Now()
	p.meter = warm.New(p.config().Warming)
	p.memory = budget.New(p.config().Limits.Memory, p.metrics)
	p.tell(p.untoldNotes)
	for _, step := range []func(context.Context) error{p.buildAliases, p.openStore, p.buildRecords, p.buildSuppressions, p.buildAPI, p.buildQueue, p.buildEvents, p.buildAdmin, p.buildServer, p.buildWebhook} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// apiWithoutCAs is all but the content of a file.
func (p *parts) apiWithoutCAs(c *config.Config) nexuspromail.Options {
	a := c.API
	return nexuspromail.Options{
		Endpoint: a.Endpoint, Key: a.Key.Reveal(), UserAgent: "smtp2rest/" + p.opt.Version,
		Timeouts: a.Timeouts, Concurrency: a.Concurrency,
		Dial: p.opt.dial, Metrics: p.metrics,
	}
}

func (p *parts) apiOptions(c *config.Config) (nexuspromail.Options, error) {
	o := p.apiWithoutCAs(c)
	var err error
	o.ExtraCAs, err = ExtraCAs(c)
	return o, err
}

func (p *parts) buildAPI(context.Context) error {
	o, err := p.apiOptions(p.config())
	if err != nil {
		return err
	}
	client, err := nexuspromail.New(o)
	if err != nil {
		return fmt.Errorf("api: %w", err)
	}
	p.client = client
	p.onStop(func(context.Context) error { client.Close(); return nil })
	keeper := newGatekeeper(p.opt.Log)
	p.pacer = pace.New(pace.Options{
		Settings: p.config().API.Settings,
		Paused:   keeper.paused,
		Log:      p.opt.Log,
		Metrics:  p.metrics,
	})
	p.attempts = attempt.New(attempt.Options{
		API: client, Pace: p.pacer, Suppressions: p.suppressions, History: p.history, Log: p.opt.Log, Metrics: p.metrics,
		LeaveProbes: p.leaveProbes,
	})
	p.keeper = keeper
	return nil
}

// leaveProbes reports whether the queue tests an API that is down. Without an
// engine, and when that takes no mail, nobody but the clients can.
func (p *parts) leaveProbes() bool { return p.engine != nil && p.engine.TakesMail() }

// buildQueue starts to drain the queue, if there is one.
func (p *parts) buildQueue(ctx context.Context) error {
	if p.opened == nil {
		p.queue = intake.NoQueue{}
		return nil
	}
	return p.drain(ctx, p.opened.Queue)
}

// drain goes on where the process before this one ended, with the pacer where
// it was.
func (p *parts) drain(ctx context.Context, store store.Queue) error {
	if err := p.keeper.restore(ctx, store, p.pacer); err != nil {
		return err
	}
	p.keeper.start(store)
	p.onStop(func(context.Context) error { p.keeper.stop(); return nil })
	if err := loadMeter(ctx, p.meter, store); err != nil {
		return err
	}
	p.marks, p.store = store, store
	p.metrics.MustRegister(admin.Collector(store))
	p.measure()
	storage := newStorageCheck(store)
	p.onStop(func(context.Context) error { storage.end(); return nil })
	p.tell(func(ctx context.Context, _ time.Time) []admin.Note { return p.storageNotes(ctx, storage) })
	p.tell(p.troubleNotes)
	p.health.watch(p.startEngine(store), storage, store.Writing, p.room)
	p.reconcile(store)
	return nil
}

// openStore opens what is kept, if anything is. It comes before the listeners:
// what could not be kept must not be taken.
func (p *parts) openStore(ctx context.Context) error {
	c := p.config()
	if c.Queue.Mode == config.NoQueue {
		return nil
	}
	s, err := store.Open(ctx, store.SQLite(c.Queue.DataDir), store.Options{Queue: c.Queue.Options, Log: p.opt.Log, Metrics: p.metrics})
	if err != nil {
		return p.dataDirError(err)
	}
	p.warnOfVolatile()
	p.onStop(func(context.Context) error { return s.Close() })
	p.opened = s
	return nil
}

func engineSettings(c *config.Config) deliver.Settings {
	return deliver.Settings{
		Mapping:  Mapping(c),
		Schedule: c.Delivery.Retry,
		// A quarter of the calls at once is left to fresh mail.
		Workers:  c.API.Concurrency - c.API.Concurrency/4,
		KeepSent: c.Queue.KeepSent,
		Bounce:   bounces(c),
		Bounces:  c.Bounce.Bounces,
	}
}

// startEngine returns what tells whether the engine makes progress.
func (p *parts) startEngine(store queue.Queue) (alive func(context.Context) error) {
	p.engine = deliver.New(deliver.Options{
		Settings: engineSettings(p.config()),
		Queue:    store,
		Attempts: p.attempts,
		Pace:     p.pacer,
		Warming:  p.meter,
		History:  p.history,
		Tally:    p.tally,
		Memory:   p.backlogMemory,
		Log:      p.opt.Log,
		Metrics:  p.metrics,
	})
	p.engine.Start()
	p.onStop(func(ctx context.Context) error { p.engine.Stop(ctx); return nil })
	p.queue = p.engine
	return p.engine.Alive
}

func bounces(c *config.Config) bounce.Options {
	o := bounce.Options{From: defaultSender(c), Hostname: c.Hostname}
	if c.Bounce.Postmaster != config.Nobody {
		o.Postmaster = c.Bounce.Postmaster
	}
	return o
}

func intakeSettings(c *config.Config) intake.Settings {
	return intake.Settings{Mapping: Mapping(c), Bounce: bounces(c), Wait: c.Delivery.Wait, Subjects: c.History.Subjects}
}

func (p *parts) backend() *intake.Intake {
	o := intake.Options{
		Settings:     intakeSettings(p.config()),
		Attempts:     p.attempts,
		Suppressions: p.suppressions,
		Queue:        p.queue,
		Warming:      freshWarming{p.meter, p.marks, p.opt.Log},
		History:      p.history,
		Tally:        p.tally,
		Log:          p.opt.Log,
		Metrics:      p.metrics,
	}
	if p.aliases != nil {
		o.Aliases = p.aliases
	}
	if p.marks != nil {
		o.Marks = p.marks
	}
	p.intake = intake.New(o)
	return p.intake
}

func (p *parts) buildServer(ctx context.Context) error {
	c := p.config()
	if err := p.buildUsers(c); err != nil {
		return err
	}
	if err := p.keepLogins(ctx); err != nil {
		return err
	}
	o := smtpSettings(c)
	backend := p.backend()
	if err := backend.Restore(ctx); err != nil {
		return err
	}
	o.Backend, o.Users, o.Log = backend, p.usersOf(c), p.opt.Log
	o.Memory, o.Metrics = p.memory, p.metrics
	server, err := smtpd.New(o)
	if err != nil {
		return err
	}
	if err := server.Start(ctx); err != nil {
		return err
	}
	p.server = server
	p.onStop(server.Stop)
	return nil
}

func defaultSender(c *config.Config) relay.Address {
	return relay.Address{Email: c.Sender.Email, Name: c.Sender.Name}
}
