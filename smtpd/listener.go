package smtpd

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

const (
	acceptPause = 100 * time.Millisecond // after an error that is not the end, such as too many open files
	refuseTime  = 50 * time.Millisecond  // more than a few octets into a fresh socket can take
)

// listen binds one address.
func listen(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("cannot listen on %s: another program uses this port; stop it or choose another port: %w", address, err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("cannot listen on %s: no permission; ports below 1024 need the capability CAP_NET_BIND_SERVICE, or choose a higher port: %w", address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("cannot listen on %s: this machine has no such address; use one of its own: %w", address, err)
	}
	return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
}

// A door is a listener whose connections are wires. It turns clients away
// when there are too many.
type door struct {
	net.Listener
	config   Listener
	tls      *tls.Config // nil for none
	server   *Server
	sessions *smtp.Server
}

// Accept returns only to go-smtp's Serve, which takes any error as the end.
func (d *door) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil, err
		case err != nil:
			d.server.log.Error("cannot accept connections", "listener", d.config.Address, "error", err)
			d.server.pause(acceptPause)
			continue
		}
		w := d.newWire(conn)
		if r := d.server.roster.enter(w); r != nil {
			w.log.Info("refused", "reply", r.String())
			d.turnAway(conn, r)
			continue
		}
		w.log.Debug("session opened")
		return w, nil
	}
}

// turnAway never blocks: the first octets always fit into the socket's buffer.
// A client that expects TLS gets nothing: a handshake would cost what there is
// too little of.
func (d *door) turnAway(conn net.Conn, r *reply.Reply) {
	if d.config.TLS.Mode != ImplicitTLS {
		_ = conn.SetWriteDeadline(time.Now().Add(refuseTime))
		_, _ = fmt.Fprintf(conn, "%s\r\n", r)
	}
	_ = conn.Close()
}

func (d *door) newWire(conn net.Conn) *wire {
	s := d.server
	client := Client{
		Session:  strings.ToLower(rand.Text()[:8]),
		Addr:     addrPort(conn.RemoteAddr()),
		Listener: conn.LocalAddr().String(),
	}
	log := s.log.With("session", client.Session, "client", client.Addr.String())
	w := &wire{Conn: conn, socket: conn, limits: s.limits, log: log, tls: d.tls, tlsMode: d.config.TLS.Mode, pause: s.pause}
	w.in = bufio.NewReaderSize(reader(w.fill), s.limits.CommandBytes)
	w.session = &session{
		ctx:      s.ctx,
		backend:  s.options.Backend,
		config:   d.config,
		users:    s.options.Users,
		wire:     w,
		log:      log,
		panicked: s.options.Panicked,
		client:   client,
		qualify:  s.options.QualifyDomain,
	}
	w.onClose = func() {
		s.roster.leave(w)
		log.Debug("session closed")
	}
	return w
}

func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// NewSession is go-smtp's call at the first EHLO.
func (d *door) NewSession(c *smtp.Conn) (smtp.Session, error) {
	w, ok := c.Conn().(*wire)
	if !ok {
		return nil, reply.LocalError().SMTP()
	}
	w.session.conn = c
	return w.session, nil
}

// A roster is who is connected.
type roster struct {
	limits Limits

	mu       sync.Mutex
	stopping bool
	wires    map[*wire]struct{}
	from     map[netip.Prefix]int // without zeros
}

// enter admits a connection, or says why not.
func (r *roster) enter(w *wire) *reply.Reply {
	origin := origin(w.session.client.Addr)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.stopping:
		return reply.ShuttingDown()
	case len(r.wires) >= r.limits.Connections, r.from[origin] >= r.limits.ConnectionsPerAddress:
		return reply.TooManyConnections()
	}
	r.wires[w] = struct{}{}
	r.from[origin]++
	return nil
}

func (r *roster) leave(w *wire) {
	origin := origin(w.session.client.Addr)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.wires, w)
	r.from[origin]--
	if r.from[origin] <= 0 {
		delete(r.from, origin)
	}
}

// stop lets nobody in any more and stops those who are.
func (r *roster) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopping = true
	for w := range r.wires {
		w.stop()
	}
}

// abort cuts those who are still here, and returns how many they are.
func (r *roster) abort() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for w := range r.wires {
		w.abort()
	}
	return len(r.wires)
}

// origin is what counts as one client: anyone with IPv6 has a whole /64.
func origin(client netip.AddrPort) netip.Prefix {
	addr, bits := client.Addr(), 32
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // an error leaves the zero Prefix, for what is not TCP
	return prefix
}
