// Package pace holds all API calls to what the account allows. It has a token
// bucket for the rate, a limit on concurrent calls, a gate that a 429 closes for
// all, and a breaker that opens when the API is down. relay/attempt passes every
// call through it, for fresh and for queued mail, so that the account sees one
// well-behaved client.
package pace

import (
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/internal/slots"
	"golang.org/x/time/rate"
)

// minPause is the shortest pause after a 429. Without it, a Retry-After of zero or
// of a past date would cause a hot loop and defeat the doubling.
const minPause = time.Second

// doublings is how often the pause doubles while only 429s come. If another program
// keeps the account at its limit, most calls get a 429; a client that asked ever
// more rarely would get none of the rate.
const doublings = 3

// Options configure a Pacer.
type Options struct {
	Settings

	// Failures is how many failures in a row open the breaker; default 5.
	Failures int

	// Paused, if set, is called when the gate closes, with the end of the pause and
	// the rate found so far, so that a restart can Resume with them. It must
	// not block or call the Pacer.
	Paused func(until time.Time, rate float64)
	Log    *slog.Logger // nil: none

	Metrics prometheus.Registerer // nil: none
}

// Pacer is safe for concurrent use. It starts no goroutines.
type Pacer struct {
	opt     Options
	metrics *metrics
	slots   *slots.Pool   // one taken for each call in flight
	head    chan struct{} // has an element while somebody is first in line

	mu       sync.Mutex
	line     int           // callers in line, the first included
	bucket   *rate.Limiter // nil: no rate is known, and none was needed so far
	last     time.Time     // when the last token was taken, or the bucket emptied
	gate     gate
	tuner    tuner // finds the rate
	breaker  breaker
	suspects suspects
	sharing  *sharing // nil: no other relay uses the account
}

// New returns a Pacer with an open gate, a full bucket and a closed breaker.
func New(o Options) *Pacer {
	o.Burst = max(o.Burst, 1)
	if o.Failures <= 0 {
		o.Failures = 5
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Pacer{opt: o, slots: slots.New(o.Concurrency), head: make(chan struct{}, 1), suspects: newSuspects()}
	p.breaker.threshold = o.Failures
	p.metrics = newMetrics(o.Metrics, p)
	if o.Rate > 0 {
		p.tuner.configure(o.Rate)
		p.bucket = rate.NewLimiter(rate.Limit(o.Rate), o.Burst)
	}
	return p
}

// Busy is the error of Enter if a call cannot be made before the context ends.
type Busy struct {
	Wait time.Duration // until the next try is worth it
	Why  Why
}

// Why is the reason why a call has to wait.
type Why string

// The reasons, as text for people.
const (
	Rate   Why = "the account's rate is used up"
	Paused Why = "the API said 429 and is left alone"
	Down   Why = "the API is down"
	// Apart: what this relay was given of the rate is over, and the ledger of the
	// relays that share the account cannot be reached for more.
	Apart  Why = "the relays that share the account cannot be asked for a share of its rate"
	KeyBad Why = "the API refuses the key"
	// Forbidden is a 403. It is about the key or about one sender; which of them is
	// known when another sender's mail gets through.
	Forbidden Why = "the API forbids what it is sent"
)

func (b *Busy) Error() string {
	return fmt.Sprintf("%s; next try in %s", b.Why, b.Wait.Round(time.Millisecond))
}

// Return ends the pass without a call.
func (pass *Pass) Return() {
	pass.pacer.slots.Return()
	if pass.probe {
		pass.pacer.endProbe()
	}
}

// Leave ends the pass after a call and learns from its outcome.
func (pass *Pass) Leave(out relay.Outcome) {
	p := pass.pacer
	p.slots.Return()
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.learn(now, pass, out)
	if out.Kind == relay.RateLimited {
		p.closeGate(rejection{now, pass.closings, pass.inUse, out.RetryAfter})
		return
	}
	if out.Status != 0 && pass.closings == p.gate.closings {
		p.gate.inARow = 0
		p.sharing.answered(pass, out.Kind.Settled(), p.tuner.rate)
	}
	if out.Kind.Settled() && pass.closings == p.gate.closings && p.sharing == nil {
		p.tuner.answered(pass.inUse, pass.used)
		p.retune(now)
	}
}

// closeGate pauses all calls.
func (p *Pacer) closeGate(r rejection) {
	began, longer := p.gate.close(r, p.opt.MaxPause, &p.tuner)
	if began {
		p.metrics.pauses.Inc()
	}
	if began || longer {
		p.sharing.limited(r)
	}
	if !longer {
		return
	}
	p.opt.Log.Warn("the API answered 429: calls are paused", "for", p.gate.until.Sub(r.at), "in_a_row", p.gate.inARow, "rate", p.tuner.rate)
	p.emptyBucket(p.gate.until)
	if p.opt.Paused != nil {
		p.opt.Paused(p.gate.until, p.found())
	}
}

// Resume continues where the last run ended: the gate stays closed until the given
// time, and the rate is the one found then (0: none).
func (p *Pacer) Resume(until time.Time, found float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.opt.Rate == 0 && found > 0 {
		p.tuner.resume(found)
		p.emptyBucket(now)
	}
	// The longest pause may have been made shorter since. From here on the
	// monotonic clock counts.
	until = now.Add(min(until.Sub(now), p.opt.MaxPause))
	if until.After(p.gate.until) {
		p.gate.closings++
		p.gate.until = until
		p.emptyBucket(until)
	}
}

// emptyBucket makes the bucket empty at the given time. A full one would send a
// burst at the very moment when the API allows one call again.
func (p *Pacer) emptyBucket(at time.Time) {
	if p.tuner.rate > 0 {
		p.bucket = rate.NewLimiter(rate.Limit(p.limit()), p.burst())
		p.bucket.AllowN(at, p.bucket.Burst())
	}
	p.last = at
}

// limit returns this relay's part of the rate; 0 if none is needed, or it has no part.
func (p *Pacer) limit() float64 {
	if p.sharing != nil {
		return p.sharing.share
	}
	return p.tuner.rate
}

// retune applies the rate of the tuner to the bucket.
func (p *Pacer) retune(now time.Time) {
	r := p.limit()
	switch {
	case p.tuner.rate == 0:
		p.bucket = nil
	case p.bucket == nil:
		p.emptyBucket(now)
	case float64(p.bucket.Limit()) != r:
		p.bucket.SetLimit(rate.Limit(r))
		p.bucket.SetBurst(p.burst())
	}
}

// found returns the rate that was found; 0 if the configured one is in force or
// there is none.
func (p *Pacer) found() float64 {
	if p.tuner.rate == p.tuner.configured {
		return 0
	}
	return p.tuner.rate
}

// burst returns a tenth of a second's worth of a rate that was found. The burst
// that the provider allows is not known, and its 429s would blur the rate.
func (p *Pacer) burst() int {
	burst := float64(p.opt.Burst)
	if p.tuner.rate != p.opt.Rate {
		burst = p.tuner.rate / 10
	}
	if p.sharing != nil && p.tuner.rate > 0 {
		burst = math.Round(burst * p.sharing.share / p.tuner.rate)
	}
	return max(int(burst), 1)
}

// State is the state of the pacer, for people and metrics.
type State struct {
	PausedUntil time.Time // zero when the gate is open
	Rate        float64   // the account's, in calls per second; 0 when none is known
	Found       bool      // the rate was found, not configured
	Share       float64   // this relay's part of the rate, which is all of it when no other relay uses the account
	Relays      int       // that use the account, this one included; 0 when they do not share it
	Apart       time.Time // since when this relay has no share, because the ledger is out of reach; zero when it has one
	Tokens      float64   // calls that could be made at once, by the rate alone; 0 if none is known
	Waiting     int       // callers in line
	InFlight    int
	Breaker     BreakerState
}

// State returns the current state.
func (p *Pacer) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := State{Rate: p.tuner.rate, Found: p.found() > 0, Share: p.limit(), Waiting: p.line, InFlight: p.slots.Taken(), Breaker: p.breaker.state()}
	now := time.Now()
	if p.bucket != nil {
		s.Tokens = max(p.bucket.TokensAt(now), 0)
	}
	if now.Before(p.gate.until) {
		s.PausedUntil = p.gate.until
	}
	p.sharing.describe(now, &s)
	return s
}

// Settings can be changed by Prepare. internal/settings explains the tags.
type Settings struct {
	// Concurrency is at least 1.
	Concurrency int `toml:"concurrency" default:"32" range:"1..1000" doc:"The most calls at the same time."`
	// Rate is never exceeded. If 429s come again and again all the same, less is found
	// to be allowed.
	Rate float64 `toml:"rate" range:"0..100000" doc:"How many calls per second the account allows. 0: not known, the relay finds it out."`
	// Burst counts with a Rate only; it is at least 1.
	Burst int `toml:"burst" range:"0..100000" doc:"How many calls may be made at once after a pause. 0: a tenth of rate, at least 1."`
	// MaxPause bounds one pause after a 429.
	MaxPause time.Duration `toml:"max_retry_after" default:"1h" range:"1s..7d" doc:"The longest pause that is kept when the API asks for one (Retry-After)."`
}

// Prepare returns a function that puts s into force. Calls under way and a pause
// that the API asked for stay. If the rate is no longer configured, the search for
// the account's rate starts from it. Prepare never fails.
func (p *Pacer) Prepare(s Settings) (apply func(), err error) { return func() { p.use(s) }, nil }

func (p *Pacer) use(s Settings) {
	p.slots.Resize(s.Concurrency)
	p.mu.Lock()
	defer p.mu.Unlock()
	now, before := time.Now(), p.opt.Rate
	p.opt.Rate, p.opt.Burst = s.Rate, max(s.Burst, 1)
	p.opt.MaxPause = s.MaxPause
	switch {
	case s.Rate == before:
	case s.Rate > 0:
		p.tuner = tuner{}
		p.tuner.configure(s.Rate)
	default:
		found := p.tuner.rate
		p.tuner = tuner{}
		p.tuner.resume(found)
	}
	p.sharing.wake()
	p.retune(now)
	if p.bucket != nil { // the burst alone may have changed
		p.bucket.SetLimit(rate.Limit(p.limit()))
		p.bucket.SetBurst(p.burst())
	}
}

// Probe makes the next call probe an API that is down, because a change may have
// solved the problem.
func (p *Pacer) Probe() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := &p.breaker; b.open {
		b.gap, b.probeAt = firstGap, time.Now()
		p.sharing.breakerChanged(false)
	}
}
