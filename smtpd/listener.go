package smtpd

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

const (
	acceptPause = 100 * time.Millisecond // after an error that is not the end, such as too many open files
	refuseTime  = 50 * time.Millisecond  // more than a few octets into a fresh socket can take
)

// A door is what clients of a port find: a listener's configuration, and the
// go-smtp server that serves who came by it. Its connections are wires. It turns
// clients away when there are too many.
type door struct {
	port     *port
	config   Listener
	options  Options
	limits   Limits
	tls      *tls.Config // nil for none
	server   *Server
	sessions *smtp.Server

	incoming chan net.Conn
	retired  chan struct{} // closed when nobody more comes by this door
	once     sync.Once
}

// offer is false when the door has retired.
func (d *door) offer(conn net.Conn) bool {
	select {
	case d.incoming <- conn:
		return true
	case <-d.retired:
		return false
	}
}

// retire lets nobody more in. Who is inside stays.
func (d *door) retire() { d.once.Do(func() { close(d.retired) }) }

// Accept returns only to go-smtp's Serve, which takes any error as the end.
func (d *door) Accept() (net.Conn, error) {
	for {
		var conn net.Conn
		select {
		case conn = <-d.incoming:
		case <-d.retired:
			return nil, net.ErrClosed
		}
		w := d.newWire(conn)
		if r := d.server.roster.enter(w); r != nil {
			w.log.Info("refused", "reply", r.String())
			w.sayInClear(r)
			_ = conn.Close()
			continue
		}
		d.server.memory.Overhead(ConnectionBytes)
		w.log.Debug("session opened")
		return w, nil
	}
}

// Close is go-smtp's call at the end; the socket is the port's.
func (d *door) Close() error {
	d.retire()
	return nil
}

// Addr completes a net.Listener.
func (d *door) Addr() net.Addr { return d.port.Addr() }

func (d *door) newWire(conn net.Conn) *wire {
	s := d.server
	client := Client{
		Session:  strings.ToLower(rand.Text()[:8]),
		Addr:     addrPort(conn.RemoteAddr()),
		Listener: conn.LocalAddr().String(),
	}
	log := clientLog(s.log, client)
	w := &wire{Conn: conn, socket: conn, limits: d.limits, log: log, tls: d.tls, tlsMode: d.config.TLS.Mode, pause: s.pause}
	w.metrics, w.meter = s.metrics, s.meter
	w.clock.limits = d.limits
	_, w.local = conn.RemoteAddr().(*net.UnixAddr)
	w.proxied = contains(d.config.ProxyFrom, client.Addr.Addr())
	w.origin = origin(client.Addr)
	w.share = s.memory.ShareOf(w.origin, w.press)
	w.serverLog = s.log
	w.move = func(to netip.AddrPort) *reply.Reply {
		w.share = s.memory.ShareOf(origin(to), w.press)
		return s.roster.move(w, origin(to))
	}
	w.in = bufio.NewReaderSize(reader(w.fill), d.limits.CommandBytes)
	w.port = d.port
	w.session = &session{
		ctx:      s.ctx,
		backend:  s.options.Backend,
		config:   d.config,
		users:    d.options.Users,
		wire:     w,
		log:      log,
		panicked: s.options.Panicked,
		client:   client,
		qualify:  d.options.QualifyDomain,

		everybody: d.options.Rules,
	}
	w.onClose = func() {
		w.share.Release()
		s.memory.Overhead(-ConnectionBytes)
		s.roster.leave(w)
		w.log.Debug("session closed")
	}
	return w
}

// clientLog is the log of one connection.
func clientLog(server *slog.Logger, c Client) *slog.Logger {
	from := "unknown"
	switch {
	case c.Addr.IsValid():
		from = c.Addr.String()
	case strings.HasPrefix(c.Listener, "/"):
		from = "unix"
	}
	return server.With("session", c.Session, "client", from)
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
	limits  Limits
	metrics *metrics

	mu       sync.Mutex
	stopping bool
	wires    map[*wire]struct{}
	from     map[netip.Prefix]int // without zeros
}

// enter admits a connection, or says why not.
//
// Of a proxy's connections any number may come from its address: where they
// are really from is not known yet.
func (r *roster) enter(w *wire) *reply.Reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.stopping:
		return reply.ShuttingDown()
	case len(r.wires) >= r.limits.Connections:
		r.metrics.hit(limitConnections)
		return reply.TooManyConnections()
	case !w.proxied && r.from[w.origin] >= r.limits.ConnectionsPerAddress:
		r.metrics.hit(limitAddress)
		return reply.TooManyConnections()
	}
	r.metrics.opened.Inc()
	r.metrics.open.Inc()
	r.wires[w] = struct{}{}
	r.from[w.origin]++
	return nil
}

// move is enter again for a connection whose proxy told where it is from.
func (r *roster) move(w *wire, to netip.Prefix) *reply.Reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.from[to] >= r.limits.ConnectionsPerAddress {
		r.metrics.hit(limitAddress)
		return reply.TooManyConnections()
	}
	r.uncount(w.origin)
	w.origin = to
	r.from[to]++
	return nil
}

func (r *roster) uncount(origin netip.Prefix) {
	r.from[origin]--
	if r.from[origin] <= 0 {
		delete(r.from, origin)
	}
}

func (r *roster) leave(w *wire) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.wires, w)
	r.metrics.open.Dec()
	r.uncount(w.origin)
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

// stopAt stops those who came by a port that is no more.
func (r *roster) stopAt(p *port) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for w := range r.wires {
		if w.port == p {
			w.stop()
		}
	}
}

// bound changes the limits for who comes from now on.
func (r *roster) bound(l Limits) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limits = l
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

func contains(networks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(addr) })
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
