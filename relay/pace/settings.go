package pace

import (
	"cmp"
	"time"

	"golang.org/x/time/rate"
)

// Settings are the Options that Configure can change.
type Settings struct {
	// Rate is how many calls per second the account allows, 0 when that is not
	// known and to be found. It is never exceeded; when 429s come again and
	// again all the same, less is found to be allowed.
	Rate        float64
	Burst       int           // calls at once after a quiet time, with a Rate; at least 1
	Concurrency int           // calls in flight at once; at least 1
	MaxPause    time.Duration // ceiling of one pause after a 429; default 1 h
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
	p.opt.MaxPause = cmp.Or(max(s.MaxPause, 0), time.Hour)
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
