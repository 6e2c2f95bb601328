// Package pace holds every call to the API to what the account allows: a token
// bucket, a bound on calls at once, the gate that a 429 closes for everyone,
// and the breaker that an outage opens. relay/attempt passes each call through
// it, whether the mail is fresh or from the queue, so the account sees one
// well-behaved client.
package pace

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"golang.org/x/time/rate"
)

// minPause is the shortest pause after a 429. A Retry-After of zero, or a date
// that has passed, would otherwise make a hot loop and defeat the doubling.
const minPause = time.Second

// Options are what a Pacer is made from.
type Options struct {
	Rate        float64       // calls per second; 0: not known, to be found
	Burst       int           // calls at once after a quiet time; at least 1
	Concurrency int           // calls in flight at once; at least 1
	MaxPause    time.Duration // ceiling of one pause after a 429; default 1 h

	// Failures in a row that open the breaker; default 5.
	Failures int

	// Paused, if set, is told when the gate is closed: until when, and at what
	// rate calls are made afterwards, so that a restart can Resume there. It
	// must not block, nor call the Pacer.
	Paused func(until time.Time, rate float64)
	Log    *slog.Logger // nil: none
}

// Pacer is safe for concurrent use. It starts no goroutines.
type Pacer struct {
	opt    Options
	places chan struct{} // one element per call in flight

	mu      sync.Mutex
	bucket  *rate.Limiter // nil: no rate is known and none needed so far
	until   time.Time     // the gate is closed before this moment
	opening int           // counts how often the gate was closed
	inARow  int           // 429s in a row, counted once per opening
	tuner   tuner         // finds the rate when Options.Rate is 0
	breaker breaker
}

// New returns a Pacer with an open gate, a full bucket and a closed breaker.
func New(o Options) *Pacer {
	o.Burst = max(o.Burst, 1)
	o.Concurrency = max(o.Concurrency, 1)
	if o.MaxPause <= 0 {
		o.MaxPause = time.Hour
	}
	if o.Failures <= 0 {
		o.Failures = 5
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Pacer{opt: o, places: make(chan struct{}, o.Concurrency)}
	p.breaker.threshold = o.Failures
	if o.Rate > 0 {
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
)

func (b *Busy) Error() string {
	return fmt.Sprintf("%s; next try in %s", b.Why, b.Wait.Round(time.Millisecond))
}

// Pass is the leave to make one call. Leave or Return must be called exactly
// once.
type Pass struct {
	pacer   *Pacer
	opening int
	probe   bool
}

// Enter waits until a call may be made: the breaker is closed or wants to be
// probed, the gate is open, a place is free and the bucket has a token. When
// that cannot be before ctx ends it fails with *Busy, at once where that is
// known at once.
func (p *Pacer) Enter(ctx context.Context) (*Pass, error) {
	probe, err := p.admit()
	if err != nil {
		return nil, err
	}
	for {
		pass, err := p.enter(ctx, probe)
		if pass == nil && err == nil {
			continue // the gate was closed meanwhile
		}
		if err != nil && probe {
			p.unprobe()
		}
		return pass, err
	}
}

// TryEnter is Enter for who does not want to wait; nil when a call cannot be
// made now.
func (p *Pacer) TryEnter() *Pass {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.breaker.open || now.Before(p.until) {
		return nil
	}
	select {
	case p.places <- struct{}{}:
	default:
		return nil
	}
	if p.bucket != nil && !p.bucket.AllowN(now, 1) {
		<-p.places
		return nil
	}
	return &Pass{pacer: p, opening: p.opening}
}

func (p *Pacer) enter(ctx context.Context, probe bool) (*Pass, error) {
	if err := p.waitGate(ctx); err != nil {
		return nil, err
	}
	select {
	case p.places <- struct{}{}:
	case <-ctx.Done():
		return nil, p.busy()
	}
	pass, err := p.token(ctx, probe)
	if pass == nil {
		<-p.places
	}
	return pass, err
}

// token takes one from the bucket. It returns neither pass nor error when the
// gate was closed meanwhile: the caller begins again.
func (p *Pacer) token(ctx context.Context, probe bool) (*Pass, error) {
	p.mu.Lock()
	bucket, opening := p.bucket, p.opening
	p.mu.Unlock()
	if bucket != nil {
		// Wait fails at once, and takes nothing, when ctx ends too early.
		if err := bucket.Wait(ctx); err != nil {
			return nil, p.busy()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opening != opening || time.Now().Before(p.until) {
		return nil, nil
	}
	if p.breaker.open && !probe {
		return nil, p.breaker.busy(time.Now())
	}
	return &Pass{pacer: p, opening: opening, probe: probe}, nil
}

func (p *Pacer) waitGate(ctx context.Context) error {
	for {
		wait := p.pause()
		if wait <= 0 {
			if ctx.Err() != nil {
				return p.busy()
			}
			return nil
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
			return p.busy()
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return p.busy()
		}
	}
}

func (p *Pacer) pause() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(time.Until(p.until), 0)
}

func (p *Pacer) busy() *Busy {
	if wait := p.pause(); wait > 0 {
		return &Busy{Wait: wait, Why: Paused}
	}
	return &Busy{Wait: minPause, Why: Rate}
}

// Return gives a pass back without a call.
func (pass *Pass) Return() {
	<-pass.pacer.places
	if pass.probe {
		pass.pacer.unprobe()
	}
}

// Leave ends the call and learns from its outcome.
func (pass *Pass) Leave(out relay.Outcome) {
	p := pass.pacer
	<-p.places
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.learn(now, pass, out)
	if out.Kind == relay.RateLimited {
		p.closeGate(now, pass.opening, out.RetryAfter)
		return
	}
	if out.Status != 0 && pass.opening == p.opening {
		p.inARow = 0
	}
	if out.Kind.Settled() && p.opt.Rate == 0 {
		p.tuner.answered(now, p.saturated())
		p.retune(now)
	}
}

// closeGate pauses everyone. Calls that were in flight together are answered
// 429 together: only a call that was made after the last pause counts as a
// further 429 in a row and doubles it.
func (p *Pacer) closeGate(now time.Time, opening int, retryAfter time.Duration) {
	pause := max(retryAfter, minPause)
	if opening == p.opening {
		for range min(p.inARow, 30) {
			pause = min(pause*2, p.opt.MaxPause)
		}
		p.inARow++
		p.opening++
		if p.opt.Rate == 0 {
			p.tuner.limited(now, p.saturated())
		}
	}
	pause = min(pause, p.opt.MaxPause)
	if now.Add(pause).Before(p.until) {
		return
	}
	p.opt.Log.Warn("the API said 429: paused", "for", pause, "in_a_row", p.inARow, "rate", p.rate())
	p.pauseUntil(now.Add(pause))
	if p.opt.Paused != nil {
		p.opt.Paused(p.until, p.tuner.rate)
	}
}

// Resume puts the pacer where it was before a restart: the gate closed until
// then, and at the rate that was found (0: none).
func (p *Pacer) Resume(until time.Time, found float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.opt.Rate == 0 && found > 0 {
		p.tuner.resume(now, found)
		p.emptyBucket(now)
	}
	if limit := now.Add(p.opt.MaxPause); until.After(limit) {
		until = limit // the clock was set back meanwhile
	}
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
	if r := p.rate(); r > 0 {
		p.bucket = rate.NewLimiter(rate.Limit(r), p.burst(r))
		p.bucket.AllowN(at, p.bucket.Burst())
	}
}

// saturated tells whether all of the rate is used.
func (p *Pacer) saturated() bool { return p.bucket != nil && p.bucket.Tokens() < 1 }

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
		p.bucket.SetBurst(p.burst(r))
	}
}

// rate is the configured rate, or the one that was found; 0 when neither.
func (p *Pacer) rate() float64 {
	if p.opt.Rate > 0 {
		return p.opt.Rate
	}
	return p.tuner.rate
}

// burst of a found rate is a tenth of a second's worth: what the provider
// allows at once is not known, and 429s would blur the rate.
func (p *Pacer) burst(r float64) int {
	if p.opt.Rate > 0 {
		return p.opt.Burst
	}
	return max(int(r/10), 1)
}

// State is how the pacer stands, for people and metrics.
type State struct {
	PausedUntil time.Time // zero when the gate is open
	Rate        float64   // calls per second; 0 when none is known
	Found       bool      // the rate was found and not configured
	InFlight    int
	Breaker     BreakerState
}

// State returns how the pacer stands now.
func (p *Pacer) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := State{Rate: p.rate(), Found: p.opt.Rate == 0, InFlight: len(p.places), Breaker: p.breaker.state()}
	if time.Now().Before(p.until) {
		s.PausedUntil = p.until
	}
	return s
}
