package webserver

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// listener accepts no more connections than the limits allow, and never waits
// for a stranger. Who proved who they are (Trust) keep their places, and do not
// count for their address. One connection too many takes the place of another
// stranger's, of the address that holds most; or it is refused, when its own
// address would hold most and has had no time yet to say what it wants.
type listener struct {
	net.Listener
	limits Limits
	room   chan struct{} // has a value when a connection ended
	once   sync.Once
	closed chan struct{}

	mu    sync.Mutex
	conns map[*conn]struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: nc, listener: l, from: origin(nc.RemoteAddr()), since: time.Now()}
		if l.admit(c) {
			return c, nil
		}
		_ = nc.Close() // refused
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// admit finds a place for a connection. It waits only while all places belong to
// clients that are trusted, or on a unix socket, where nobody is a stranger.
func (l *listener) admit(c *conn) bool {
	for {
		placed, victim, refused := l.place(c)
		if victim != nil {
			_ = victim.Conn.Close()
		}
		if placed || refused {
			return placed
		}
		again := time.NewTimer(l.limits.Grace)
		select {
		case <-l.room:
		case <-again.C:
		case <-l.closed:
			again.Stop()
			return false
		}
		again.Stop()
	}
}

// place takes a place for c, if need be that of victim, which is to be closed.
func (l *listener) place(c *conn) (placed bool, victim *conn, refused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := map[netip.Prefix]int{c.from: 1} // by strangers, with c
	for other := range l.conns {
		if !other.trusted {
			held[other.from]++
		}
	}
	crowd := held[c.from] > l.limits.PerAddress && c.from.IsValid()
	if crowd || len(l.conns) >= l.limits.Connections {
		if victim = l.victim(c, held, crowd); victim == nil {
			strangers := len(held) > 1 || held[c.from] > 1
			return false, nil, strangers && c.from.IsValid()
		}
		delete(l.conns, victim)
	}
	l.conns[c] = struct{}{}
	return true, victim, false
}

// victim is the connection that makes room for c: of c's address if that is a
// crowd, else of the address that holds most. One that holds more than c's does
// with c has no grace: else the few addresses that come most often would have all
// places, and somebody who comes once would have none. One that holds less than
// half makes no room at all.
func (l *listener) victim(c *conn, held map[netip.Prefix]int, crowd bool) *conn {
	own := held[c.from]
	var victim *conn
	for other := range l.conns {
		theirs := held[other.from]
		if other.trusted || crowd && other.from != c.from || theirs < (own+1)/2 {
			continue
		}
		if theirs <= own && time.Since(other.since) < l.grace(other) {
			continue
		}
		if victim == nil || theirs > held[victim.from] || theirs == held[victim.from] && other.before(victim) {
			victim = other
		}
	}
	return victim
}

// grace is how long a connection has before it makes room. What an honest client
// wants comes with the connection; who says nothing has a twentieth of the time.
// Between two requests there is none: each client has to expect the end there
// (RFC 9112 section 9.5).
func (l *listener) grace(c *conn) time.Duration {
	switch {
	case c.heard.Load():
		return l.limits.Grace
	case c.idle:
		return 0
	}
	return l.limits.Grace / 20
}

// conn is a connection that is counted.
type conn struct {
	net.Conn
	listener *listener
	from     netip.Prefix // whose it is; not valid on a unix socket
	heard    atomic.Bool  // something came since it was accepted, or since the last answer

	// Guarded by the listener's mu.
	since   time.Time // when it last began or ended a request
	idle    bool      // it is between two requests
	trusted bool      // its client proved who it is
}

// before reports whether c makes room before other does: the silent do, and then
// the oldest.
func (c *conn) before(other *conn) bool {
	if mine, theirs := c.heard.Load(), other.heard.Load(); mine != theirs {
		return theirs
	}
	return c.since.Before(other.since)
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.heard.Store(true)
	}
	return n, err
}

// Write bounds each write, so that a client that does not read is left. It is
// not http.Server.WriteTimeout, which bounds the handler as well.
func (c *conn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.listener.limits.WriteTime)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *conn) Close() error {
	l := c.listener
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
	select {
	case l.room <- struct{}{}:
	default:
	}
	return c.Conn.Close()
}

// changed is called when the connection changes its state.
func (c *conn) changed(state http.ConnState) {
	if c == nil || state != http.StateActive && state != http.StateIdle {
		return
	}
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	c.since = time.Now()
	if c.idle = state == http.StateIdle; c.idle {
		c.heard.Store(false)
	}
}

type connKey struct{}

// Trust says that the client of a request proved who it is: its connection does
// not have to make room for others any more.
func Trust(ctx context.Context) {
	if c, _ := ctx.Value(connKey{}).(*conn); c != nil {
		c.listener.mu.Lock()
		defer c.listener.mu.Unlock()
		c.trusted = true
	}
}

// ours is the counted connection under c; nil if there is none.
func ours(c net.Conn) *conn {
	if under, ok := c.(interface{ NetConn() net.Conn }); ok { // *tls.Conn
		c = under.NetConn()
	}
	mine, _ := c.(*conn)
	return mine
}

// origin is the network that counts as one client: an IPv4 address, or the /64
// that an IPv6 customer has at least.
func origin(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // the bits are right
	return p
}
