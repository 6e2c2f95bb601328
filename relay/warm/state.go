package warm

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// DomainState is how one domain stands today, for status and the queue's list.
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

// State is every domain that has a plan, by name.
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

// Full reports whether ordinary mail of the domain waits for the next day, or
// for mail that is being sent to fail.
func (s DomainState) Full() bool {
	return s.Bounded && s.Sent+s.Reserved >= s.Cap
}

// Why says why the domain's ordinary mail waits, "" when it need not.
func (s DomainState) Why() string {
	if !s.Full() {
		return ""
	}
	return s.String()
}

// String is the state as a sentence without a full stop.
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
	case s.Sent > s.Cap: // urgent ones, or a cap that was lowered
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
