// Package pace holds every call to the API to the account's rate: a token
// bucket, a bound on calls at once, and the gate that a 429 closes for
// everyone. relay/attempt passes each call through it, whether the mail is
// fresh or from the queue, so the account sees one well-behaved client.
package pace

import (
	"context"
	"fmt"
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
	Rate        float64       // calls per second; 0: not limited by us
	Burst       int           // calls at once after a quiet time; at least 1
	Concurrency int           // calls in flight at once; at least 1
	MaxPause    time.Duration // ceiling of one pause after a 429; default 1 h
}

// Pacer is safe for concurrent use. It starts no goroutines.
type Pacer struct {
	opt    Options
	places chan struct{} // one element per call in flight

	mu      sync.Mutex
	bucket  *rate.Limiter // nil: not limited
	until   time.Time     // the gate is closed before this moment
	opening int           // counts how often the gate was closed
	inARow  int           // 429s in a row, counted once per opening
}

// New returns a Pacer with an open gate and a full bucket.
func New(o Options) *Pacer {
	o.Burst = max(o.Burst, 1)
	o.Concurrency = max(o.Concurrency, 1)
	if o.MaxPause <= 0 {
		o.MaxPause = time.Hour
	}
	p := &Pacer{opt: o, places: make(chan struct{}, o.Concurrency)}
	if o.Rate > 0 {
		p.bucket = rate.NewLimiter(rate.Limit(o.Rate), o.Burst)
	}
	return p
}

// Busy is Enter's error when a call cannot be made before the context ends.
type Busy struct {
	Wait   time.Duration // after which it is worth trying again
	Paused bool          // because the API said 429
}

func (b *Busy) Error() string {
	if b.Paused {
		return fmt.Sprintf("paused by the API's 429 for another %s", b.Wait)
	}
	return "the account's rate is used up"
}

// Pass is the leave to make one call. Leave must be called exactly once.
type Pass struct {
	pacer   *Pacer
	opening int
}

// Enter waits until a call may be made: the gate is open, a place is free and
// the bucket has a token. When that cannot be before ctx ends it fails with
// *Busy, at once where that is known at once, and spends nothing.
func (p *Pacer) Enter(ctx context.Context) (*Pass, error) {
	for {
		if err := p.waitGate(ctx); err != nil {
			return nil, err
		}
		select {
		case p.places <- struct{}{}:
		case <-ctx.Done():
			return nil, p.busy()
		}
		pass, err := p.token(ctx)
		if pass != nil {
			return pass, nil
		}
		<-p.places
		if err != nil {
			return nil, err
		}
	}
}

// token takes one from the bucket. It returns neither pass nor error when the
// gate was closed meanwhile: the caller begins again.
func (p *Pacer) token(ctx context.Context) (*Pass, error) {
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
	return &Pass{pacer: p, opening: opening}, nil
}

func (p *Pacer) waitGate(ctx context.Context) error {
	for {
		wait := p.Paused()
		if wait <= 0 {
			return ctx.Err()
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

// Paused is how long the gate stays closed; 0 when it is open.
func (p *Pacer) Paused() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(time.Until(p.until), 0)
}

func (p *Pacer) busy() *Busy {
	if wait := p.Paused(); wait > 0 {
		return &Busy{Wait: wait, Paused: true}
	}
	return &Busy{Wait: minPause}
}

// Leave ends the call and learns from its outcome.
func (pass *Pass) Leave(out relay.Outcome) {
	p := pass.pacer
	<-p.places
	p.mu.Lock()
	defer p.mu.Unlock()
	if out.Kind == relay.RateLimited {
		p.closeGate(pass.opening, out.RetryAfter)
	} else if out.Status != 0 && pass.opening == p.opening {
		p.inARow = 0
	}
}

// closeGate pauses everyone. Calls that were in flight together are answered
// 429 together: only a call that was made after the last pause counts as a
// further 429 in a row and doubles it.
func (p *Pacer) closeGate(opening int, retryAfter time.Duration) {
	pause := max(retryAfter, minPause)
	if opening == p.opening {
		for range min(p.inARow, 30) {
			pause = min(pause*2, p.opt.MaxPause)
		}
		p.inARow++
		p.opening++
	}
	until := time.Now().Add(min(pause, p.opt.MaxPause))
	if until.Before(p.until) {
		return
	}
	p.until = until
	if p.opt.Rate > 0 {
		// The bucket restarts empty: a full one would greet the API with a
		// burst at the very moment it allows one call again.
		p.bucket = rate.NewLimiter(rate.Limit(p.opt.Rate), p.opt.Burst)
		p.bucket.AllowN(until, p.opt.Burst)
	}
}
