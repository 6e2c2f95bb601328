package pace

import (
	"net/http"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/smtp2rest/smtp2rest/relay"
)

// Delays between probes of an API that is down.
const (
	firstGap = 2 * time.Second
	maxGap   = time.Minute
)

// breaker opens after several failures in a row, or at once if the key is refused.
// While it is open, only one call at a time probes the API, after growing delays.
// The Pacer's mutex guards it.
type breaker struct {
	threshold int
	failures  int // in a row
	open      bool
	opened    time.Time
	why       Why           // the reason why mail waits
	since     time.Time     // since when it is that reason
	last      relay.Outcome // of the last failed call
	gap       time.Duration
	failedAt  time.Time // when the breaker opened, or the last probe failed
	probeAt   time.Time
	probing   bool
}

// BreakerState is the state of the breaker, for people and metrics.
type BreakerState struct {
	Open bool

	// Set while it is open:
	Opened  time.Time
	Why     Why           // the reason why mail waits
	Since   time.Time     // since when it is that reason; it may have opened for another
	Last    relay.Outcome // of the last failed call
	ProbeAt time.Time     // when the next probe is due; the first mail after it makes it
}

func (b *breaker) state() BreakerState {
	if !b.open {
		return BreakerState{}
	}
	return BreakerState{Open: true, Opened: b.opened, Why: b.why, Since: b.since, Last: b.last, ProbeAt: b.probeAt}
}

// down is why a call has to wait for the breaker.
func (p *Pacer) down(now time.Time) *Busy {
	wait := max(p.breaker.probeAt.Sub(now), minPause)
	if p.sharing != nil {
		wait = min(wait, askAgain)
	}
	return &Busy{Wait: wait, Why: p.breaker.why}
}

// admit lets every call pass while the breaker is closed. While it is open, it
// lets one probe pass when one is due.
func (p *Pacer) admit() (probe bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, now := &p.breaker, time.Now()
	if !b.open {
		return false, nil
	}
	if b.probing || now.Before(b.probeAt) || !p.sharing.mayProbe(now) {
		return false, p.down(now)
	}
	b.probing = true
	return true, nil
}

// Down returns why no call should be made while the breaker is open, and nil while
// it is closed. It is for callers that have new mail and leave the probes to others.
//
// After a 403 new mail brings the next probe nearer. If the 403 was about one mail
// or its sender, which the probes so far were made with, the new mail shows it. The
// more mails were refused, the less it does.
func (p *Pacer) Down() *Busy {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := &p.breaker
	if !b.open {
		return nil
	}
	if n := p.suspects.open.Len(); b.why == Forbidden && n > 0 {
		gap := min(firstGap<<min(n-1, 10), maxGap)
		if soon := b.failedAt.Add(gap); soon.Before(b.probeAt) {
			b.probeAt = soon
			p.sharing.breakerChanged(false)
		}
	}
	return p.down(time.Now())
}

// endProbe ends a probe without a call.
func (p *Pacer) endProbe() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.breaker.probing = false
}

// learn opens and closes the breaker. The API works if it accepts or refuses the
// mail, or answers 429. While the breaker is open only a probe can close it;
// answers to calls that began before are ignored.
func (p *Pacer) learn(now time.Time, pass *Pass, out relay.Outcome) {
	if pass.probe {
		p.breaker.probing = false
	}
	if out.Kind.Settled() {
		p.suspects.settled(pass)
	} else if forbidden(out) && pass.mail != "" {
		p.suspects.refused.Add(pass.mail, struct{}{})
	}
	works := out.Kind.Settled() || out.Kind == relay.RateLimited
	if p.breaker.open {
		p.learnOpen(now, pass, out, works)
		if pass.probe {
			p.sharing.breakerChanged(true)
		}
		return
	}
	p.learnClosed(now, pass, out, works)
	if p.breaker.open {
		p.sharing.breakerChanged(false)
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
		b.failedAt, b.probeAt = now, now.Add(b.gap)
		b.setReason(now, out)
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
		s.alone.Add(pass.mail, struct{}{}) // the sender is known to be refused, not the key
	}
}

// setReason records why mail waits.
func (b *breaker) setReason(now time.Time, out relay.Outcome) {
	if why := whyOf(out); why != b.why {
		b.why, b.since = why, now
	}
	b.last = out
}

func (p *Pacer) openBreaker(now time.Time, out relay.Outcome) {
	b := &p.breaker
	b.open, b.opened, b.gap = true, now, firstGap
	b.why = "" // from the last time
	b.setReason(now, out)
	p.metrics.opened.WithLabelValues(whyLabel(b.why)).Inc()
	b.failedAt, b.probeAt = now, now.Add(b.gap)
	p.opt.Log.Error("breaker open: mail is queued and one call at a time probes the API",
		"why", string(b.why), "status", out.Status, "failures", b.failures, "cause", out.Cause)
}

// closeBreaker lets every call pass again, at the account's rate and without a
// burst of the mail that gathered meanwhile.
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

// maxSuspects bounds each list. If more mails fail, the cause is not single mails.
const maxSuspects = 500

// manyForbidden is how many senders the API must have refused with 403, while it
// took the mail of others, before any further 403 is taken to be about its sender.
const manyForbidden = 3

// suspects are mails that failed while the API seemed to be down. The mail itself
// may be the cause. If every probe were made with that same mail, all mail would
// wait for an API that works. So a probe is made with a mail that is not suspect,
// if there is one. If that mail gets through, the suspects failed alone: they are
// tried again like any other, but their next failure says nothing about the API.
// The Pacer's mutex guards it.
type suspects struct {
	open    *simplelru.LRU[string, suspect]  // by id, the mails that failed since the breaker opened
	alone   *simplelru.LRU[string, struct{}] // ids of mails that failed while others got through
	senders *simplelru.LRU[string, struct{}] // senders for whose mail alone the API answered 403
	refused *simplelru.LRU[string, struct{}] // ids of mails for which the API answered 403
}

// suspect is a failed call.
type suspect struct {
	sender    string
	forbidden bool
}

func newSuspects() suspects {
	open, _ := simplelru.NewLRU[string, suspect](maxSuspects, nil) // fails only for a size of 0
	alone, _ := simplelru.NewLRU[string, struct{}](maxSuspects, nil)
	senders, _ := simplelru.NewLRU[string, struct{}](maxSuspects, nil)
	refused, _ := simplelru.NewLRU[string, struct{}](maxSuspects, nil)
	return suspects{open, alone, senders, refused}
}

// failed records a call that failed while the breaker was open, or opened it. A
// 401 is about the key, whatever the mail.
func (s *suspects) failed(pass *Pass, out relay.Outcome) {
	if pass.mail == "" || out.Status == http.StatusUnauthorized || s.open.Contains(pass.mail) {
		return
	}
	s.open.Add(pass.mail, suspect{pass.sender, forbidden(out)})
}

// cleared is called when the breaker closes. The API works, so the suspects were
// the cause.
func (s *suspects) cleared() {
	for _, mail := range s.open.Keys() {
		s.alone.Add(mail, struct{}{})
		if x, _ := s.open.Peek(mail); x.forbidden {
			s.senders.Add(x.sender, struct{}{})
		}
	}
	s.open.Purge()
}

// settled forgets a mail that the API took or refused.
func (s *suspects) settled(pass *Pass) {
	s.alone.Remove(pass.mail)
	s.open.Remove(pass.mail)
	s.refused.Remove(pass.mail)
}

// toBlame reports whether a failure may be the API's. It is not if the mail failed
// before while others got through.
func (s *suspects) toBlame(pass *Pass) bool { return !s.alone.Contains(pass.mail) }

// keyRefused reports whether this outcome alone shows that the key is refused. A
// 401 does. A 403 does not if the API refused this sender before while it took the
// mail of others, or if it did so for several senders. Then the 403 is about the
// sender, for example a domain that is not verified, and counts like any failure.
func (s *suspects) keyRefused(pass *Pass, out relay.Outcome) bool {
	aboutSender := forbidden(out) && (s.senders.Contains(pass.sender) || s.senders.Len() >= manyForbidden)
	return out.Kind == relay.Unauthorized && !aboutSender
}

func forbidden(out relay.Outcome) bool { return out.Status == http.StatusForbidden }

// Suspects returns the ids of mails that the next probe should not be made with.
func (p *Pacer) Suspects() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.suspects.open.Keys()
}

// Forbidden returns the ids of mails that the API answered with 403, the latest
// if there are many. They may have been dropped since.
func (p *Pacer) Forbidden() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.suspects.refused.Keys()
}

// FailsAlone reports whether a mail failed while others got through.
func (p *Pacer) FailsAlone(mail string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.suspects.alone.Contains(mail)
}
