package auth

import (
	"container/list"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// maxRemembered bounds each table: about a megabyte.
const maxRemembered = 10_000

// guesses counts wrong passwords, in three ways that keep one client's wrong
// passwords from being another's trouble:
//
// Of a user at an address from which that user has logged in before, alone:
// nobody who guesses elsewhere, or guesses other names there, can shut that
// user out of it.
//
// Otherwise by address, whatever the user; and by user and the network around
// the address, for those who guess with a whole network.
type guesses struct {
	delay    time.Duration
	failures int
	time     time.Duration
	seed     maphash.Seed

	mu       sync.Mutex
	known    *table // who has logged in from where
	address  *table
	networks *table
}

func newGuesses(delay time.Duration, failures int, shutOut time.Duration) *guesses {
	return &guesses{
		delay: delay, failures: failures, time: shutOut, seed: maphash.MakeSeed(),
		known: newTable(maxRemembered), address: newTable(maxRemembered), networks: newTable(maxRemembered),
	}
}

// key is a user, 0 for all, and where from. The name is hashed because the
// client chooses how long it is.
type key struct {
	user uint64
	from netip.Prefix
}

func (g *guesses) keys(addr netip.Addr, user string) (own, address, network key) {
	one, around := 32, 24
	if addr.Is6() {
		one, around = 64, 48 // what one client has, and one site
	}
	here, _ := addr.Prefix(one) // an error leaves the zero Prefix, for unix sockets
	near, _ := addr.Prefix(around)
	id := maphash.String(g.seed, user) | 1
	return key{id, here}, key{0, here}, key{id, near}
}

// shutOut reports whether nothing is to be looked at.
func (g *guesses) shutOut(addr netip.Addr, user string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	own, address, network := g.keys(addr, user)
	if t := g.known.get(own); t != nil {
		return t.since(now, g.time) >= g.failures
	}
	return g.address.get(address).since(now, g.time) >= g.failures ||
		g.networks.get(network).since(now, g.time) >= 2*g.failures
}

// wrong counts a wrong password and returns how long its reply is to take, and
// whether it was one too many.
func (g *guesses) wrong(addr netip.Addr, user string, now time.Time) (delay time.Duration, shutOut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	own, address, network := g.keys(addr, user)
	var n int
	if t := g.known.get(own); t != nil {
		n = t.count(now, g.time)
		shutOut = n >= g.failures
	} else {
		here, near := g.address.put(address).count(now, g.time), g.networks.put(network).count(now, g.time)
		n = max(here, near)
		shutOut = here >= g.failures || near >= 2*g.failures
	}
	return g.delay << min(n-1, 4), shutOut
}

// right remembers where a user logged in from. It forgives nothing to the
// address: with one good password others could be guessed for ever.
func (g *guesses) right(addr netip.Addr, user string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	own, _, _ := g.keys(addr, user)
	*g.known.put(own) = tally{}
}

// tally is a number of failures, forgotten some time after the last.
type tally struct {
	failures int
	last     time.Time
}

// since is the number at a time; a nil tally has none.
func (t *tally) since(now time.Time, memory time.Duration) int {
	if t == nil || now.Sub(t.last) >= memory {
		return 0
	}
	return t.failures
}

func (t *tally) count(now time.Time, memory time.Duration) int {
	t.failures, t.last = t.since(now, memory)+1, now
	return t.failures
}

// A table forgets what was longest out of use when it is full.
type table struct {
	max   int
	at    map[key]*list.Element
	order *list.List // of entries, last used first
}

type entry struct {
	key   key
	tally tally
}

func newTable(size int) *table {
	return &table{max: size, at: map[key]*list.Element{}, order: list.New()}
}

// get is nil for what is not in the table.
func (t *table) get(k key) *tally {
	e, ok := t.at[k]
	if !ok {
		return nil
	}
	t.order.MoveToFront(e)
	return &e.Value.(*entry).tally
}

func (t *table) put(k key) *tally {
	if found := t.get(k); found != nil {
		return found
	}
	if len(t.at) >= t.max {
		last := t.order.Back()
		delete(t.at, t.order.Remove(last).(*entry).key)
	}
	e := &entry{key: k}
	t.at[k] = t.order.PushFront(e)
	return &e.tally
}
