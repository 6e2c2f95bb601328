// Package suppress has the list of addresses to which no mail is sent. relay/intake
// asks it at RCPT. The API (relay/attempt), the provider's events (relay/webhook) and
// the operator (relay/admin) add to it.
//
// The List answers from memory. A Store keeps its entries: Memory in this package, or an
// engine below relay/store. The package suppresstest tests all of them against the contract.
package suppress

import (
	"context"
	"slices"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

// Reason says why an address is suppressed. A greater one is stronger: it stays when
// another one comes.
type Reason uint8

// The reasons. Unsubscribe only marks an address, unless the operator decides
// otherwise: somebody who left a newsletter still wants receipts.
const (
	Unsubscribe Reason = iota + 1
	Provider           // the API said so, without a reason
	Complaint
	HardBounce
	Operator
)

const reasonCount = int(Operator) + 1

// Reasons returns all reasons.
func Reasons() []Reason { return []Reason{HardBounce, Complaint, Unsubscribe, Provider, Operator} }

// String returns the name of the reason in files and on the command line.
func (r Reason) String() string {
	return [reasonCount]string{"unknown", "unsubscribe", "provider", "complaint", "hard_bounce", "operator"}[r.valid()]
}

// Words returns the reason for an SMTP client.
func (r Reason) Words() string {
	return [reasonCount]string{"unknown", "unsubscribed", "on the provider's suppression list", "complaint", "hard bounce", "by the operator"}[r.valid()]
}

func (r Reason) valid() Reason {
	if int(r) >= reasonCount {
		return 0
	}
	return r
}

// ParseReason returns the reason with a name.
func ParseReason(name string) (Reason, bool) {
	for _, r := range Reasons() {
		if r.String() == name {
			return r, true
		}
	}
	return 0, false
}

// Source says where an entry comes from.
type Source uint8

// The sources.
const (
	API Source = iota + 1
	Webhook
	ByOperator
)

const sourceCount = int(ByOperator) + 1

// Sources returns all sources.
func Sources() []Source { return []Source{API, Webhook, ByOperator} }

// String returns the name of the source.
func (s Source) String() string {
	if int(s) >= sourceCount {
		s = 0
	}
	return [sourceCount]string{"unknown", "api", "webhook", "operator"}[s]
}

// ParseSource returns the source with a name.
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
	Since   time.Time // when the bounce, complaint or the like happened
	Expires time.Time // zero: never
	Event   string    // the id of the event that caused the entry
	Detail  string    // the words of the provider
	Note    string    // the words of the operator
}

// Expired reports whether an entry has expired.
func (e Entry) Expired(now time.Time) bool { return !e.Expires.IsZero() && !now.Before(e.Expires) }

// mark reports whether an entry only marks the address. One that the operator added
// suppresses.
func (e Entry) mark() bool { return e.Reason == Unsubscribe && e.Source != ByOperator }

// lasts reports whether e lasts at least as long as o.
func (e Entry) lasts(o Entry) bool {
	return e.Expires.IsZero() || !o.Expires.IsZero() && !e.Expires.Before(o.Expires)
}

// Merge combines the entry of an address with one that was learnt at now. The entry
// with the stronger reason stays, and lasts as long as the one that lasts longer. Only
// an entry that lasts longer replaces one of the operator. A mark neither replaces nor
// prolongs an entry that suppresses.
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

// Learn is Merge for an address that was removed from the list at a time, or never if
// that is zero. An entry about something before that time changes nothing. The times of
// the provider are whole seconds.
func Learn(old, learnt Entry, removed, now time.Time) (Entry, bool) {
	if !removed.IsZero() && learnt.Since.Before(removed.Truncate(time.Second)) {
		return old, false
	}
	e := Merge(old, learnt, now)
	return e, e != old
}

// Filter selects entries. They match all fields that are set.
type Filter struct {
	Reasons []Reason
	Sources []Source
	Domain  string // normalised, without @
	After   string // only addresses that sort after this one
	Limit   int    // the most entries; 0 is all
}

// Matches reports whether the filter selects an entry. It ignores Limit.
func (f Filter) Matches(e Entry) bool {
	return (len(f.Reasons) == 0 || slices.Contains(f.Reasons, e.Reason)) &&
		(len(f.Sources) == 0 || slices.Contains(f.Sources, e.Source)) &&
		(f.Domain == "" || DomainOf(e.Address) == f.Domain) && e.Address > f.After
}

// Watcher is told every change of a Store. Its methods must be quick and must not call
// the Store.
type Watcher interface {
	Set(e Entry)
	Unset(address string)
}

// Store keeps entries, the ids of events, and which addresses were removed. Callers
// normalise the addresses. It is safe for concurrent use.
type Store interface {
	// Attach tells w every entry, and from then on every change: in order, and
	// before the call that made the change returns. There is at most one Watcher.
	Attach(ctx context.Context, w Watcher) error

	// Entry returns the entry of an address, also an expired one.
	Entry(ctx context.Context, address string) (Entry, bool, error)
	// Entries returns the entries that match, sorted by address.
	Entries(ctx context.Context, f Filter) ([]Entry, error)

	// Put writes entries as they are, replaces what is there, and forgets that they
	// were removed. They are durable when it returns.
	Put(ctx context.Context, entries []Entry) error
	// Remove takes addresses off the list, durably, and returns how many were on it.
	// It remembers all of them as removed.
	Remove(ctx context.Context, addresses []string, at time.Time) (int, error)

	// LearnSoon applies Learn. It never waits, and a crash may lose it.
	LearnSoon(e Entry)
	// TakeEvent stores an event and, if learnt is set, applies Learn: both or
	// neither, durably. An event with a known id changes nothing and is not fresh.
	// address is the event's recipient, normalised.
	TakeEvent(ctx context.Context, e relay.Event, address string, learnt *Entry) (fresh bool, err error)

	// Tend removes some entries that expired before now, and forgets some events and
	// removals from before forget. more says whether to call it again.
	Tend(ctx context.Context, now, forget time.Time) (more bool, err error)
}
