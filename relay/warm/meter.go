package warm

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// keptDays is how many days the counts of a domain are kept.
const keptDays = 8

// Meter counts what the domains of its plans send. It is safe for concurrent use.
//
// Each mail takes a reservation before it is sent and ends it with Sent or Return.
// These and Mark get the time that Take got, so that all of them mean the same day,
// even if it is past midnight or the clock was set in between.
type Meter struct {
	prefix string                          // of its marks
	plans  atomic.Pointer[map[string]Plan] // by canonical domain

	mu     sync.Mutex
	counts map[key]count
}

// key names the counter of one domain on one day.
type key struct {
	day    int64
	domain string
}

type count struct {
	sent     int // settled as sent; the value of the mark
	reserved int // taken and not ended
}

// New returns a Meter that has counted nothing. If there are two plans for a
// domain, the first counts.
func New(plans []Plan) *Meter { return NewFor("", plans) }

// NewFor is New for the mail of an account; "" is the default one. Each account has
// marks of its own.
func NewFor(account string, plans []Plan) *Meter {
	m := &Meter{prefix: Prefix, counts: map[key]count{}}
	if account != "" {
		m.prefix += "@" + account + "/"
	}
	m.use(plans)
	return m
}

// Prepare returns a function that puts other plans into force. The counts stay. It
// never fails.
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
		if _, there := table[k.domain]; !there { // without a plan, nobody ends the reservations
			c.reserved = 0
			m.counts[k] = c
		}
	}
}

// all returns the plans. A function that uses them more than once gets them once.
func (m *Meter) all() map[string]Plan { return *m.plans.Load() }

// Urgent reports whether the domain's plan lets mail of this sender pass whatever
// was sent before.
func (m *Meter) Urgent(domain, sender string) bool {
	p, ok := m.all()[Canonical(domain)]
	return ok && p.passes(sender)
}

// Take reserves one of the domain's mails of the day. It returns false and reserves
// nothing if the cap is reached. Urgent mail is counted but never refused. A domain
// that is not being warmed is not limited.
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

// Sent ends a reservation taken at that time: the mail was sent. Whoever settles it
// must also add one to Mark(domain, at), in the same transaction.
func (m *Meter) Sent(domain string, at time.Time) {
	m.end(domain, at, 1)
}

// Return ends a reservation taken at that time: the mail was not sent, and another
// may be sent instead.
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
		delete(m.counts, k) // nothing to remember
		return
	}
	m.counts[k] = c
}

// Limits returns how many ordinary mails of each warmed domain may still be claimed
// today, for queue.ClaimRequest.Limits. It is nil if no domain has a cap. If urgent
// mail took a domain over its cap, the limit is 0.
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

// Next returns when the next day begins. It is zero if no domain has a cap today.
func (m *Meter) Next(now time.Time) time.Time {
	for domain := range m.all() {
		if _, _, bounded := m.today(domain, now); bounded {
			return startOf(dayOf(now) + 1)
		}
	}
	return time.Time{}
}

// today returns the counter and the cap of a domain on the day of now. A domain
// without a plan is not bounded.
func (m *Meter) today(domain string, now time.Time) (k key, limit int, bounded bool) {
	plans := m.all()
	if len(plans) == 0 { // the usual case
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

// left returns how many more ordinary mails may be sent.
func (c count) left(limit int) int {
	return max(limit-c.sent-c.reserved, 0)
}

// Prefix is the prefix of the name of every mark of this package. Those of an account
// but the default one have '@', its name and '/' behind it.
const Prefix = "warm/"

// AccountOf returns the account of a mark of this package; "" is the default one.
func AccountOf(mark string) string {
	rest, ok := strings.CutPrefix(mark, Prefix+"@")
	if !ok {
		return ""
	}
	account, _, _ := strings.Cut(rest, "/")
	return account
}

// Mark returns the name of the durable counter of a domain on the day of at, for
// queue.Settlement.Count. It is "" if the domain has no cap on that day.
func (m *Meter) Mark(domain string, at time.Time) string {
	k, _, bounded := m.today(domain, at)
	if !bounded {
		return ""
	}
	return m.mark(k)
}

// Load reads the counts of an earlier run from all marks that begin with Prefix.
// The Meter must not have counted anything yet. Malformed marks are ignored, and those
// of other accounts.
func (m *Meter) Load(marks map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, value := range marks {
		k, ok := m.parseMark(name)
		if !ok {
			continue
		}
		n, _ := strconv.ParseInt(value, 10, 64) // 0 if malformed, as in the queue
		c := m.counts[k]
		c.sent = int(min(max(n, 0), most))
		m.counts[k] = c
	}
}

// Expired drops the counts that are no longer needed and returns their marks for
// removal. Counts of yesterday and later are always kept. A domain with a plan also
// keeps its latest keptDays days, because a clock that was wrong can come back to
// any of them.
func (m *Meter) Expired(now time.Time) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := make([]key, 0, len(m.counts))
	for k := range m.counts {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int { // latest first
		return cmp.Or(cmp.Compare(b.day, a.day), cmp.Compare(a.domain, b.domain))
	})
	var expired []string
	plans := m.all()
	later := map[string]int{} // days after this one, by domain
	for _, k := range keys {
		n := later[k.domain]
		later[k.domain]++
		recent := k.day >= dayOf(now)-1
		_, followed := plans[k.domain]
		kept := n < keptDays && followed
		if recent || kept || m.counts[k].reserved > 0 {
			continue
		}
		delete(m.counts, k)
		expired = append(expired, m.mark(k))
	}
	return expired
}

func (m *Meter) mark(k key) string {
	return m.prefix + startOf(k.day).Format(time.DateOnly) + "/" + k.domain
}

// parseMark is the inverse of mark.
func (m *Meter) parseMark(name string) (key, bool) {
	rest, ok := strings.CutPrefix(name, m.prefix)
	if !ok {
		return key{}, false
	}
	date, domain, ok := strings.Cut(rest, "/")
	if !ok || domain == "" {
		return key{}, false
	}
	day, err := time.Parse(time.DateOnly, date)
	if err != nil {
		return key{}, false
	}
	return key{day: dayOf(day), domain: domain}, true
}

// DomainState is the state of one domain today, for people.
type DomainState struct {
	Domain   string
	Begin    time.Time // midnight of the first day
	Day      int       // of the warming, from 1; 0 or less before it begins
	Bounded  bool      // false: the warming is over, and nothing is counted
	Cap      int       // today's
	Sent     int       // today, urgent mail included
	Reserved int       // being sent
	Next     time.Time // when the next day begins, if Bounded
}

// State returns the state of every domain that has a plan, sorted by name.
func (m *Meter) State(now time.Time) []DomainState {
	plans := m.all()
	states := make([]DomainState, 0, len(plans))
	for domain, p := range plans {
		k, limit, bounded := m.today(domain, now)
		s := DomainState{
			Domain: domain, Begin: startOf(dayOf(p.Begin)), Day: p.Day(now),
			Bounded: bounded, Cap: limit,
		}
		if bounded {
			m.mu.Lock()
			c := m.counts[k]
			m.mu.Unlock()
			s.Sent, s.Reserved, s.Next = c.sent, c.reserved, startOf(k.day+1)
		}
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b DomainState) int { return strings.Compare(a.Domain, b.Domain) })
	return states
}

// Full reports whether ordinary mail of the domain has to wait: for the next day, or
// for mail that is being sent to fail.
func (s DomainState) Full() bool {
	return s.Bounded && s.Sent+s.Reserved >= s.Cap
}

// Why returns why the domain's ordinary mail waits; "" if it does not.
func (s DomainState) Why() string {
	if !s.Full() {
		return ""
	}
	return s.String()
}

// String returns the state as a sentence without a full stop.
func (s DomainState) String() string {
	if !s.Bounded {
		return fmt.Sprintf("%s may send any number of mails (its warming is over)", s.Domain)
	}
	day := fmt.Sprintf("day %d of its warming", s.Day)
	if s.Day < 1 {
		day = "its warming begins on " + s.Begin.Format(time.DateOnly)
	}
	mails := "mails"
	if s.Cap == 1 {
		mails = "mail"
	}
	return fmt.Sprintf("%s may send %d %s today (%s), %s", s.Domain, s.Cap, mails, day, s.used())
}

func (s DomainState) used() string {
	const next = "; next at 00:00 UTC"
	switch {
	case s.Sent > s.Cap: // urgent mail, or the cap was lowered
		return fmt.Sprintf("%d sent", s.Sent) + next
	case s.Sent == s.Cap:
		return "all sent" + next
	case s.Full():
		return "all sent or being sent" + next
	case s.Sent == 0:
		return "none sent"
	default:
		return fmt.Sprintf("%d sent", s.Sent)
	}
}
