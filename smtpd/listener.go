package smtpd

import (
	"bufio"
	"context"
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
		if r := d.server.roster.enter(w, place{origin(w.session.client.Addr), d.port}, w.firstClass()); r != nil {
			w.forget()
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
	w := &wire{Conn: conn, socket: conn, limits: d.limits, log: log, tls: d.tls, tlsMode: d.config.TLS.Mode}
	w.metrics, w.meter = s.metrics, s.meter
	w.ctx, w.forget = context.WithCancel(s.ctx)
	w.pause = func(d time.Duration) { s.pause(w.ctx, d) }
	w.clock.limits = d.limits
	_, w.local = conn.RemoteAddr().(*net.UnixAddr)
	w.proxied = contains(d.config.ProxyFrom, client.Addr.Addr())
	w.share = s.memory.ShareOf(origin(client.Addr), w.press)
	w.serverLog = s.log
	w.move = func(to netip.AddrPort, c class) *reply.Reply {
		w.share = s.memory.ShareOf(origin(to), w.press)
		return s.roster.move(w, place{origin(to), d.port}, c)
	}
	w.become = s.roster.become
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
		w.forget()
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
