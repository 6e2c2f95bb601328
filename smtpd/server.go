package smtpd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/smtp2rest/smtp2rest/smtpd/budget"
)

// abortTime is how long Stop waits for a Backend that does not heed its
// context before it gives it up.
const abortTime = 5 * time.Second

// A Server takes mail on its listeners between Start and Stop. It is used once.
type Server struct {
	options Options
	limits  Limits
	log     *slog.Logger
	roster  *roster
	metrics *metrics
	meter   *meter
	memory  *budget.Budget

	ctx      context.Context // the Backend's
	cancel   context.CancelFunc
	stopping chan struct{}
	finished chan struct{} // every goroutine is gone

	mu      sync.Mutex
	started bool
	stopped bool
	doors   []*door
	serving sync.WaitGroup
}

// New checks the options. It binds nothing.
func New(options Options) (*Server, error) {
	switch {
	case options.Backend == nil:
		return nil, errors.New("smtpd: no backend")
	case len(options.Listeners) == 0:
		return nil, errors.New("smtpd: no listeners")
	case options.Hostname == "" || printable(options.Hostname) != options.Hostname || strings.Contains(options.Hostname, " "):
		return nil, fmt.Errorf("smtpd: %q is no host name to greet with", options.Hostname)
	}
	log := options.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	limits := options.Limits.withDefaults()
	memory := options.Memory
	if memory == nil {
		memory = budget.New(128<<20, options.Metrics)
	}
	limits.MessageBytes = min(limits.MessageBytes, memory.Most(budget.Reading))
	m := newMetrics(options.Metrics)
	return &Server{
		options:  options,
		limits:   limits,
		log:      log,
		metrics:  m,
		meter:    newMeter(limits),
		memory:   memory,
		roster:   &roster{limits: limits, metrics: m, wires: map[*wire]struct{}{}, from: map[netip.Prefix]int{}},
		stopping: make(chan struct{}),
		finished: make(chan struct{}),
	}, nil
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
	doors, err := s.openDoors(ctx)
	if err != nil {
		return fmt.Errorf("smtpd: %w", err)
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.doors, s.started = doors, true
	for _, d := range doors {
		d.sessions = s.newSessions(d)
		s.serving.Go(func() { _ = d.sessions.Serve(d) }) // its only error is that d was closed
	}
	return nil
}

// openDoors binds every listener or none.
func (s *Server) openDoors(ctx context.Context) (doors []*door, err error) {
	defer func() {
		if err != nil {
			for _, d := range doors {
				_ = d.Listener.Close()
			}
		}
	}()
	for _, config := range s.options.Listeners {
		secure, err := config.TLS.config(s.options.Hostname, s.log)
		if err != nil {
			return doors, fmt.Errorf("cannot listen on %s: %w", config.Address, err)
		}
		sockets, err := bind(ctx, config)
		if err != nil {
			return doors, err
		}
		for _, l := range sockets {
			doors = append(doors, &door{Listener: l, config: config, tls: secure, server: s})
		}
	}
	return doors, nil
}

// newSessions is the go-smtp server of one listener. Its own time-outs and its
// limit of lines are off: the wire has better ones.
func (s *Server) newSessions(d *door) *smtp.Server {
	sessions := smtp.NewServer(d)
	sessions.Domain = s.options.Hostname
	sessions.LMTP = d.config.LMTP
	sessions.MaxLineLength = 0
	sessions.MaxMessageBytes = s.limits.MessageBytes // announced as SIZE
	sessions.MaxRecipients = s.limits.Recipients
	sessions.EnableSMTPUTF8 = true
	sessions.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelError)
	return sessions
}

// Addrs returns the addresses bound, in the order of Options.Listeners; none
// before Start. One listener can have several of systemd's.
func (s *Server) Addrs() []net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var addrs []net.Addr
	for _, d := range s.doors {
		addrs = append(addrs, d.Addr())
	}
	return addrs
}

// Stop takes no new connections, tells idle clients and closes theirs, and
// lets messages under way finish until ctx ends; then it ends the Backend's
// context and cuts the rest off, which is an error. It returns when every
// goroutine is gone, or says that some are not five seconds later. It may be
// called at any time and more than once.
func (s *Server) Stop(ctx context.Context) error {
	if !s.beginStop() {
		return nil
	}
	select {
	case <-s.finished:
		return nil
	case <-ctx.Done():
	}
	s.cancel()
	n := s.roster.abort()
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
	close(s.stopping)
	for _, d := range s.doors {
		_ = d.Listener.Close()
	}
	s.roster.stop()
	go s.wait()
	return true
}

// wait closes finished when nothing runs any more. go-smtp's Shutdown is good
// for that: it waits for its connections, and leaves idle ones to us.
func (s *Server) wait() {
	s.serving.Wait()
	for _, d := range s.doors {
		_ = d.sessions.Shutdown(context.Background()) // its error is that the listener is closed already
	}
	s.cancel()
	close(s.finished)
}

// pause waits, but not beyond the beginning of the end.
func (s *Server) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.stopping:
	}
}
