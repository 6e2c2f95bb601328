package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/api"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/deliver"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/intake"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/retry"
	"github.com/smtp2rest/smtp2rest/relay/store/records"
	"github.com/smtp2rest/smtp2rest/relay/store/sqlite"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/relay/warm"
	"github.com/smtp2rest/smtp2rest/relay/webhook"
	"github.com/smtp2rest/smtp2rest/smtpd"
	"github.com/smtp2rest/smtp2rest/smtpd/budget"
)

// leaseMargin is what an attempt may take beyond the API's time-out: mapping
// the mail and writing down what came of it.
const leaseMargin = time.Minute

// parts are what a running daemon is made of, in the order of building.
type parts struct {
	opt          Options
	metrics      *prometheus.Registry
	suppressions *suppress.List
	records      *records.Store    // nil without a queue
	recorder     *history.Recorder // of them
	history      history.Noter     // the recorder, if there is one
	pacer        *pace.Pacer
	keeper       *gatekeeper
	attempts     *attempt.Sender
	meter        *warm.Meter
	memory       *budget.Budget
	queue        intake.Queue
	aliases      intake.Aliases
	marks        queue.Marks // nil without a queue
	store        queue.Queue // the same
	health       *health
	noteSources  []func(context.Context, time.Time) []admin.Note
	admin        []net.Addr // where it is served
	server       *smtpd.Server
	started      time.Time
	suppressed   suppress.Store  // what keeps suppressions
	webhook      *webhook.Server // nil without an endpoint

	cleanups []func(context.Context) error // run last to first
}

func (p *parts) onStop(f func(context.Context) error) { p.cleanups = append(p.cleanups, f) }

// stop takes apart what was built, last to first: no more mail comes in before
// the queue's workers end, and they end before the store closes.
func (p *parts) stop(ctx context.Context) error {
	var errs []error
	for i := len(p.cleanups) - 1; i >= 0; i-- {
		errs = append(errs, p.cleanups[i](ctx))
	}
	p.cleanups = nil
	return errors.Join(errs...)
}

func (p *parts) build(ctx context.Context) error {
	p.started = time.Now()
	p.meter = newMeter(p.opt.Config.Warming)
	p.memory = budget.New(p.opt.Config.Limits.Memory, p.metrics)
	for _, step := range []func(context.Context) error{p.buildAliases, p.buildRecords, p.buildSuppressions, p.buildAPI, p.buildQueue, p.buildAdmin, p.buildServer, p.buildWebhook} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *parts) buildAPI(context.Context) error {
	c := p.opt.Config.API
	var cas []byte
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return fmt.Errorf("api.ca_file: %w", err)
		}
		cas = pem
	}
	client, err := api.New(api.Options{
		URL: c.URL, Path: c.Path, Key: c.Key.Reveal(), UserAgent: "smtp2rest/" + p.opt.Version,
		Timeout: c.Timeout, ConnectTimeout: c.ConnectTimeout, Concurrency: c.Concurrency, ExtraCAs: cas,
		Dial: p.opt.dial, Metrics: p.metrics,
	})
	if err != nil {
		return fmt.Errorf("api: %w", err)
	}
	p.onStop(func(context.Context) error { client.Close(); return nil })
	keeper := newGatekeeper(p.opt.Log)
	p.pacer = pace.New(pace.Options{
		Rate: c.Rate, Burst: c.Burst, Concurrency: c.Concurrency, MaxPause: c.MaxRetryAfter,
		Paused: keeper.paused, Log: p.opt.Log, Metrics: p.metrics,
	})
	p.attempts = attempt.New(attempt.Options{
		API: client, Pace: p.pacer, Suppressions: p.suppressions, History: p.history, Log: p.opt.Log, Metrics: p.metrics,
		LeaveProbes: p.opt.Config.Queue.Mode == config.OnDisk,
	})
	p.keeper = keeper
	return nil
}

// buildQueue opens the store, puts the pacer where it was before a restart and
// starts to drain. The store is opened before the listeners: what could not be
// kept must not be taken.
func (p *parts) buildQueue(ctx context.Context) error {
	if p.opt.Config.Queue.Mode == config.NoQueue {
		p.queue = intake.NoQueue{}
		return nil
	}
	store, err := p.openStore()
	if err != nil {
		return err
	}
	return p.drain(ctx, store)
}

// drain goes on where the process before this one ended.
func (p *parts) drain(ctx context.Context, store queue.Queue) error {
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
	storage := newStorageCheck(store)
	p.onStop(func(context.Context) error { storage.end(); return nil })
	p.tell(func(ctx context.Context, _ time.Time) []admin.Note { return p.storageNotes(ctx, storage) })
	p.health.watch(p.startEngine(store), storage)
	return nil
}

func (p *parts) openStore() (queue.Queue, error) {
	c := p.opt.Config.Queue
	store, err := sqlite.Open(sqlite.Options{
		Dir:     c.DataDir,
		Queue:   queue.Options{MaxMails: int64(c.MaxMails), MaxBytes: c.MaxSize, ForgetSent: c.KeepSent == 0},
		MinFree: c.MinFree,
		Log:     p.opt.Log,
		Metrics: p.metrics,
	})
	if err != nil {
		return nil, p.dataDirError(err)
	}
	p.onStop(func(context.Context) error { return store.Close() })
	return store, nil
}

// dataDirError says of what cannot be opened which setting leads there.
func (p *parts) dataDirError(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w; name a directory that this user may write to, by queue.data_dir or SMTP2REST_DATA_DIR", err)
	}
	return fmt.Errorf("queue.data_dir %s: %w", p.opt.Config.Queue.DataDir, err)
}

// startEngine returns what tells whether the engine makes progress.
func (p *parts) startEngine(store queue.Queue) (alive func(context.Context) error) {
	c := p.opt.Config
	engine := deliver.New(deliver.Options{
		Queue:    store,
		Attempts: p.attempts,
		Pace:     p.pacer,
		Mapping:  Mapping(c),
		Schedule: retry.Schedule{First: c.Delivery.Retry.First, Max: c.Delivery.Retry.Max, MaxAge: c.Delivery.Retry.MaxAge},
		Warming:  p.warming(),
		// A quarter of the calls at once is left to fresh mail.
		Workers:        c.API.Concurrency - c.API.Concurrency/4,
		Lease:          c.API.Timeout + leaseMargin,
		KeepSent:       c.Queue.KeepSent,
		Bounce:         p.bounces(),
		BounceGrace:    c.Bounce.Grace,
		BouncesPerHour: c.Bounce.PerHour,
		History:        p.history,
		Log:            p.opt.Log,
		Metrics:        p.metrics,
	})
	engine.Start()
	p.onStop(func(ctx context.Context) error { engine.Stop(ctx); return nil })
	p.queue = engine
	return engine.Alive
}

// warming is nil when no domain is being warmed, so that nothing is asked for
// each mail.
func (p *parts) warming() deliver.Warming {
	if len(p.opt.Config.Warming) == 0 {
		return nil
	}
	return p.meter
}

func (p *parts) bounces() bounce.Options {
	c := p.opt.Config
	o := bounce.Options{From: defaultSender(c), Hostname: c.Hostname}
	if c.Bounce.Postmaster != config.Nobody {
		o.Postmaster = c.Bounce.Postmaster
	}
	return o
}

func (p *parts) backend() *intake.Intake {
	c := p.opt.Config
	return intake.New(intake.Options{
		Aliases:      p.aliases,
		Mapping:      Mapping(c),
		Attempts:     p.attempts,
		Suppressions: p.suppressions,
		Queue:        p.queue,
		Warming:      freshWarming{p.meter, p.marks, p.opt.Log},
		Bounce:       p.bounces(),
		Wait:         c.Delivery.Wait,
		History:      p.history,
		Subjects:     c.History.Subjects,
		Log:          p.opt.Log,
		Metrics:      p.metrics,
	})
}

func (p *parts) buildServer(ctx context.Context) error {
	c := p.opt.Config
	users, err := p.users()
	if err != nil {
		return err
	}
	server, err := smtpd.New(smtpd.Options{
		Backend:       p.backend(),
		Users:         users,
		Hostname:      c.Hostname,
		Listeners:     listeners(c.Listeners),
		Limits:        limits(c.Limits),
		Memory:        p.memory,
		Metrics:       p.metrics,
		Log:           p.opt.Log,
		Rules:         c.Rules.Policy(),
		QualifyDomain: c.Addresses.QualifyDomain,
	})
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
