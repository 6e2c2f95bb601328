package suppress

import (
	"hash/maphash"
	"math"
	"sync"
	"time"
)

// index answers RCPT: it has, for each address, what a reply and Merge need. It does not
// store addresses, but hashes of them. The hash is too long for two addresses to have
// the same one by chance, and has secret seeds, so that nobody can make one on purpose.
// So the index has no pointers, and a million entries are no work for the garbage
// collector.
type index struct {
	seeds [2]maphash.Seed

	mu     sync.RWMutex
	slots  map[key]slot
	counts [reasonCount][sourceCount]int
}

type key struct{ a, b uint64 }

// slot is a short form of an entry. Times are seconds since 1970.
type slot struct {
	since, expires uint32 // expires: 0 is never
	reason         Reason
	source         Source
}

var _ Watcher = (*index)(nil)

func newIndex() *index {
	return &index{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, slots: map[key]slot{}}
}

func (x *index) key(address string) key {
	return key{maphash.String(x.seeds[0], address), maphash.String(x.seeds[1], address)}
}

// find returns the entry of a normalised address.
func (x *index) find(address string) (Entry, bool) {
	k := x.key(address)
	x.mu.RLock()
	s, ok := x.slots[k]
	x.mu.RUnlock()
	if !ok {
		return Entry{}, false
	}
	return s.entry(address), true
}

// Set implements Watcher.
func (x *index) Set(e Entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.set(x.key(e.Address), e)
}

func (x *index) set(k key, e Entry) {
	if old, ok := x.slots[k]; ok {
		x.counts[old.reason.valid()][old.source]--
	}
	s := slotOf(e)
	x.slots[k] = s
	x.counts[s.reason.valid()][s.source]++
}

// Unset implements Watcher.
func (x *index) Unset(address string) {
	k := x.key(address)
	x.mu.Lock()
	defer x.mu.Unlock()
	if old, ok := x.slots[k]; ok {
		x.counts[old.reason.valid()][old.source]--
		delete(x.slots, k)
	}
}

// learn merges an entry at once, before the store has it.
func (x *index) learn(e Entry, now time.Time) {
	k := x.key(e.Address)
	x.mu.Lock()
	defer x.mu.Unlock()
	var old Entry
	if s, ok := x.slots[k]; ok {
		old = s.entry(e.Address)
	}
	x.set(k, Merge(old, e, now))
}

func (x *index) count(r Reason, s Source) int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.counts[r][s]
}

func slotOf(e Entry) slot {
	s := slot{since: seconds(e.Since), expires: seconds(e.Expires), reason: e.Reason, source: min(e.Source, ByOperator)}
	if !e.Expires.IsZero() {
		s.expires = max(s.expires, 1)
	}
	return s
}

func (s slot) entry(address string) Entry {
	e := Entry{Address: address, Reason: s.reason, Source: s.source}
	if s.since > 0 {
		e.Since = time.Unix(int64(s.since), 0).UTC()
	}
	if s.expires > 0 {
		e.Expires = time.Unix(int64(s.expires), 0).UTC()
	}
	return e
}

// seconds shortens a time: one that is too early becomes 0, one that is too late the
// year 2106.
func seconds(t time.Time) uint32 {
	if t.IsZero() {
		return 0
	}
	return uint32(min(max(t.Unix(), 0), math.MaxUint32))
}
