package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/smtp2rest/smtp2rest/smtpd/budget"
	"github.com/smtp2rest/smtp2rest/smtpd/holder"
)

// abortTime is how long Stop waits for a Backend that does not return although its
// context has ended.
const abortTime = 5 * time.Second

// A Server takes mail on its listeners between Start and Stop. It is used once.
type Server struct {
	options     Options // of the start; what a reload can change is in the listeners
	log         *slog.Logger
	metrics     *metrics
	meter       *meter
	memory      *budget.Budget
	connections *connections
	blocks      sync.Pool // of *block
	locals      locals

	ctx      context.Context // the Backend's
	cancel   context.CancelFunc
	stopping chan struct{}
	finished chan struct{} // every goroutine is gone

	mu          sync.Mutex
	started     bool
	stopped     bool
	inherited   map[string][]net.Listener // systemd's sockets by name, those that no listener has taken over yet
	socketNames []string                  // of all that systemd passed
	unused      []string                  // of those that no listener took over
	ports       []*port
	serving     sync.WaitGroup
}

// New checks the options. It binds nothing.
func New(options Options) (*Server, error) {
	if err := options.check(); err != nil {
		return nil, err
	}
	log := options.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	limits, m := options.limits(), newMetrics(options.Metrics)
	return &Server{
		options:     options,
		log:         log,
		metrics:     m,
		meter:       newMeter(limits),
		memory:      options.Memory,
		connections: newConnections(limits, m),
		locals:      locals{say: map[localKey]Kept{}},
		stopping:    make(chan struct{}),
		finished:    make(chan struct{}),
	}, nil
}

// check returns an error for options that no server can be made from.
func (o Options) check() error {
	switch {
	case o.Backend == nil:
		return errors.New("smtpd: no backend")
	case o.Memory == nil:
		return errors.New("smtpd: no memory budget")
	case len(o.Listeners) == 0:
		return errors.New("smtpd: no listeners")
	case o.Hostname == "" || printable(o.Hostname) != o.Hostname || strings.Contains(o.Hostname, " "):
		return fmt.Errorf("smtpd: the host name %q cannot be used in the greeting", o.Hostname)
	}
	return nil
}

// limits returns the limits in force: no message is larger than there is memory for.
func (o Options) limits() Limits {
	l := o.Limits
	l.MessageBytes = min(l.MessageBytes, o.Memory.Most(budget.Reading))
	return l
}

// Start binds every listener and begins to serve, or binds none and says which
// address failed and what to do about it. The end of ctx does not stop the
// server; its values reach the Backend.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started || s.stopped {
		return errors.New("smtpd: a server can be started only once")
	}
	var err error
	if s.inherited, err = takeInherited(); err != nil {
		return fmt.Errorf("smtpd: %w", err)
	}
	s.socketNames = slices.Sorted(maps.Keys(s.inherited))
	change, err := s.prepare(ctx, s.options)
	unused := s.closeInherited()
	if err != nil {
		return fmt.Errorf("smtpd: %w", err)
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.started = true
	s.apply(change)
	s.unused = unused
	for _, name := range unused {
		s.log.Warn("systemd opened a socket that no [[listener]] uses; clients that connect to it hear nothing",
			"name", name, "mend", "set address = \"systemd:"+name+"\" in a [[listener]], or disable the .socket unit")
	}
	return nil
}

// newSessions returns the go-smtp server of one listener. Its own time-outs and its
// limit of lines are off: conn and filter have better ones.
func (s *Server) newSessions(l *listener) *smtp.Server {
	sessions := smtp.NewServer(l)
	sessions.Domain = l.options.Hostname
	sessions.LMTP = l.config.Protocol == LMTP
	sessions.MaxLineLength = 0
	sessions.MaxMessageBytes = l.limits.MessageBytes // announced as SIZE
	sessions.MaxRecipients = l.limits.Recipients
	sessions.EnableSMTPUTF8 = true
	sessions.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelError)
	return sessions
}

// Addrs returns the addresses bound, in the order of Options.Listeners; none
// before Start. One listener can have several sockets of systemd's.
func (s *Server) Addrs() []net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var addrs []net.Addr
	for _, p := range s.ports {
		addrs = append(addrs, p.Addr())
	}
	return addrs
}

// UnusedSockets returns the names of systemd's sockets that no listener took over at the
// start.
func (s *Server) UnusedSockets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unused
}

// Stop takes no new connections, closes those of idle clients with a reply that
// says why, and lets messages under way finish until ctx ends. Then it cancels the
// Backend's context and cuts the rest off, which is an error. It returns when every
// goroutine has ended, or with an error if some have not five seconds later. It may
// be called at any time and more than once.
func (s *Server) Stop(ctx context.Context) error {
	if !s.beginStop() {
		return nil
	}
	select {
	case <-s.finished:
		return nil
	case <-ctx.Done():
	}
	n := s.connections.abort() // before cancel, so that it counts all that are cut off
	s.cancel()
	patience := time.NewTimer(abortTime)
	defer patience.Stop()
	select {
	case <-s.finished:
	case <-patience.C:
		return fmt.Errorf("smtpd: %d sessions do not end", n)
	}
	if n > 0 {
		return fmt.Errorf("smtpd: %d sessions cut off: %w", n, context.Cause(ctx))
	}
	return nil
}

// beginStop reports whether there is an end to wait for.
func (s *Server) beginStop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || !s.started {
		s.stopped = true
		return s.started
	}
	s.stopped = true
	for _, p := range s.ports {
		p.close()
	}
	s.connections.stop()
	close(s.stopping) // last: whoever waits for it may rely on the rest
	go s.wait()
	return true
}

// wait closes finished when nothing runs any more.
func (s *Server) wait() {
	s.serving.Wait()
	s.cancel()
	close(s.finished)
}

// pause waits for d, until ctx ends, or until the server begins to stop.
func (s *Server) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-s.stopping:
	}
}

// A Change is a reload that Prepare has made ready: all that can fail has been done,
// and nothing is in force yet. The caller ends it with Apply or Undo.
type Change struct {
	server    *Server
	listeners []*listener
	opened    []*port // not there before
}

// Prepare gets ready to go on with other options: it reads certificates and binds new
// listeners. Options that are no settings (Backend, Memory, Log, Metrics and
// Panicked) stay those of the start. An error changes nothing.
//
// A listener with the address of a present one keeps its socket and its clients.
// Those go on with the protocol, TLS and limits with which they came, but the new
// options decide whether they may send.
func (s *Server) Prepare(ctx context.Context, o Options) (*Change, error) {
	o.Backend, o.Memory, o.Log, o.Metrics, o.Panicked = s.options.Backend, s.options.Memory, s.options.Log, s.options.Metrics, s.options.Panicked
	if err := o.check(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started || s.stopped {
		return nil, errors.New("smtpd: the server does not run")
	}
	return s.prepare(ctx, o)
}

func (s *Server) prepare(ctx context.Context, o Options) (*Change, error) {
	c := &Change{server: s}
	seen := map[string]int{}
	for _, config := range o.Listeners {
		seen[config.Address]++
		key := fmt.Sprintf("%s#%d", config.Address, seen[config.Address])
		ports, secure, err := s.prepareListener(ctx, o, config, key)
		if err != nil {
			c.Undo()
			return nil, err
		}
		for _, p := range ports {
			if !slices.Contains(s.ports, p) {
				c.opened = append(c.opened, p)
			}
			l := &listener{
				port: p, config: config, options: o, limits: o.limits(), tls: secure, server: s,
				incoming: make(chan net.Conn), retired: make(chan struct{}),
			}
			l.sessions = s.newSessions(l)
			c.listeners = append(c.listeners, l)
		}
	}
	return c, nil
}

func (s *Server) prepareListener(ctx context.Context, o Options, config Listener, key string) ([]*port, *tls.Config, error) {
	ports := s.portsOf(key)
	secure, err := s.tlsConfig(o, config, ports)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot listen on %s: %w", config.Address, err)
	}
	if len(ports) > 0 {
		return ports, secure, nil
	}
	sockets, err := s.listen(ctx, config)
	if err != nil {
		return nil, nil, s.explainInUse(config, err)
	}
	for _, l := range sockets {
		ports = append(ports, &port{Listener: l, server: s, key: key})
	}
	return ports, secure, nil
}

// explainInUse replaces the error for a port that this server itself has by another
// address, as in a change from 127.0.0.1:25 to :25. It cannot have both at the same
// time, and must not close the old one before it has the new one.
func (s *Server) explainInUse(config Listener, err error) error {
	_, number, _ := net.SplitHostPort(config.Address)
	for _, p := range s.ports {
		if errors.Is(err, holder.InUse) && p.number() == number {
			return fmt.Errorf("cannot listen on %s while this daemon listens on %s; restart smtp2rest to change from one to the other", config.Address, p.Addr())
		}
	}
	return err
}

// tlsConfig returns the TLS configuration of a listener, nil for none. A self-signed
// certificate stays the same while its settings do, since clients may have pinned it.
func (s *Server) tlsConfig(o Options, config Listener, ports []*port) (*tls.Config, error) {
	for _, p := range ports {
		if l := p.current(); config.TLS.SelfSigned && l.config.TLS == config.TLS && l.options.Hostname == o.Hostname {
			return l.tls, nil
		}
	}
	return config.TLS.config(o.Hostname, s.log)
}

func (s *Server) portsOf(key string) (list []*port) {
	for _, p := range s.ports {
		if p.key == key {
			list = append(list, p)
		}
	}
	return list
}

// Apply puts the new options in force. Listeners that are not among them are closed,
// and their clients with them: idle ones at once, others after the message under way.
func (c *Change) Apply() {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		c.Undo()
		return
	}
	s.apply(c)
}

func (s *Server) apply(c *Change) {
	before, limits := s.ports, c.listeners[0].limits // all have the same
	s.connections.apply(limits, slices.ContainsFunc(c.listeners, (*listener).trustsClients))
	s.meter.apply(limits)
	s.ports = nil
	for _, l := range c.listeners {
		s.ports = append(s.ports, l.port)
		if slices.Contains(before, l.port) {
			l.port.changeMode(l.config)
		}
		s.serve(l)
	}
	for _, p := range c.opened {
		s.serving.Go(p.accept)
	}
	for _, p := range before {
		if !slices.Contains(s.ports, p) {
			p.close()
			s.connections.stopAt(p)
		}
	}
}

// trustsClients reports whether some clients may send by it without a login.
func (l *listener) trustsClients() bool {
	return !l.config.RequireAuth && (len(l.config.Networks) > 0 || l.port.Addr().Network() == "unix")
}

// serve runs a listener until its last client has left. go-smtp's Shutdown waits for
// all connections and closes none, not even idle ones; we do that.
func (s *Server) serve(l *listener) {
	l.port.use(l)
	s.serving.Go(func() {
		_ = l.sessions.Serve(l) // its only error is that l retired
		_ = l.sessions.Shutdown(context.Background())
	})
}

// changeMode sets the mode of a unix socket that stays.
func (p *port) changeMode(config Listener) {
	path, ok := strings.CutPrefix(config.Address, "unix:")
	if !ok || p.current().config.SocketMode == config.SocketMode {
		return
	}
	if err := os.Chmod(path, config.SocketMode); err != nil {
		p.server.log.Error("the mode of a socket cannot be changed", "socket", path, "error", err)
	}
}

// Undo closes what Prepare has opened.
func (c *Change) Undo() {
	for _, p := range c.opened {
		_ = p.Close()
	}
}
