package smtpd

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
)

// ErrNoLocal is returned by Dial when no listener takes mail from this machine without a
// login and without TLS.
var ErrNoLocal = errors.New("no [[listener]] takes mail from this machine without a login and without TLS")

// A Local is a connection from this process to one of its own listeners. To the server it
// is a client like any other.
type Local struct {
	net.Conn
	locals *locals
	key    localKey
}

// Kept says of a message that a program of this machine had kept it before.
type Kept struct {
	ID  string // under which the Backend has to take it
	UID uint32 // of the user
}

// localKey is a connection as the server sees it.
type localKey struct {
	port *port
	from string // the client's address
}

// locals are what is said of messages on connections from this process.
type locals struct {
	mu  sync.Mutex
	say map[localKey]Kept
}

// of returns what is said of messages on a connection.
func (l *locals) of(f *filter) Kept {
	if f.proxied {
		return Kept{} // what its proxy says the client is must not count
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.say[localKey{f.listener.port, addrText(f.socket.RemoteAddr())}]
}

// Say has the messages that come from now on be known as kept by the user, with an id.
func (c *Local) Say(id string, uid uint32) {
	c.locals.mu.Lock()
	defer c.locals.mu.Unlock()
	c.locals.say[c.key] = Kept{id, uid}
}

// Close ends what was said, and the connection.
func (c *Local) Close() error {
	c.locals.mu.Lock()
	delete(c.locals.say, c.key)
	c.locals.mu.Unlock()
	return c.Conn.Close()
}

// Dial connects to the first listener that takes mail from this machine.
func (s *Server) Dial(ctx context.Context) (*Local, error) {
	s.mu.Lock()
	ports := append([]*port(nil), s.ports...)
	s.mu.Unlock()
	for _, p := range ports {
		to, ok := p.localAddr()
		if !ok {
			continue
		}
		var d net.Dialer
		if to.Network() == "unix" {
			// A name by which the server sees who it is; Linux takes it for no file.
			d.LocalAddr = &net.UnixAddr{Name: "@smtp2rest-" + rand.Text(), Net: "unix"}
		}
		conn, err := d.DialContext(ctx, to.Network(), to.String())
		if err != nil {
			return nil, err
		}
		return &Local{Conn: conn, locals: &s.locals, key: localKey{p, addrText(conn.LocalAddr())}}, nil
	}
	return nil, ErrNoLocal
}

// localAddr returns the address by which clients of this machine reach a port, if they may
// send there as they are.
func (p *port) localAddr() (net.Addr, bool) {
	l := p.current()
	if l == nil || l.config.RequireAuth || l.config.Protocol == LMTP || l.config.TLS.Mode == ImplicitTLS {
		return nil, false
	}
	tcp, ok := p.Addr().(*net.TCPAddr)
	if !ok {
		return p.Addr(), p.Addr().Network() == "unix"
	}
	at := tcp.AddrPort().Addr().Unmap()
	from := at // which the system chooses for a connection to an address of its own
	if at.IsUnspecified() {
		at = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		from = at
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(at, tcp.AddrPort().Port())),
		contains(l.config.Networks, from) && !contains(l.config.ProxyFrom, from)
}

// addrText is an address in one form for both ends.
func addrText(a net.Addr) string {
	if ap := addrPort(a); ap.IsValid() {
		return ap.String()
	}
	return strings.TrimSpace(a.String())
}
