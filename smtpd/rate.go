package smtpd

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// ratesKept bounds what is remembered of each kind: about a megabyte. Whoever
// was longest silent is forgotten first, which forgives a flood of made-up
// senders no more than it would have had anyway.
const ratesKept = 10_000

// A meter counts recipients by address, user and sender, against the rate of
// each.
type meter struct {
	kinds []meterKind

	mu sync.Mutex
}

type meterKind struct {
	limit limit
	what  string // in the reply
	rate  func(*session) auth.Rate
	key   func(*session) string // "" is not counted
	*ledger
}

func newMeter(l Limits) *meter {
	ofAll := func(r auth.Rate) func(*session) auth.Rate { return func(*session) auth.Rate { return r } }
	ofUser := func(s *session) auth.Rate {
		if s.user != nil && s.user.Rate.Bounds() {
			return s.user.Rate
		}
		return l.UserRate
	}
	return &meter{kinds: []meterKind{
		{ledger: newLedger(), limit: limitAddressRate, what: "this address", rate: ofAll(l.AddressRate), key: func(s *session) string {
			if !s.client.Addr.IsValid() {
				return "" // who is on this machine, or behind a proxy that does not tell
			}
			return origin(s.client.Addr).String()
		}},
		{ledger: newLedger(), limit: limitUserRate, what: "this user", rate: ofUser, key: func(s *session) string { return s.client.User }},
		{ledger: newLedger(), limit: limitSenderRate, what: "this sender", rate: ofAll(l.SenderRate), key: func(s *session) string { return s.envelope.From }},
	}}
}

// apply changes the rates. What was counted stays: it is a time, and holds for
// any rate.
func (m *meter) apply(l Limits) {
	next := newMeter(l)
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.kinds {
		m.kinds[i].rate = next.kinds[i].rate
	}
}

// binding is whose rate binds a session, and which; "" is nobody's.
func (k meterKind) binding(s *session) (who string, r auth.Rate) {
	if r = k.rate(s); !r.Bounds() {
		return "", r
	}
	return k.key(s), r
}

// full is the reply for a session that may not have one more recipient now,
// and the limit that says so.
func (m *meter) full(s *session, now time.Time) (*reply.Reply, limit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.kinds {
		if who, rate := k.binding(s); who != "" {
			if wait := k.wait(who, rate, now); wait > 0 {
				return reply.RateExceeded(k.what, wait), k.limit
			}
		}
	}
	return nil, ""
}

// count counts a recipient.
func (m *meter) count(s *session, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.kinds {
		if who, rate := k.binding(s); who != "" {
			k.add(who, rate, now)
		}
	}
}

// A ledger knows of each name the time at which all that was counted would
// have been spent evenly (the generic cell rate algorithm). Names are hashed:
// clients choose how long they are.
type ledger struct {
	seed  maphash.Seed
	until *simplelru.LRU[uint64, time.Time]
}

func newLedger() *ledger {
	until, _ := simplelru.NewLRU[uint64, time.Time](ratesKept, nil) // its only error is a size of 0
	return &ledger{maphash.MakeSeed(), until}
}

// wait is how long until one more fits; 0 is now.
func (l *ledger) wait(who string, r auth.Rate, now time.Time) time.Duration {
	until, ok := l.until.Peek(maphash.String(l.seed, who))
	if !ok {
		return 0
	}
	return max(0, until.Sub(now)+r.Per/time.Duration(r.Number)-r.Per)
}

func (l *ledger) add(who string, r auth.Rate, now time.Time) {
	name := maphash.String(l.seed, who)
	until, _ := l.until.Peek(name)
	if until.Before(now) {
		until = now
	}
	l.until.Add(name, until.Add(r.Per/time.Duration(r.Number)))
}
