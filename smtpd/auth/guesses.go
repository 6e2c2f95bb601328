package auth

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxRemembered bounds each table: about a megabyte.
const maxRemembered = 10_000

// guesses counts wrong passwords by address, whatever the user, and by user and
// the network around the address, for those who guess with a whole network.
//
// A user who has logged in from an address before is not shut out there by
// these counts, but by a count of their own: nobody who guesses elsewhere, or
// guesses other names there, can shut that user out. What a stranger is told
// depends on the first two counts alone, or the replies would tell which names
// are those of users.
type guesses struct {
	delay    time.Duration
	failures int
	time     time.Duration
	seed     maphash.Seed

	mu       sync.Mutex
	known    table // who has logged in from where
	address  table
	networks table
	flying   map[key]int   // attempts that are being looked at
	landed   chan struct{} // closed when one of them ended
}

func newGuesses(delay time.Duration, failures int, shutOut time.Duration) *guesses {
	return &guesses{
		delay: delay, failures: failures, time: shutOut, seed: maphash.MakeSeed(),
		known: newTable(maxRemembered), address: newTable(maxRemembered), networks: newTable(maxRemembered),
		flying: map[key]int{}, landed: make(chan struct{}),
	}
}

// key is a user, 0 for all, and where from. The name is hashed because the
// client chooses how long it is.
type key struct {
	user uint64
	from netip.Prefix
}

func (g *guesses) id(user string) uint64 { return maphash.String(g.seed, user) | 1 }

func (g *guesses) keys(addr netip.Addr, user string) (own, address, network key) {
	one, around := 32, 24
	if addr.Is6() {
		one, around = 64, 48 // what one client has, and one site
	}
	here, _ := addr.Prefix(one) // an error leaves the zero Prefix, for unix sockets
	near, _ := addr.Prefix(around)
	id := g.id(user)
	return key{id, here}, key{0, here}, key{id, near}
}

// longest is how long the reply to one who is shut out takes.
func (g *guesses) longest() time.Duration { return g.delay << 4 }

// attempt is one that is being looked at.
type attempt struct {
	own, address, network key
	known                 bool // the user has logged in from there before
}

// A standing says whether an attempt may be looked at.
type standing int

const (
	mayTry standing = iota
	mustWait
	shutOut
)

// begin lets an attempt be looked at, or says why not. Those that are being
// looked at may all turn out to be wrong; where they would be too many, the
// next one has to wait until one has ended, which landed tells.
func (g *guesses) begin(addr netip.Addr, user string, now time.Time) (a attempt, s standing, landed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a.own, a.address, a.network = g.keys(addr, user)
	if t := g.known.get(a.own); t != nil {
		a.known = true
		s = g.standing(t.since(now, g.time), g.flying[a.own], g.failures)
	} else {
		s = max(
			g.standing(g.address.get(a.address).since(now, g.time), g.flying[a.address], g.failures),
			g.standing(g.networks.get(a.network).since(now, g.time), g.flying[a.network], 2*g.failures))
	}
	if s == mayTry {
		g.fly(a, 1)
	}
	return a, s, g.landed
}

func (g *guesses) standing(failed, flying, most int) standing {
	switch {
	case failed >= most:
		return shutOut
	case failed+flying >= most:
		return mustWait
	}
	return mayTry
}

// fly counts an attempt under each key that its failure would be counted under.
func (g *guesses) fly(a attempt, n int) {
	for _, k := range []key{a.own, a.address, a.network} {
		if g.flying[k] += n; g.flying[k] == 0 {
			delete(g.flying, k)
		}
	}
}

// end is the end of an attempt that came to nothing.
func (g *guesses) end(a attempt) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.land(a)
}

func (g *guesses) land(a attempt) {
	g.fly(a, -1)
	close(g.landed)
	g.landed = make(chan struct{})
}

// wrong ends an attempt with a wrong password. It returns how long the reply is
// to take, and whether it was one too many.
func (g *guesses) wrong(a attempt, now time.Time) (delay time.Duration, out bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.land(a)
	if t := g.known.get(a.own); a.known && t != nil {
		out = t.count(now, g.time) >= g.failures
	}
	here, near := g.address.put(a.address).count(now, g.time), g.networks.put(a.network).count(now, g.time)
	if out || here >= g.failures || near >= 2*g.failures {
		return g.longest(), true
	}
	return g.delay << min(max(here, near)-1, 4), false
}

// right ends an attempt with the right password, and remembers where the user
// logged in from. It forgives nothing to the address: with one good password
// others could be guessed for ever.
func (g *guesses) right(a attempt) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.land(a)
	*g.known.put(a.own) = tally{}
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
	*simplelru.LRU[key, *tally]
}

func newTable(size int) table {
	lru, _ := simplelru.NewLRU[key, *tally](size, nil) // its only error is a size of 0
	return table{lru}
}

// get is nil for what is not in the table.
func (t table) get(k key) *tally {
	found, _ := t.Get(k)
	return found
}

func (t table) put(k key) *tally {
	found := t.get(k)
	if found == nil {
		found = &tally{}
		t.Add(k, found)
	}
	return found
}
