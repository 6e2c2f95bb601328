package auth

import (
	"cmp"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxRemembered bounds each table: about a megabyte.
const maxRemembered = 10_000

// guesses counts wrong passwords: by address, whatever the user; and by user and the
// network around the address, because some guess with a whole network.
//
// A user who has logged in from an address before is not shut out there by these
// counts, but by a count of their own: nobody can shut that user out by guessing
// elsewhere, or by guessing other names there. What a stranger is told depends on the
// first two counts alone; otherwise the replies would tell which users exist.
type guesses struct {
	delay    time.Duration
	failures int
	time     time.Duration
	seed     maphash.Seed

	mu       sync.Mutex
	known    table // who has logged in from where
	address  table
	networks table
	running  map[key]int   // the attempts that are being checked
	ended    chan struct{} // closed when one of them has ended
}

func newGuesses(delay time.Duration, failures int, shutOut time.Duration) *guesses {
	return &guesses{
		delay: delay, failures: failures, time: shutOut, seed: maphash.MakeSeed(),
		known: newTable(maxRemembered), address: newTable(maxRemembered), networks: newTable(maxRemembered),
		running: map[key]int{}, ended: make(chan struct{}),
	}
}

// A key is a user, 0 for all, and where the client is. The name is hashed because the
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

// longest is how long the reply to a client that is shut out takes.
func (g *guesses) longest() time.Duration { return g.delay << 4 }

// An attempt is a login that is being checked.
type attempt struct {
	own, address, network key
	known                 bool // the user has logged in from there before
}

// A decision says whether a password may be checked.
type decision int

const (
	mayTry decision = iota
	mustWait
	shutOut
)

// begin decides whether a password may be checked. All that are being checked may turn
// out to be wrong; if that would be too many, the next one has to wait until ended is
// closed, which says that one of them has ended.
func (g *guesses) begin(addr netip.Addr, user string, now time.Time) (a attempt, d decision, ended <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a.own, a.address, a.network = g.keys(addr, user)
	if t := g.known.get(a.own); t != nil {
		a.known = true
		d = decide(t.since(now, g.time), g.running[a.own], g.failures)
	} else {
		d = max(
			decide(g.address.get(a.address).since(now, g.time), g.running[a.address], g.failures),
			decide(g.networks.get(a.network).since(now, g.time), g.running[a.network], 2*g.failures))
	}
	if d == mayTry {
		g.count(a, 1)
	}
	return a, d, g.ended
}

func decide(failed, running, most int) decision {
	switch {
	case failed >= most:
		return shutOut
	case failed+running >= most:
		return mustWait
	}
	return mayTry
}

// count counts a running attempt under each key under which its failure would count.
func (g *guesses) count(a attempt, n int) {
	for _, k := range []key{a.own, a.address, a.network} {
		if g.running[k] += n; g.running[k] == 0 {
			delete(g.running, k)
		}
	}
}

// end ends an attempt that was given up before its result was known.
func (g *guesses) end(a attempt) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.endLocked(a)
}

func (g *guesses) endLocked(a attempt) {
	g.count(a, -1)
	close(g.ended)
	g.ended = make(chan struct{})
}

// wrong ends an attempt with a wrong password. It returns how long the reply has to
// take, and whether the client is shut out now.
func (g *guesses) wrong(a attempt, now time.Time) (delay time.Duration, out bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.endLocked(a)
	if t := g.known.get(a.own); a.known && t != nil {
		out = t.add(now, g.time) >= g.failures
	}
	here, near := g.address.put(a.address).add(now, g.time), g.networks.put(a.network).add(now, g.time)
	if out || here >= g.failures || near >= 2*g.failures {
		return g.longest(), true
	}
	return g.delay << min(max(here, near)-1, 4), false
}

// right ends an attempt with the right password, and remembers where the user logged
// in from. The failures of the address stay: otherwise one good password would allow to
// guess others for ever.
func (g *guesses) right(a attempt) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.endLocked(a)
	*g.known.put(a.own) = tally{}
}

// A tally is a number of failures, which is forgotten some time after the last.
type tally struct {
	failures int
	last     time.Time
}

// since returns the number at a time; a nil tally has none.
func (t *tally) since(now time.Time, memory time.Duration) int {
	if t == nil || now.Sub(t.last) >= memory {
		return 0
	}
	return t.failures
}

// add counts a failure and returns the number.
func (t *tally) add(now time.Time, memory time.Duration) int {
	t.failures, t.last = t.since(now, memory)+1, now
	return t.failures
}

// A table forgets what was longest not used when it is full.
type table struct{ *simplelru.LRU[key, *tally] }

func newTable(size int) table {
	lru, _ := simplelru.NewLRU[key, *tally](size, nil) // its only error is a size of 0
	return table{lru}
}

// get returns nil for a key that is not in the table.
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

// maxKept bounds Logins, which are written to disk, and often.
const maxKept = 1000

// A Login is a user and the address, or IPv6 /64, from which the user has
// logged in. From is the zero Prefix for a unix socket.
type Login struct {
	User string
	From netip.Prefix
}

// Logins returns where users have logged in from: the last thousand at most, sorted.
// After a restart they go to Remember.
func (c *Checker) Logins() []Login {
	c.mu.Lock()
	names := make(map[uint64]string, len(c.users))
	for name := range c.users {
		names[c.guesses.id(name)] = name
	}
	c.mu.Unlock()
	var logins []Login
	for _, k := range c.guesses.logins() {
		if name, ok := names[k.user]; ok && len(logins) < maxKept {
			logins = append(logins, Login{name, k.from})
		}
	}
	slices.SortFunc(logins, func(a, b Login) int {
		return cmp.Or(cmp.Compare(a.User, b.User), a.From.Addr().Compare(b.From.Addr()), cmp.Compare(a.From.Bits(), b.From.Bits()))
	})
	return logins
}

// Remember remembers what Logins returned.
func (c *Checker) Remember(logins []Login) {
	g := c.guesses
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range logins {
		_ = g.known.put(key{g.id(l.User), l.From})
	}
}

// logins returns the known keys, the last used first.
func (g *guesses) logins() []key {
	g.mu.Lock()
	defer g.mu.Unlock()
	keys := g.known.Keys()
	slices.Reverse(keys)
	return keys
}
