package pace

import (
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

// Gaps between probes of an API that is down.
const (
	firstGap = 2 * time.Second
	maxGap   = time.Minute
)

// breaker opens when calls fail in a row, or at once when the key is refused.
// While it is open nobody waits for a call but one probe at a time, after
// growing gaps. The Pacer's mutex guards it.
type breaker struct {
	threshold int
	failures  int // in a row
	open      bool
	opened    time.Time
	why       Why           // mail waits now
	since     time.Time     // when that began
	last      relay.Outcome // of the latest call that failed
	gap       time.Duration
	probeAt   time.Time
	probing   bool
}

// BreakerState is how the breaker stands, for people and metrics.
type BreakerState struct {
	Open bool

	// When it is open:
	Opened  time.Time
	Why     Why           // mail waits now
	Since   time.Time     // when that began: it may have opened for another reason
	Last    relay.Outcome // of the latest call that failed: the cause
	ProbeAt time.Time     // the next probe is made with the mail that comes after it
}

func (b *breaker) state() BreakerState {
	if !b.open {
		return BreakerState{}
	}
	return BreakerState{Open: true, Opened: b.opened, Why: b.why, Since: b.since, Last: b.last, ProbeAt: b.probeAt}
}

func (b *breaker) busy(now time.Time) *Busy {
	return &Busy{Wait: max(b.probeAt.Sub(now), minPause), Why: b.why}
}

// admit lets everyone pass while the breaker is closed, and one probe when one
// is due while it is open.
func (p *Pacer) admit() (probe bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, now := &p.breaker, time.Now()
	if !b.open {
		return false, nil
	}
	if b.probing || now.Before(b.probeAt) {
		return false, b.busy(now)
	}
	b.probing = true
	return true, nil
}

// Down is why no call should be made while the breaker is open, for those who
// leave the probing to others; nil when it is closed.
func (p *Pacer) Down() *Busy {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.breaker.open {
		return nil
	}
	return p.breaker.busy(time.Now())
}

// unprobe ends a probe that was not made.
func (p *Pacer) unprobe() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.breaker.probing = false
}

// learn opens and closes the breaker. An answer that is a verdict on the mail,
// or a 429, shows an API that works. Answers to calls that were made before
// the breaker opened change nothing: only a probe can close it.
func (p *Pacer) learn(now time.Time, pass *Pass, out relay.Outcome) {
	if pass.probe {
		p.breaker.probing = false
	}
	if out.Kind.Settled() {
		p.suspects.settled(pass)
	}
	works := out.Kind.Settled() || out.Kind == relay.RateLimited
	if p.breaker.open {
		p.learnOpen(now, pass, out, works)
	} else {
		p.learnClosed(now, pass, out, works)
	}
}

func (p *Pacer) learnOpen(now time.Time, pass *Pass, out relay.Outcome, works bool) {
	b := &p.breaker
	if !works {
		p.suspects.failed(pass, out)
	}
	switch {
	case !pass.probe:
	case works:
		p.closeBreaker(now)
	default:
		b.gap = min(b.gap*2, maxGap)
		b.probeAt = now.Add(b.gap)
		b.because(now, out)
	}
}

func (p *Pacer) learnClosed(now time.Time, pass *Pass, out relay.Outcome, works bool) {
	b, s := &p.breaker, &p.suspects
	switch {
	case works:
		b.failures = 0
		return
	case !s.toBlame(pass):
		return
	}
	b.failures++
	switch {
	case b.failures >= b.threshold || s.keyRefused(pass, out):
		p.openBreaker(now, out)
		s.failed(pass, out)
	case forbidden(out):
		s.alone = with(s.alone, pass.mail) // like its sender's others
	}
}

// because notes why mail waits, and since when it is for that.
func (b *breaker) because(now time.Time, out relay.Outcome) {
	if why := whyOf(out); why != b.why {
		b.why, b.since = why, now
	}
	b.last = out
}

func (p *Pacer) openBreaker(now time.Time, out relay.Outcome) {
	b := &p.breaker
	b.open, b.opened, b.gap = true, now, firstGap
	b.why = "" // it was of another time
	b.because(now, out)
	p.metrics.opened.WithLabelValues(whyLabel(b.why)).Inc()
	b.probeAt = now.Add(b.gap)
	p.opt.Log.Error("breaker open: mail is kept and one call at a time tests the API",
		"why", string(b.why), "status", out.Status, "failures", b.failures, "cause", out.Cause)
}

// closeBreaker lets everyone pass again, at the account's rate and without a burst of
// what gathered meanwhile.
func (p *Pacer) closeBreaker(now time.Time) {
	b := &p.breaker
	p.opt.Log.Info("breaker closed: the API works again", "after", now.Sub(b.opened), "why", string(b.why))
	b.open, b.failures = false, 0
	p.suspects.cleared()
	p.tuner.startSlowly()
	p.emptyBucket(now)
}

func whyOf(out relay.Outcome) Why {
	switch {
	case forbidden(out):
		return Forbidden
	case out.Kind == relay.Unauthorized:
		return KeyBad
	default:
		return Down
	}
}
