package smtpd

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/emersion/go-smtp"

	"github.com/smtp2rest/smtp2rest/smtpd/holder"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

const acceptPause = 100 * time.Millisecond // after an error that is not the end, such as too many open files

// A port is a socket that the server listens on. It outlives its configuration: a
// reload puts another listener behind it, and no client notices.
type port struct {
	net.Listener
	server *Server
	key    string // the listener's address and, as several may have the same, a number

	mu     sync.Mutex
	now    *listener // for clients that come now; nil before the first
	closed bool      // no other listener will come
}

// current returns the listener for clients that come now.
func (p *port) current() *listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// use puts a listener behind the port. The one before gets no more clients.
func (p *port) use(l *listener) {
	p.mu.Lock()
	before := p.now
	p.now = l
	p.mu.Unlock()
	if before != nil {
		before.retire()
	}
}

// accept hands connections to the current listener until the port is closed.
func (p *port) accept() {
	for {
		conn, err := p.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			p.server.log.Error("cannot accept connections", "listener", p.Addr().String(), "error", err)
			p.server.pause(p.server.ctx, acceptPause)
			continue
		}
		for !p.current().offer(conn) { // a reload has just replaced it
			if p.isClosed() {
				_ = conn.Close()
				return
			}
		}
	}
}

// close accepts nobody any more.
func (p *port) close() {
	_ = p.Listener.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	if l := p.current(); l != nil {
		l.retire()
	}
}

func (p *port) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// number returns the port number of a TCP address, "" for any other.
func (p *port) number() string {
	_, number, err := net.SplitHostPort(p.Addr().String())
	if err != nil || strings.HasPrefix(number, "/") {
		return ""
	}
	return number
}

// A listener is one configuration of a port, and the go-smtp server for the clients
// that came while it was in force. It turns clients away when there are too many.
type listener struct {
	port     *port
	config   Listener
	options  Options
	limits   Limits
	tls      *tls.Config // nil for none
	server   *Server
	sessions *smtp.Server

	incoming chan net.Conn
	retired  chan struct{} // closed when no more clients come
	once     sync.Once
}

// offer hands over a connection. It is false when the listener has retired.
func (l *listener) offer(conn net.Conn) bool {
	select {
	case l.incoming <- conn:
		return true
	case <-l.retired:
		return false
	}
}

// retire ends the taking of connections. Those that are there stay.
func (l *listener) retire() { l.once.Do(func() { close(l.retired) }) }

// Accept is called by go-smtp's Serve, which stops at any error.
func (l *listener) Accept() (net.Conn, error) {
	for {
		var socket net.Conn
		select {
		case socket = <-l.incoming:
		case <-l.retired:
			return nil, net.ErrClosed
		}
		f := l.newFilter(socket)
		if r := l.server.connections.enter(f.conn, source{origin(f.session.client.Addr), l.port}, f.firstClass()); r != nil {
			f.cancel()
			f.log.Info("refused", "reply", r.String())
			f.sayInClear(r)
			_ = socket.Close()
			continue
		}
		l.server.memory.Overhead(ConnectionBytes)
		f.log.Debug("session opened")
		return f, nil
	}
}

// Close is called by go-smtp at the end. The socket belongs to the port.
func (l *listener) Close() error {
	l.retire()
	return nil
}

// Addr completes a net.Listener.
func (l *listener) Addr() net.Addr { return l.port.Addr() }

// newFilter makes a connection what go-smtp is to see of it.
func (l *listener) newFilter(accepted net.Conn) *filter {
	s := l.server
	client := Client{
		Session:  strings.ToLower(rand.Text()[:8]),
		Addr:     addrPort(accepted.RemoteAddr()),
		Listener: accepted.LocalAddr().String(),
		Account:  l.config.Account,
		Redirect: l.config.RedirectAll,
		Fields:   l.config.Fields,
	}
	_, local := accepted.RemoteAddr().(*net.UnixAddr)
	socket := &socket{Conn: accepted}
	c := &conn{
		Conn: socket, socket: socket, listener: l, limits: l.limits, log: clientLog(s.log, client), metrics: s.metrics, local: local,
		clock: clock{limits: l.limits},
	}
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	c.share = s.memory.ShareOf(origin(client.Addr), c.press)
	c.newBuffer()
	c.onClose = func() {
		c.cancel()
		c.share.Release()
		s.memory.Overhead(-ConnectionBytes)
		s.connections.leave(c)
		c.log.Debug("session closed")
	}
	f := &filter{conn: c, proxied: contains(l.config.ProxyFrom, client.Addr.Addr())}
	f.session = &session{filter: f, server: s, now: l, client: client}
	return f
}

// clientLog returns the log of one connection.
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

// NewSession is called by go-smtp at the first EHLO.
func (l *listener) NewSession(c *smtp.Conn) (smtp.Session, error) {
	f, ok := c.Conn().(*filter)
	if !ok {
		return nil, reply.LocalError().SMTP()
	}
	f.session.smtp = c
	return f.session, nil
}

func contains(networks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// origin is the network that counts as one client: with IPv6 everybody has a /64.
func origin(client netip.AddrPort) netip.Prefix {
	addr, bits := client.Addr(), 32
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // an error leaves the zero Prefix, for what is not TCP
	return prefix
}

// listen opens the sockets of one address: one, or all of systemd's that have
// the name.
func (s *Server) listen(ctx context.Context, config Listener) ([]net.Listener, error) {
	if name, ok := strings.CutPrefix(config.Address, "systemd:"); ok {
		return s.inherit(name)
	}
	l, err := s.inheritAt(config.Address)
	switch {
	case err != nil:
		return nil, err
	case l != nil:
		return []net.Listener{l}, nil
	}
	if path, ok := strings.CutPrefix(config.Address, "unix:"); ok {
		l, err = listenUnix(ctx, path, config.SocketMode)
	} else {
		l, err = listenTCP(ctx, config.Address)
	}
	return []net.Listener{l}, err
}

// listenTCP says what to do about an address that cannot be had.
func listenTCP(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, holder.InUse):
		return nil, fmt.Errorf("cannot listen on %s: %s; stop it or choose another port: %w", address, holder.Says(address), err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("cannot listen on %s: no permission; ports below 1024 need a privilege: let systemd open it (smtp2rest.socket and address = \"systemd:smtp\"), or give the program AmbientCapabilities=CAP_NET_BIND_SERVICE, or choose a higher port: %w", address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("cannot listen on %s: this machine has no such address; use one of its own: %w", address, err)
	}
	return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
}

// listenUnix opens a unix socket. It replaces one that a killed process has left.
func listenUnix(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	if conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("cannot listen on %s: another program uses this socket", path)
	} else if errors.Is(err, holder.Refused) {
		if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
			_ = os.Remove(path) // if it stays, listening says why
		}
	}
	l, err := bindUnix(ctx, path, mode)
	if err == nil {
		if err = os.Chmod(path, mode); err == nil {
			return l, nil
		}
		_ = l.Close()
	}
	return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
}

// bindUnix opens a unix socket with its mode from the first moment on. The mode that
// net gives it depends on the umask, and may let in more for a moment. Linux gives
// the file the mode of the socket, less the umask; on other systems only the
// directory keeps others out until the mode is set.
func bindUnix(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { chmodSocket(fd, mode) })
	}}
	return config.Listen(ctx, "unix", path)
}

// inheritAt takes over the socket that systemd opened at an address, or returns nil. So a
// .socket unit can hold connections through a restart without a change of the settings.
func (s *Server) inheritAt(address string) (net.Listener, error) {
	want, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, nil // a path, or a host that is no IP address
	}
	for name, list := range s.inherited {
		for i, l := range list {
			if addrPort(l.Addr()) != want {
				continue
			}
			if s.inherited[name] = slices.Delete(slices.Clone(list), i, i+1); len(list) == 1 {
				delete(s.inherited, name)
			}
			if err := canAccept(l); err != nil {
				return nil, errors.Join(fmt.Errorf("cannot listen on %s by the socket of systemd: %w", address, err), l.Close())
			}
			return l, nil
		}
	}
	return nil, nil
}

// inherit takes over the sockets of a name that systemd opened for this process.
func (s *Server) inherit(name string) ([]net.Listener, error) {
	list := s.inherited[name]
	delete(s.inherited, name)
	switch {
	case len(list) > 0:
		for _, l := range list {
			if err := canAccept(l); err != nil {
				for _, l := range list {
					_ = l.Close()
				}
				return nil, fmt.Errorf("cannot listen on systemd:%s: %w", name, err)
			}
		}
		return list, nil
	case s.started:
		return nil, fmt.Errorf("cannot listen on systemd:%s: systemd hands sockets over at the start only; restart smtp2rest", name)
	case len(s.socketNames) == 0:
		return nil, fmt.Errorf("cannot listen on systemd:%s: systemd gave this process no sockets; is there a .socket unit, and was it started?", name)
	case slices.Contains(s.socketNames, name):
		return nil, fmt.Errorf("cannot listen on systemd:%s: no socket of that name is left; it needs ListenStream= in the .socket unit, and one [[listener]]", name)
	}
	return nil, fmt.Errorf("cannot listen on systemd:%s: systemd's sockets are called %s; set FileDescriptorName=%s", name, strings.Join(s.socketNames, ", "), name)
}

// mostInherited is how many sockets systemd may pass. The library makes an entry for
// each that LISTEN_FDS announces, also where there is none.
const mostInherited = 1000

// takeInherited returns systemd's sockets by name.
func takeInherited() (map[string][]net.Listener, error) {
	announced := os.Getenv("LISTEN_FDS")
	if n, err := strconv.Atoi(announced); err == nil && n > mostInherited {
		return nil, fmt.Errorf("LISTEN_FDS announces %d sockets, and at most %d can be used; unset it, or let systemd set it", n, mostInherited)
	}
	return activation.ListenersWithNames()
}

// closeInherited closes the sockets that no listener has taken over, and returns
// their names.
func (s *Server) closeInherited() []string {
	names := slices.Sorted(maps.Keys(s.inherited))
	for _, list := range s.inherited {
		for _, l := range list {
			_ = l.Close()
		}
	}
	s.inherited = nil
	return names
}
