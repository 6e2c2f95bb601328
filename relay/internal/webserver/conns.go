package webserver

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// listener accepts no more connections than the limits allow; those of clients
// that proved who they are (Trust) count among all, but not for their address. One
// that is too many takes the place of one that has proved nothing and is older
// than the grace: of the same address if that has too many, else of the address
// that has most. Where there is none, the address is refused, or all wait.
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

// admit finds a place for a connection. It waits while all that there is belongs
// to others who are served.
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
	count := map[netip.Prefix]int{}
	for other := range l.conns {
		if !other.trusted {
			count[other.from]++
		}
	}
	crowd := count[c.from] >= l.limits.PerAddress && c.from.IsValid() // not on a unix socket
	if crowd || len(l.conns) >= l.limits.Connections {
		for other := range l.conns {
			if crowd && other.from != c.from || other.trusted || time.Since(other.since) < l.limits.Grace {
				continue
			}
			if victim == nil || count[other.from] > count[victim.from] || count[other.from] == count[victim.from] && other.since.Before(victim.since) {
				victim = other
			}
		}
		if victim == nil {
			return false, nil, crowd
		}
		delete(l.conns, victim)
	}
	l.conns[c] = struct{}{}
	return true, victim, false
}

// conn is a connection that is counted.
type conn struct {
	net.Conn
	listener *listener
	from     netip.Prefix // whose it is; not valid on a unix socket

	// Guarded by the listener's mu.
	since   time.Time // when it last began or ended a request
	trusted bool      // its client proved who it is
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

// changed is told of the connection's states.
func (c *conn) changed(state http.ConnState) {
	if c == nil || state != http.StateActive && state != http.StateIdle {
		return
	}
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	c.since = time.Now()
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
