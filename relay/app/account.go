package app

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/relay/warm"
)

// accountSettings are what one account at the provider takes from the configuration.
type accountSettings struct {
	client   clientSettings
	pace     pace.Settings
	suppress suppress.Settings
}

// clientSettings are those of the way to the API. The certificates that it trusts are
// still in their file.
type clientSettings struct {
	provider.Connection
	caFile string
}

// account is what one account at the provider has of its own: what one of them
// learns, or has to wait for, concerns no other.
type account struct {
	name         string
	pace         *pace.Pacer // rate, gate and breaker
	suppressions *suppress.List
	warming      *warm.Meter
	attempts     *attempt.Sender // which go by all of these but warming
}

// buildAccount makes an account and puts it where it was before a restart. leaveProbes
// reports whether the queue tests the API while it is down.
func (d *daemon) buildAccount(ctx context.Context, name string, k kept, leaveProbes func() bool) (a account, err error) {
	of := accountOf(name)
	settings, log, metrics := of(d.config()), d.logOf(name), d.metricsOf(name)
	a.name = name

	a.suppressions = suppress.New(suppress.Options{Settings: settings.suppress, Store: k.suppressed.Of(name), Log: log, Metrics: metrics})
	if err := a.suppressions.Start(ctx); err != nil {
		return a, fmt.Errorf("suppressions: %w", err)
	}
	d.onStop(func(context.Context) error { a.suppressions.Stop(); return nil })
	onReload(d, "suppressions", func(c *config.Config) suppress.Settings { return of(c).suppress }, a.suppressions.Prepare)

	connection, err := d.connection(settings.client, metrics)
	if err != nil {
		return a, err
	}
	client, err := d.config().API.Vendor.Client(connection)
	if err != nil {
		return a, fmt.Errorf("api: %w", err)
	}
	d.onStop(func(context.Context) error { client.Close(); return nil })

	plans := func(c *config.Config) []warm.Plan { return c.WarmingOf(name) }
	a.warming = warm.NewFor(name, plans(d.config()))
	onReload(d, "warming", plans, a.warming.Prepare)

	saved := newSavedPace(name, log)
	a.pace = pace.New(pace.Options{Settings: settings.pace, Paused: saved.paused, Log: log, Metrics: metrics})
	onReload(d, "API", func(c *config.Config) clientSettings { return of(c).client }, func(s clientSettings) (func(), error) {
		return d.prepareClient(client, a.pace, s)
	})
	onReload(d, "pace", func(c *config.Config) pace.Settings { return of(c).pace }, a.pace.Prepare)

	if k.queue != nil {
		if err := saved.restore(ctx, k.queue, a.pace); err != nil {
			return a, err
		}
		saved.start(k.queue)
		d.onStop(func(context.Context) error { saved.stop(); return nil })
		if k.account != nil {
			leave, err := a.pace.Share(ctx, k.account(name))
			if err != nil {
				return a, err
			}
			d.onStop(func(context.Context) error { leave(); return nil })
		}
		if err := loadMeter(ctx, a.warming, k.queue); err != nil {
			return a, err
		}
		gauge(metrics, "warming_full_domains", "Domains that are being warmed and have sent their share of today; their ordinary mail waits for tomorrow.", func() float64 { return fullDomains(a.warming) })
	}

	a.attempts = attempt.New(attempt.Options{
		API: client, Pace: a.pace, Suppressions: a.suppressions, History: k.history, LeaveProbes: leaveProbes, Log: log, Metrics: metrics,
	})
	return a, nil
}

// several reports whether there is more than one account. With only one, no log, metric or
// status mentions accounts.
func (d *daemon) several() bool { return len(d.config().Accounts) > 0 }

// logOf returns the log of an account.
func (d *daemon) logOf(account string) *slog.Logger {
	if !d.several() {
		return d.opt.Log
	}
	return d.opt.Log.With("account", relay.AccountName(account))
}

// metricsOf returns where an account's metrics are registered.
func (d *daemon) metricsOf(account string) prometheus.Registerer {
	if !d.several() {
		return d.metrics
	}
	return prometheus.WrapRegistererWith(prometheus.Labels{"account": relay.AccountName(account)}, d.metrics)
}

// connection reads the certificates.
func (d *daemon) connection(s clientSettings, metrics prometheus.Registerer) (c provider.Connection, err error) {
	c = s.Connection
	c.UserAgent, c.Dial, c.Metrics = "smtp2rest/"+d.opt.Version, d.opt.dial, metrics
	c.ExtraCAs, err = readCAs(s.caFile)
	return c, err
}

// prepareClient has the API tested at once: the right key, or another address, may end the trouble.
func (d *daemon) prepareClient(client provider.AccountClient, p *pace.Pacer, s clientSettings) (apply func(), err error) {
	c, err := d.connection(s, nil) // Prepare leaves the metrics
	if err != nil {
		return nil, err
	}
	next, err := client.Prepare(c)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	return func() { next(); p.Probe() }, nil
}

// The marks in which a pause and the rate that was found outlive a restart; those of an
// account but the default one end with '/' and its name.
const (
	markPause = "pace/paused_until"
	markRate  = "pace/rate"
)

// savedPace writes down what a 429 taught, so that a restart does not ask the
// API sooner or faster than it allowed. The pacer must not wait for the disk:
// only the latest pause is kept until it is written.
type savedPace struct {
	suffix string // of the marks' names
	log    *slog.Logger
	latest chan closing // one slot
	done   chan struct{}
	wg     sync.WaitGroup
}

// closing is one time the gate was closed.
type closing struct {
	until  time.Time
	length time.Duration
	rate   float64
}

func newSavedPace(account string, log *slog.Logger) *savedPace {
	suffix := ""
	if account != "" {
		suffix = "/" + account
	}
	return &savedPace{suffix: suffix, log: log, latest: make(chan closing, 1), done: make(chan struct{})}
}

// paused takes the place of a pause that was not written yet. The pacer calls
// it under its lock, so there is never more than one caller.
func (s *savedPace) paused(until time.Time, rate float64) {
	select {
	case <-s.latest:
	default:
	}
	s.latest <- closing{until, time.Until(until), rate}
}

// restore puts the pacer where it was.
func (s *savedPace) restore(ctx context.Context, marks queue.Marks, p *pace.Pacer) error {
	pause, err := marks.Mark(ctx, markPause+s.suffix)
	if err != nil {
		return err
	}
	rate, err := marks.Mark(ctx, markRate+s.suffix)
	if err != nil {
		return err
	}
	// A mark that cannot be read is as good as none: the API will say it again.
	end, long, _ := strings.Cut(pause, " ")
	until, _ := time.Parse(time.RFC3339Nano, end)
	length, _ := time.ParseDuration(long)
	found, _ := strconv.ParseFloat(rate, 64)
	if now := time.Now(); until.Sub(now) > length { // the clock was set back
		until = now.Add(length)
		s.write(marks, closing{until: until, length: length})
	}
	p.Resume(until, found)
	return nil
}

// pauseMark says when a pause ends, and how long it is, because the clock can be set
// back before the next start.
func pauseMark(until time.Time, length time.Duration) string {
	return until.UTC().Format(time.RFC3339Nano) + " " + length.String()
}

func (s *savedPace) start(marks queue.Marks) {
	s.wg.Go(func() {
		for {
			select {
			case c := <-s.latest:
				s.write(marks, c)
			case <-s.done:
				select {
				case c := <-s.latest:
					s.write(marks, c)
				default:
				}
				return
			}
		}
	})
}

// stop writes what was not written yet.
func (s *savedPace) stop() {
	close(s.done)
	s.wg.Wait()
}

func (s *savedPace) write(marks queue.Marks, c closing) {
	ctx := context.Background()
	err := marks.SetMark(ctx, markPause+s.suffix, pauseMark(c.until, c.length))
	if err == nil && c.rate > 0 {
		err = marks.SetMark(ctx, markRate+s.suffix, strconv.FormatFloat(c.rate, 'f', 3, 64))
	}
	if err != nil {
		s.log.Error("the pause that the API asked for cannot be written down", "cause", err)
	}
}

// forgetMeters removes the counts of accounts that there are not any more, when their
// days are over: until then an account can be put back.
func forgetMeters(ctx context.Context, accounts []string, marks queue.Marks) error {
	counts, err := marks.Marks(ctx, warm.Prefix)
	if err != nil {
		return err
	}
	gone := map[string]bool{}
	for name := range counts {
		if account := warm.AccountOf(name); !slices.Contains(accounts, account) {
			gone[account] = true
		}
	}
	for account := range gone {
		if err := loadMeter(ctx, warm.NewFor(account, nil), marks); err != nil {
			return err
		}
	}
	return nil
}

// loadMeter takes over what was sent before a restart and removes the counts
// of days that are over.
func loadMeter(ctx context.Context, m *warm.Meter, marks queue.Marks) error {
	counts, err := marks.Marks(ctx, warm.Prefix)
	if err != nil {
		return err
	}
	m.Load(counts)
	for _, name := range m.Expired(time.Now()) {
		if err := marks.SetMark(ctx, name, ""); err != nil {
			return err
		}
	}
	return nil
}

// fullDomains are those whose ordinary mail waits for tomorrow.
func fullDomains(m *warm.Meter) float64 {
	full := 0
	for _, d := range m.State(time.Now()) {
		if d.Full() {
			full++
		}
	}
	return float64(full)
}

// freshWarming is the meter for mail that is sent while its client waits: no
// settlement counts it durably, so this does. Domains that are not warmed
// cost nothing.
type freshWarming struct {
	*warm.Meter
	marks queue.Marks
	log   *slog.Logger
}

// countTime bounds what a disk that hangs costs the client.
const countTime = 5 * time.Second

// Sent counts one mail.
func (f freshWarming) Sent(domain string, now time.Time) {
	f.Meter.Sent(domain, now)
	name := f.Mark(domain, now)
	if name == "" { // always, without a queue: there is nothing to count in then
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), countTime)
	defer cancel()
	if _, err := f.marks.AddMark(ctx, name, 1); err != nil {
		f.log.Error("a mail of a domain that is being warmed cannot be counted", "domain", domain, "cause", err)
	}
}
