package warm

import (
	"sync"
	"sync/atomic"
	"time"
)

// keptDays is how many days' counts of a domain outlive their day.
const keptDays = 8

// Meter counts what the domains of its plans send. It is safe for concurrent
// use.
//
// Every mail takes one reservation before it is sent, and ends it with Sent or
// Return. Sent, Return and Mark are given the time that was given to Take, so
// that all of them mean the same day when midnight, or somebody setting the
// clock, comes in between.
type Meter struct {
	plans atomic.Pointer[map[string]Plan] // by canonical domain

	mu     sync.Mutex
	counts map[key]count
}

// key names the counter of one domain on one day.
type key struct {
	day    int64
	domain string
}

type count struct {
	sent     int // settled as sent; what the mark says
	reserved int // taken and not ended
}

// New returns a Meter that has counted nothing. Of two plans for one domain
// the first is followed.
func New(plans []Plan) *Meter {
	m := &Meter{counts: map[key]count{}}
	m.use(plans)
	return m
}

// Prepare makes ready to follow other plans. What was counted stays. It never
// fails.
func (m *Meter) Prepare(plans []Plan) (apply func(), err error) {
	return func() { m.use(plans) }, nil
}

func (m *Meter) use(plans []Plan) {
	table := make(map[string]Plan, len(plans))
	for _, p := range plans {
		domain := Canonical(p.Domain)
		if _, there := table[domain]; !there {
			table[domain] = p
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.plans.Store(&table)
	for k, c := range m.counts {
		if _, there := table[k.domain]; !there { // nobody ends the reservations of a domain without a plan
			c.reserved = 0
			m.counts[k] = c
		}
	}
}

// all is the plans. Who follows them through one step takes them once.
func (m *Meter) all() map[string]Plan { return *m.plans.Load() }

// Urgent reports whether the domain's plan lets mail of the envelope sender
// pass whatever was sent.
func (m *Meter) Urgent(domain, sender string) bool {
	p, ok := m.all()[Canonical(domain)]
	return ok && p.passes(sender)
}

// Take reserves one of the domain's mails of the day. It is false when the cap
// is reached, and then nothing is reserved. Urgent mail is never refused, but
// counts. A domain that is not being warmed is never refused and costs nothing.
func (m *Meter) Take(domain string, urgent bool, now time.Time) bool {
	k, limit, bounded := m.today(domain, now)
	if !bounded {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.counts[k]
	if !urgent && c.left(limit) == 0 {
		return false
	}
	c.reserved++
	m.counts[k] = c
	return true
}

// Sent ends a reservation taken at that time: the mail was sent and counts for
// good. Whoever settles it adds one to Mark(domain, at) in the same step.
func (m *Meter) Sent(domain string, at time.Time) {
	m.end(domain, at, 1)
}

// Return ends a reservation taken at that time: the mail was not sent, and
// another may go in its place.
func (m *Meter) Return(domain string, at time.Time) {
	m.end(domain, at, 0)
}

func (m *Meter) end(domain string, at time.Time, sent int) {
	k, _, bounded := m.today(domain, at)
	if !bounded {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.counts[k]
	c.reserved = max(c.reserved-1, 0)
	c.sent += sent
	if c == (count{}) {
		delete(m.counts, k) // nothing is left to remember
		return
	}
	m.counts[k] = c
}

// Limits is how many ordinary mails of each warmed domain may still be claimed
// today, for queue.ClaimRequest.Limits. It is nil when no domain has a cap.
// Urgent mail can take a domain over its cap; then it is 0.
func (m *Meter) Limits(now time.Time) map[string]int {
	var limits map[string]int
	plans := m.all()
	for domain := range plans {
		k, limit, bounded := m.today(domain, now)
		if !bounded {
			continue
		}
		if limits == nil {
			limits = make(map[string]int, len(plans))
		}
		m.mu.Lock()
		limits[domain] = m.counts[k].left(limit)
		m.mu.Unlock()
	}
	return limits
}

// Next is when the next day begins, on which there is a quota again; the zero
// time when no domain has a cap today.
func (m *Meter) Next(now time.Time) time.Time {
	for domain := range m.all() {
		if _, _, bounded := m.today(domain, now); bounded {
			return startOf(dayOf(now) + 1)
		}
	}
	return time.Time{}
}

// today is the counter and the cap of a domain on the day of now. A domain
// without a plan is not bounded.
func (m *Meter) today(domain string, now time.Time) (k key, limit int, bounded bool) {
	plans := m.all()
	if len(plans) == 0 { // as mostly
		return key{}, 0, false
	}
	k = key{day: dayOf(now), domain: Canonical(domain)}
	p, ok := plans[k.domain]
	if !ok {
		return k, 0, false
	}
	limit, bounded = p.Cap(now)
	return k, limit, bounded
}

// left is how many more ordinary mails may be taken.
func (c count) left(limit int) int {
	return max(limit-c.sent-c.reserved, 0)
}
