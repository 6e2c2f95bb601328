package pace

import (
	"time"

	"golang.org/x/time/rate"
)

// Settings can be changed by Prepare. internal/settings explains the tags.
type Settings struct {
	// Concurrency is at least 1.
	Concurrency int `toml:"concurrency" default:"32" range:"1..1000" doc:"How many calls are made at once."`
	// Rate is never exceeded. If 429s come again and again all the same, less is found
	// to be allowed.
	Rate float64 `toml:"rate" range:"0..100000" doc:"How many calls a second the account allows. 0 is not known: the relay finds out."`
	// Burst counts with a Rate only; it is at least 1.
	Burst int `toml:"burst" range:"0..100000" doc:"How many calls may follow each other at once after a rest. 0 is a tenth of rate, and at least 1."`
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
	p.retune(now)
	if p.bucket != nil { // the burst alone may have changed
		p.bucket.SetLimit(rate.Limit(p.tuner.rate))
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
	}
}
