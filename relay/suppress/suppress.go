// Package suppress knows which addresses must not be sent to: what an address
// is compared by, the reasons and which of them is stronger, and the List that
// relay/intake asks at RCPT. The API (relay/attempt), the provider's events
// (relay/webhook) and the operator (relay/admin) add to it.
//
// The List answers from memory. What is in it is kept by a Store: Memory in
// this package, or relay/store/sqlite on disk; suppresstest holds both to the
// contract.
package suppress

import (
	"context"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

// Reason is why an address is suppressed. A greater one is stronger: it stays
// when another is learnt.
type Reason uint8

// The reasons. Unsubscribe is a mark, and suppresses only where the operator
// says so: mail that is due to someone is due after they left a newsletter.
const (
	Unsubscribe Reason = iota + 1
	Provider           // the API said so, and not why
	Complaint
	HardBounce
	Operator
)

const reasonCount = int(Operator) + 1

// Reasons are all there are.
func Reasons() []Reason { return []Reason{HardBounce, Complaint, Unsubscribe, Provider, Operator} }

// String is the reason's name, in files and on the command line.
func (r Reason) String() string {
	return [reasonCount]string{"unknown", "unsubscribe", "provider", "complaint", "hard_bounce", "operator"}[r.valid()]
}

// Words is the reason as an SMTP client is told it.
func (r Reason) Words() string {
	return [reasonCount]string{"unknown", "unsubscribed", "on the provider's suppression list", "complaint", "hard bounce", "by the operator"}[r.valid()]
}

func (r Reason) valid() Reason {
	if int(r) >= reasonCount {
		return 0
	}
	return r
}

// ParseReason is the reason of a name.
func ParseReason(name string) (Reason, bool) {
	for _, r := range Reasons() {
		if r.String() == name {
			return r, true
		}
	}
	return 0, false
}

// Source is who told us.
type Source uint8

// The sources.
const (
	API Source = iota + 1
	Webhook
	ByOperator
)

const sourceCount = int(ByOperator) + 1

// Sources are all there are.
func Sources() []Source { return []Source{API, Webhook, ByOperator} }

// String is the source's name.
func (s Source) String() string {
	if int(s) >= sourceCount {
		s = 0
	}
	return [sourceCount]string{"unknown", "api", "webhook", "operator"}[s]
}

// ParseSource is the source of a name.
func ParseSource(name string) (Source, bool) {
	for _, s := range Sources() {
		if s.String() == name {
			return s, true
		}
	}
	return 0, false
}

// Entry is one suppressed address.
type Entry struct {
	Address string // normalised
	Reason  Reason
	Source  Source
	Since   time.Time // when what it tells of happened
	Expires time.Time // zero: never
	Event   string    // the id of the event that caused it
	Detail  string    // what the provider said of it
	Note    string    // the operator's
}

// Expired reports whether an entry's time is over.
func (e Entry) Expired(now time.Time) bool { return !e.Expires.IsZero() && !now.Before(e.Expires) }

// mark tells an entry that does not suppress by itself. Who the operator says
// has unsubscribed is suppressed.
func (e Entry) mark() bool { return e.Reason == Unsubscribe && e.Source != ByOperator }

// lasts reports whether e lasts at least as long as o.
func (e Entry) lasts(o Entry) bool {
	return e.Expires.IsZero() || !o.Expires.IsZero() && !e.Expires.Before(o.Expires)
}

// Merge is what is known of an address when learnt is learnt at now and old
// was known. The stronger reason stays with all that belongs to it, for as
// long as either would. What an operator said is only replaced by what lasts
// longer, and a mark neither replaces nor prolongs what suppresses.
func Merge(old, learnt Entry, now time.Time) Entry {
	switch {
	case old.Address == "" || old.Expired(now):
		return learnt
	case old.Source == ByOperator && old.lasts(learnt), old.mark() != learnt.mark() && learnt.mark():
		return old
	case old.Source == ByOperator, old.mark() != learnt.mark():
		return learnt
	}
	stays := old
	if learnt.Reason > old.Reason {
		stays = learnt
	}
	if !stays.lasts(old) {
		stays.Expires = old.Expires
	}
	if !stays.lasts(learnt) {
		stays.Expires = learnt.Expires
	}
	return stays
}

// Learn is what Merge makes of an address that was taken off the list at
// removed, or never if that is zero: what happened before does not put it on
// again. The provider's times are whole seconds.
func Learn(old, learnt Entry, removed, now time.Time) (Entry, bool) {
	if !removed.IsZero() && learnt.Since.Before(removed.Truncate(time.Second)) {
		return old, false
	}
	e := Merge(old, learnt, now)
	return e, e != old
}

// Filter selects entries; they must match all fields that are set.
type Filter struct {
	Reasons []Reason
	Sources []Source
	Domain  string // normalised, without @
	After   string // addresses that come after this one
	Limit   int    // at most so many; 0 is no bound
}

// Matches reports whether an entry is selected, Limit apart.
func (f Filter) Matches(e Entry) bool {
	return (len(f.Reasons) == 0 || contains(f.Reasons, e.Reason)) &&
		(len(f.Sources) == 0 || contains(f.Sources, e.Source)) &&
		(f.Domain == "" || DomainOf(e.Address) == f.Domain) && e.Address > f.After
}

func contains[T comparable](list []T, v T) bool {
	for _, have := range list {
		if have == v {
			return true
		}
	}
	return false
}

// Watcher is told what is in a Store. It must be quick, and not call the Store.
type Watcher interface {
	Set(e Entry)
	Unset(address string)
}

// Store keeps entries, the events that were taken and what was taken off the
// list. Addresses in it are normalised by its callers. It is safe for
// concurrent use.
type Store interface {
	// Attach tells w of every entry, and from then on of each change, in the
	// order in which they are made and before the call that made it returns.
	// There is one Watcher at most.
	Attach(ctx context.Context, w Watcher) error

	// Entry returns the entry of an address, expired ones included.
	Entry(ctx context.Context, address string) (Entry, bool, error)
	// Entries returns what matches, by address.
	Entries(ctx context.Context, f Filter) ([]Entry, error)

	// Put writes entries as they are, in the place of what was known, and
	// forgets that they were removed. They are durable when it returns.
	Put(ctx context.Context, entries []Entry) error
	// Remove takes addresses off the list, durably, and says how many were on
	// it. Those that were not are remembered as removed as well.
	Remove(ctx context.Context, addresses []string, at time.Time) (int, error)

	// LearnSoon makes of an entry what Learn says. It never waits, and may be
	// lost with a crash.
	LearnSoon(e Entry)
	// TakeEvent keeps an event and, if it makes one, learns an entry; both or
	// neither, durably. An event whose id was taken before changes nothing,
	// and is not fresh. address is the event's recipient, normalised.
	TakeEvent(ctx context.Context, e relay.Event, address string, learnt *Entry) (fresh bool, err error)

	// Tend removes entries that expired before now, and forgets events that
	// came and removals that were before forget, a few at a time: more says
	// that there are more.
	Tend(ctx context.Context, now, forget time.Time) (more bool, err error)
}
