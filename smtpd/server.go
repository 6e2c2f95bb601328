package smtpd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
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
	options Options // of the start; what Prepare can change is read from a door
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
	ports   []*port
	serving sync.WaitGroup
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
	memory := options.Memory
	if memory == nil {
		memory = budget.New(128<<20, options.Metrics)
	}
	limits, m := options.limits(memory), newMetrics(options.Metrics)
	return &Server{
		options:  options,
		log:      log,
		metrics:  m,
		meter:    newMeter(limits),
		memory:   memory,
		roster:   newRoster(limits, m),
		stopping: make(chan struct{}),
		finished: make(chan struct{}),
	}, nil
}

// check finds what no server can be made from.
func (o Options) check() error {
	switch {
	case o.Backend == nil:
		return errors.New("smtpd: no backend")
	case len(o.Listeners) == 0:
		return errors.New("smtpd: no listeners")
	case o.Hostname == "" || printable(o.Hostname) != o.Hostname || strings.Contains(o.Hostname, " "):
		return fmt.Errorf("smtpd: %q is no host name to greet with", o.Hostname)
	}
	return nil
}

// limits are those in force: no message is larger than there is memory for.
func (o Options) limits(memory *budget.Budget) Limits {
	l := o.Limits.withDefaults()
	l.MessageBytes = min(l.MessageBytes, memory.Most(budget.Reading))
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
	change, err := s.prepare(ctx, s.options)
	if err != nil {
		return fmt.Errorf("smtpd: %w", err)
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.started = true
	s.apply(change)
	for _, name := range unwanted(s.options.Listeners, os.Getenv, os.Getpid()) {
		s.log.Warn("systemd listens for this process where no listener of it does; clients that connect there hear nothing",
			"name", name, "mend", "address = \"systemd:"+name+"\" in a [[listener]], or disable the .socket unit")
	}
	return nil
}

// newSessions is the go-smtp server of one listener. Its own time-outs and its
// limit of lines are off: the wire has better ones.
func (s *Server) newSessions(d *door) *smtp.Server {
	sessions := smtp.NewServer(d)
	sessions.Domain = d.options.Hostname
	sessions.LMTP = d.config.LMTP
	sessions.MaxLineLength = 0
	sessions.MaxMessageBytes = d.limits.MessageBytes // announced as SIZE
	sessions.MaxRecipients = d.limits.Recipients
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
	for _, p := range s.ports {
		addrs = append(addrs, p.Addr())
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
	n := s.roster.abort() // before the Backend hears of it, or who then ends in time is not counted
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
	s.roster.stop()
	close(s.stopping) // last: whoever waits for it finds everybody told
	go s.wait()
	return true
}

// wait closes finished when nothing runs any more.
func (s *Server) wait() {
	s.serving.Wait()
	s.cancel()
	close(s.finished)
}

// pause waits, but not beyond the beginning of the end, nor that of ctx.
func (s *Server) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-s.stopping:
	}
}
