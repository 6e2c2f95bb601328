// Package suppress remembers which addresses must not be sent to, so that
// relay/intake can refuse them at RCPT. relay/attempt adds what the API says.
// It is memory only: an address that is forgotten costs one more API call,
// which teaches it again.
package suppress

import (
	"container/list"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/idna"
)

// Reason is why an address is suppressed.
type Reason string

// The reasons, as they are said to people.
const (
	HardBounce Reason = "hard bounce"
	Complaint  Reason = "complaint"
	Provider   Reason = "on the provider's suppression list"
)

// Entry is one suppressed address.
type Entry struct {
	Address string // normalised
	Reason  Reason
	Since   time.Time
	Expires time.Time // zero: never
}

// List is a bounded set of entries, safe for concurrent use. When it is full
// the oldest entry makes room.
type List struct {
	capacity int
	keep     time.Duration

	mu      sync.Mutex
	entries map[string]*list.Element
	oldest  *list.List // of Entry, oldest first
}

// New returns an empty list of at most capacity entries, each of which expires
// after keep: a local memory must not outlive the provider's list unnoticed.
func New(capacity int, keep time.Duration) *List {
	return &List{
		capacity: max(capacity, 1),
		keep:     keep,
		entries:  make(map[string]*list.Element),
		oldest:   list.New(),
	}
}

// Add remembers that address is suppressed since now. An address that is known
// already keeps its first date and reason and expires later.
func (l *List) Add(address string, reason Reason, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	entry := Entry{Address: Normalise(address), Reason: reason, Since: now, Expires: now.Add(l.keep)}
	if e, known := l.entries[entry.Address]; known {
		if before := e.Value.(Entry); now.Before(before.Expires) {
			entry.Reason, entry.Since = before.Reason, before.Since
		}
		l.remove(e)
	} else if len(l.entries) >= l.capacity {
		l.remove(l.oldest.Front())
	}
	l.entries[entry.Address] = l.oldest.PushBack(entry)
}

// Lookup returns the entry of a suppressed address.
func (l *List) Lookup(address string, now time.Time) (Entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[Normalise(address)]
	if !ok {
		return Entry{}, false
	}
	entry := e.Value.(Entry)
	if !now.Before(entry.Expires) {
		l.remove(e)
		return Entry{}, false
	}
	return entry, true
}

func (l *List) remove(e *list.Element) {
	delete(l.entries, e.Value.(Entry).Address)
	l.oldest.Remove(e)
}

// Normalise returns the form in which addresses are compared: the domain
// without case and in its ASCII form (RFC 5890), the local part without case,
// which no provider distinguishes. Dots and +tags stay: to some hosts they
// are other mailboxes, and merging too much would refuse good mail.
func Normalise(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return strings.ToLower(address)
	}
	local, domain := strings.ToLower(address[:at]), strings.ToLower(strings.TrimSuffix(address[at+1:], "."))
	if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
		domain = ascii
	}
	return local + "@" + domain
}
