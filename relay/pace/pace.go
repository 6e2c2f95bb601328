// Package pace holds every call to the API to what the account allows: a token
// bucket, a bound on calls at once, the gate that a 429 closes for everyone,
// and the breaker that an outage opens. relay/attempt passes each call through
// it, whether the mail is fresh or from the queue, so the account sees one
// well-behaved client.
package pace

import (
	"cmp"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/internal/places"
	"golang.org/x/time/rate"
)

// minPause is the shortest pause after a 429. A Retry-After of zero, or a date
// that has passed, would otherwise make a hot loop and defeat the doubling.
const minPause = time.Second

// doublings is how often the pause doubles while nothing but 429s comes. An
// account that another program keeps at its limit says 429 to most calls; one
// that tried more and more rarely would get nothing of it.
const doublings = 3

// Options are what a Pacer is made from.
type Options struct {
	Settings

	// Failures in a row that open the breaker; default 5.
	Failures int

	// Paused, if set, is told when the gate is closed: until when, and at what
	// rate calls are made afterwards, so that a restart can Resume there. It
	// must not block, nor call the Pacer.
	Paused func(until time.Time, rate float64)
	Log    *slog.Logger // nil: none

	Metrics prometheus.Registerer // nil: none
}

// Pacer is safe for concurrent use. It starts no goroutines.
type Pacer struct {
	opt     Options
	metrics *metrics
	places  *places.Places // one taken per call in flight
	door    chan struct{}  // one element while somebody stands at it

	mu      sync.Mutex
	line    int           // who waits for the door, and who stands at it
	bucket  *rate.Limiter // nil: no rate is known and none needed so far
	last    time.Time     // when the last call took its token, or when the bucket was emptied
	until   time.Time     // the gate is closed before this moment
	opening int           // counts how often the gate was closed
	inARow  int           // 429s in a row, counted once per opening
	tuner   tuner         // finds the rate
	breaker breaker

	suspects suspects
}

// New returns a Pacer with an open gate, a full bucket and a closed breaker.
func New(o Options) *Pacer {
	o.Burst = max(o.Burst, 1)
	o.MaxPause = cmp.Or(max(o.MaxPause, 0), time.Hour)
	if o.Failures <= 0 {
		o.Failures = 5
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Pacer{opt: o, places: places.New(o.Concurrency), door: make(chan struct{}, 1)}
	p.breaker.threshold = o.Failures
	p.metrics = newMetrics(o.Metrics, p)
	if o.Rate > 0 {
		p.tuner.configure(o.Rate)
		p.bucket = rate.NewLimiter(rate.Limit(o.Rate), o.Burst)
	}
	return p
}

// Busy is Enter's error when a call cannot be made before the context ends.
type Busy struct {
	Wait time.Duration // after which it is worth trying again
	Why  Why
}

// Why is what a call has to wait for.
type Why string

// What a call can have to wait for, in words.
const (
	Rate   Why = "the account's rate is used up"
	Paused Why = "the API said 429 and is left alone"
	Down   Why = "the API is down"
	KeyBad Why = "the API refuses the key"
	// Forbidden is a 403: of the key, or of one sender, which is not known before
	// another's mail gets through.
	Forbidden Why = "the API forbids what it is sent"
)

func (b *Busy) Error() string {
	return fmt.Sprintf("%s; next try in %s", b.Why, b.Wait.Round(time.Millisecond))
}

// Return gives a pass back without a call.
func (pass *Pass) Return() {
	pass.pacer.places.Return()
	if pass.probe {
		pass.pacer.unprobe()
	}
}

// Leave ends the call and learns from its outcome.
func (pass *Pass) Leave(out relay.Outcome) {
	p := pass.pacer
	p.places.Return()
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.learn(now, pass, out)
	if out.Kind == relay.RateLimited {
		p.closeGate(now, pass, out.RetryAfter)
		return
	}
	if out.Status != 0 && pass.opening == p.opening {
		p.inARow = 0
	}
	if out.Kind.Settled() && pass.opening == p.opening {
		p.tuner.answered(pass.inUse, pass.used)
		p.retune(now)
	}
}

// closeGate pauses everyone. Calls that were in flight together are answered
// 429 together: only a call that was made after the last pause counts as a
// further 429 in a row and doubles it.
func (p *Pacer) closeGate(now time.Time, pass *Pass, retryAfter time.Duration) {
	pause := min(max(retryAfter, minPause), p.opt.MaxPause)
	if pass.opening == p.opening {
		for range min(p.inARow, doublings) {
			pause = min(pause*2, p.opt.MaxPause)
		}
		// Only the first in a row says something of the rate: after a pause
		// there was but one call.
		if p.inARow == 0 {
			p.tuner.limited(now, pass.inUse, retryAfter)
		}
		p.inARow++
		p.opening++
		p.metrics.pauses.Inc()
	}
	until := now.Add(pause)
	if until.Before(p.until) {
		return
	}
	p.opt.Log.Warn("the API said 429: paused", "for", pause, "in_a_row", p.inARow, "rate", p.tuner.rate)
	if now.Before(p.until) {
		pause = until.Sub(p.until)
	}
	p.tuner.paused += pause
	p.pauseUntil(until)
	if p.opt.Paused != nil {
		p.opt.Paused(p.until, p.found())
	}
}

// Resume puts the pacer where it was before a restart: the gate closed until
// then, and at the rate that was found (0: none).
func (p *Pacer) Resume(until time.Time, found float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.opt.Rate == 0 && found > 0 {
		p.tuner.resume(found)
		p.emptyBucket(now)
	}
	// No longer than a pause can be, should the clock have been set back; and from
	// here on by the monotonic clock, should that come yet.
	until = now.Add(min(until.Sub(now), p.opt.MaxPause))
	if until.After(p.until) {
		p.opening++
		p.pauseUntil(until)
	}
}

func (p *Pacer) pauseUntil(until time.Time) {
	p.until = until
	p.emptyBucket(until)
}

// emptyBucket makes the bucket start empty at the given time: a full one would
// greet the API with a burst at the very moment it allows one call again.
func (p *Pacer) emptyBucket(at time.Time) {
	if r := p.tuner.rate; r > 0 {
		p.bucket = rate.NewLimiter(rate.Limit(r), p.burst())
		p.bucket.AllowN(at, p.bucket.Burst())
	}
	p.last = at
}

// retune follows the rate that the tuner found.
func (p *Pacer) retune(now time.Time) {
	r := p.tuner.rate
	switch {
	case r == 0:
		p.bucket = nil
	case p.bucket == nil:
		p.emptyBucket(now)
	case float64(p.bucket.Limit()) != r:
		p.bucket.SetLimit(rate.Limit(r))
		p.bucket.SetBurst(p.burst())
	}
}

// found is the rate that was found; 0: the configured one is in force, or none.
func (p *Pacer) found() float64 {
	if p.tuner.rate == p.opt.Rate {
		return 0
	}
	return p.tuner.rate
}

// burst of a found rate is a tenth of a second's worth: what the provider
// allows at once is not known, and 429s would blur the rate.
func (p *Pacer) burst() int {
	if p.tuner.rate == p.opt.Rate {
		return p.opt.Burst
	}
	return max(int(p.tuner.rate/10), 1)
}

// State is how the pacer stands, for people and metrics.
type State struct {
	PausedUntil time.Time // zero when the gate is open
	Rate        float64   // calls per second; 0 when none is known
	Found       bool      // the rate was found; it is not the configured one
	Tokens      float64   // calls that could be made at once, by the rate alone; 0 when none is known
	Waiting     int       // in line
	InFlight    int
	Breaker     BreakerState
}

// State returns how the pacer stands now.
func (p *Pacer) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := State{Rate: p.tuner.rate, Found: p.found() > 0, Waiting: p.line, InFlight: p.places.Taken(), Breaker: p.breaker.state()}
	now := time.Now()
	if p.bucket != nil {
		s.Tokens = max(p.bucket.TokensAt(now), 0)
	}
	if now.Before(p.until) {
		s.PausedUntil = p.until
	}
	return s
}
