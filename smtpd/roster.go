package smtpd

import (
	"cmp"
	"net/netip"
	"sync"

	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// A class is what a client may do, as far as the number of connections is
// bounded by it.
type class int

const (
	unknown  class = iota // its proxy has not told yet where it is from
	stranger              // may not send, unless it logs in
	user                  // has logged in
	inside                // is in a listener's networks, or came by a unix socket
	classes               // how many there are
)

// reservedPart of all connections is kept for clients that may send without a
// login, where there can be any.
const reservedPart = 4

// A roster is who is connected. It lets clients in, and turns them away when
// there are too many. So that clients that may not send do not keep out those
// that may:
//
//   - a part of all connections is for clients inside;
//   - a client inside that finds no room takes that of a stranger;
//   - a stranger that finds no room takes that of another one, of a listener or
//     an address that has more strangers than its own.
type roster struct {
	metrics *metrics

	mu        sync.Mutex
	limits    Limits
	reserved  int // of limits.Connections
	stopping  bool
	conns     map[*conn]struct{} // with those that were dropped and are not closed yet
	count     [classes]int
	strangers map[*port]int // as the rest, without zeros
	from      map[place]tally
	entered   uint64
}

// A place is where clients are counted together.
type place struct {
	origin netip.Prefix
	port   *port
}

type tally struct{ all, strangers int }

// A seat is a connection as the roster counts it. The roster alone writes it,
// and the connection's own goroutine may read it.
type seat struct {
	place   place
	class   class
	counted bool
	number  uint64 // in the order in which they came
}

func newRoster(l Limits, m *metrics) *roster {
	return &roster{metrics: m, limits: l, conns: map[*conn]struct{}{}, strangers: map[*port]int{}, from: map[place]tally{}}
}

// enter admits a connection, or says why not.
//
// Of a proxy's connections any number may come from its address: where they
// are really from is not known yet.
func (r *roster) enter(c *conn, at place, as class) *reply.Reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return reply.ShuttingDown()
	}
	r.entered++
	c.seat.number = r.entered
	if full := r.sit(c, at, as); full != nil {
		return full
	}
	r.conns[c] = struct{}{}
	r.metrics.opened.Inc()
	r.metrics.open.Inc()
	return nil
}

// move is enter again for a connection whose proxy told where it is from. One
// that is not admitted counts no more.
func (r *roster) move(c *conn, at place, as class) *reply.Reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !c.seat.counted {
		return nil // it was dropped, and hears of that
	}
	r.add(c, -1)
	return r.sit(c, at, as)
}

// classify changes what a client that is there already may do.
func (r *roster) classify(c *conn, as class) {
	r.mu.Lock()
	defer r.mu.Unlock()
	counted := c.seat.counted
	if counted {
		r.add(c, -1)
	}
	c.seat.class = as
	if counted {
		r.add(c, 1)
	}
}

func (r *roster) sit(c *conn, at place, as class) *reply.Reply {
	c.seat.place, c.seat.class = at, as
	switch {
	case as != unknown && r.from[at].all >= r.limits.ConnectionsPerAddress:
		r.metrics.hit(limitAddress)
		return reply.TooManyConnections()
	case !r.makeRoom(c):
		r.metrics.hit(limitConnections)
		return reply.TooManyConnections()
	}
	r.add(c, 1)
	return nil
}

// add counts a connection, or with -1 counts it no more.
func (r *roster) add(c *conn, n int) {
	s := &c.seat
	s.counted = n > 0
	r.count[s.class] += n
	t := r.from[s.place]
	t.all += n
	if s.class == stranger {
		t.strangers += n
		if r.strangers[s.place.port] += n; r.strangers[s.place.port] == 0 {
			delete(r.strangers, s.place.port)
		}
	}
	r.from[s.place] = t
	if t.all == 0 {
		delete(r.from, s.place)
	}
}

// makeRoom reports whether there is room for one more, for which it may drop
// another.
func (r *roster) makeRoom(c *conn) bool {
	outside := r.count[stranger] + r.count[user]
	all := outside + r.count[unknown] + r.count[inside]
	if all < r.limits.Connections && (c.seat.class != stranger || outside < r.limits.Connections-r.reserved) {
		return true
	}
	victim := r.victim(c)
	if victim == nil {
		return false
	}
	r.add(victim, -1)
	r.metrics.hit(limitConnections)
	victim.drop()
	return true
}

// victim is the stranger that makes room for a connection, nil for nobody: the
// oldest from where there are most.
func (r *roster) victim(newcomer *conn) (v *conn) {
	for c := range r.conns {
		switch {
		case !c.seat.counted || c.seat.class != stranger:
		case newcomer.seat.class == stranger && !r.yields(c.seat.place, newcomer.seat.place):
		case v == nil || r.heavier(c, v):
			v = c
		}
	}
	return v
}

// yields reports whether a stranger at one place makes room for another one's:
// when there are more of its kind even after that.
func (r *roster) yields(at, to place) bool {
	if at.port != to.port {
		return r.strangers[at.port] > r.strangers[to.port]+1
	}
	return r.from[at].strangers > r.from[to].strangers+1
}

func (r *roster) heavier(a, b *conn) bool {
	x, y := a.seat, b.seat
	return cmp.Or(
		cmp.Compare(r.strangers[x.place.port], r.strangers[y.place.port]),
		cmp.Compare(r.from[x.place].strangers, r.from[y.place].strangers),
		cmp.Compare(y.number, x.number)) > 0
}

func (r *roster) leave(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	r.metrics.open.Dec()
	if c.seat.counted {
		r.add(c, -1)
	}
}

// stop lets nobody in any more and stops those who are.
func (r *roster) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopping = true
	for c := range r.conns {
		c.stop()
	}
}

// stopAt stops those who came by a port that is no more.
func (r *roster) stopAt(p *port) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		if c.port == p {
			c.stop()
		}
	}
}

// apply changes the limits for who comes from now on. somebody says whether
// there can be clients inside.
func (r *roster) apply(l Limits, somebody bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limits, r.reserved = l, 0
	if somebody {
		r.reserved = l.Connections / reservedPart
	}
}

// abort cuts those who are still here, and returns how many they are.
func (r *roster) abort() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.abort()
	}
	return len(r.conns)
}
