package sandbox

import (
	"context"
	"hash/maphash"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	keptBytes         = 64 << 20 // of bodies, whatever Keep is
	keptDuplicateKeys = 20
)

// ledger remembers calls. It counts all keys and recipients, in some 90 bytes a
// mail: it stores 64-bit digests. With ten million keys, the chance that two have
// the same digest is three in a million.
type ledger struct {
	seed maphash.Seed
	run  string // prefix of every message_id, so that two runs share none

	mu         sync.Mutex
	changed    chan struct{} // closed at the next change; nil when nobody waits
	stats      Stats
	keys       map[uint64]keyEntry
	recipients map[uint64]uint32
	tries      map[string]int // calls to magic recipients with a number
	ring       []Call         // the newest is at (number-1) % len
	number     int            // calls recorded
	bodies     int            // number of the oldest call that still has its body
	bodyBytes  int
	lastID     uint64
}

// keyEntry is what is known of an accepted key.
type keyEntry struct {
	first uint64 // number of its first message_id
	to    uint32 // digest of the recipient
	count uint32
}

func newLedger(keep int) *ledger {
	l := &ledger{
		seed: maphash.MakeSeed(),
		run:  "msg_" + strconv.FormatInt(time.Now().UnixMilli(), 36),
		ring: make([]Call, keep),
	}
	l.clear()
	return l
}

func (l *ledger) digest(s string) uint64 { return maphash.String(l.seed, s) }

func (l *ledger) digestAddress(s string) uint64 { return l.digest(strings.ToLower(s)) }

// clear forgets everything except the calls in flight and the last message_id.
func (l *ledger) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats = Stats{InFlight: l.stats.InFlight, ByStatus: map[int]int{}, DuplicateKeys: []string{}, Events: map[string]int{}}
	l.keys = map[uint64]keyEntry{}
	l.recipients = map[uint64]uint32{}
	l.tries = map[string]int{}
	clear(l.ring)
	l.number, l.bodies, l.bodyBytes = 0, 0, 0
	l.notify()
}

// notify wakes those who wait for a change. The caller holds the lock.
func (l *ledger) notify() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// flight adds n to the calls in flight.
func (l *ledger) flight(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.InFlight += n
	l.notify()
}

// try counts a call to a magic recipient and returns its number, from 1.
func (l *ledger) try(to string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	to = strings.ToLower(to)
	l.tries[to]++
	return l.tries[to]
}

// conflict reports whether a key was accepted for another recipient, and counts that.
func (l *ledger) conflict(key, to string) bool {
	if key == "" {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.keys[l.digest(key)]
	if !ok || e.to == uint32(l.digestAddress(to)) {
		return false
	}
	l.stats.KeyConflicts++
	return true
}

// settle records a call. If the mail is taken, it counts the mail and sets its
// message_id; with idempotent, a known key gets its first message_id again. settle
// reports whether a mail was sent.
func (l *ledger) settle(c *Call, taken, idempotent bool) (sent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.lastID
	if taken {
		c.MessageID = l.messageID(l.accept(c, idempotent))
	}
	l.stats.Calls++
	l.stats.ByStatus[c.Status]++
	l.keep(*c)
	l.notify()
	return l.lastID != before
}

// told counts an event by how the webhook answered it.
func (l *ledger) told(kind string, status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if status == http.StatusOK {
		l.stats.Events[kind]++
	} else {
		l.stats.EventsRefused++
	}
	l.notify()
}

// accept counts a mail that is taken and returns the number of its message_id.
func (l *ledger) accept(c *Call, idempotent bool) uint64 {
	if c.IdempotencyKey == "" {
		l.deliver(c.To)
		l.stats.WithoutKey++
		return l.lastID
	}
	key := l.digest(c.IdempotencyKey)
	e, again := l.keys[key]
	if again && idempotent {
		l.stats.Replayed++
		return e.first
	}
	l.deliver(c.To)
	if !again {
		l.stats.Keys++
		e = keyEntry{first: l.lastID, to: uint32(l.digestAddress(c.To))}
	}
	if e.count++; e.count == 2 {
		l.stats.Duplicates++
		if len(l.stats.DuplicateKeys) < keptDuplicateKeys {
			l.stats.DuplicateKeys = append(l.stats.DuplicateKeys, c.IdempotencyKey)
		}
	}
	l.keys[key] = e
	return l.lastID
}

func (l *ledger) deliver(to string) {
	l.stats.Accepted++
	l.recipients[l.digestAddress(to)]++
	l.lastID++
}

func (l *ledger) messageID(n uint64) string {
	s := strconv.FormatUint(n, 36)
	const width = "000000"
	return l.run + width[min(len(s), len(width)):] + s
}

// keep puts a call into the ring, and drops the oldest bodies above keptBytes.
func (l *ledger) keep(c Call) {
	if len(l.ring) == 0 {
		return
	}
	slot := &l.ring[l.number%len(l.ring)]
	l.bodyBytes += len(c.Body) - len(slot.Body)
	*slot = c
	l.number++
	l.bodies = max(l.bodies, l.number-len(l.ring))
	for l.bodyBytes > keptBytes && l.bodies < l.number-1 {
		old := &l.ring[l.bodies%len(l.ring)]
		l.bodyBytes -= len(old.Body)
		old.Body = nil
		l.bodies++
	}
}

// calls returns the remembered calls, the oldest first.
func (l *ledger) calls() []Call {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(l.number, len(l.ring))
	list := make([]Call, 0, n)
	for i := l.number - n; i < l.number; i++ {
		list = append(list, l.ring[i%len(l.ring)])
	}
	return list
}

func (l *ledger) snapshot() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.statsLocked()
}

func (l *ledger) statsLocked() Stats {
	s := l.stats
	s.DuplicateKeys = slices.Clone(s.DuplicateKeys)
	s.ByStatus = make(map[int]int, len(l.stats.ByStatus))
	for status, n := range l.stats.ByStatus {
		s.ByStatus[status] = n
	}
	s.Events = maps.Clone(l.stats.Events)
	return s
}

func (l *ledger) acceptedKey(key string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(l.keys[l.digest(key)].count)
}

func (l *ledger) acceptedFor(to string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(l.recipients[l.digestAddress(to)])
}

// wait returns when cond holds or the context ends.
func (l *ledger) wait(ctx context.Context, cond func(Stats) bool) error {
	for {
		l.mu.Lock()
		s := l.statsLocked()
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		if cond(s) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
