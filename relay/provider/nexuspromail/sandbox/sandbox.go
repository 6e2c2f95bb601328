// Package sandbox is a real HTTP server that plays the provider's API as its
// documentation describes it. It is strict about requests, exact in its answers, and
// can fail in every way that the real API can. People try the relay with it without
// sending mail, and the relay's tests run against it. Of the relay it only uses the
// provider's signature of events.
//
// The API is below /api. Below /sandbox are pages that list the calls and change the
// faults while the sandbox runs.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider"
)

const (
	base           = "/api"
	defaultAddress = "127.0.0.1:0"
	defaultKey     = "sandbox-key"
	defaultPath    = "/v1/transactional/send"
	defaultMaxBody = 256 << 20 // the API documents no bound: more than is made of any mail of a usual size
	defaultKeep    = 1000
)

// These are the provider's words for any sandbox.
type (
	Options = provider.SandboxOptions
	Webhook = provider.SandboxWebhook
	Call    = provider.SandboxCall
	Stats   = provider.SandboxStats
	Outage  = provider.SandboxOutage
	Magic   = provider.MagicRecipient
)

var _ provider.Sandbox = (*Server)(nil)

// Server is the sandbox. Without Start, it can be used through Handler.
type Server struct {
	opts     Options
	path     string // the whole path of the send endpoint
	magic    magicTable
	ledger   *ledger
	notifier *notifier
	accounts map[string]*Server
	initial  error // what is wrong with the options, for Start
	changing sync.Mutex
	setting  atomic.Pointer[setting]

	diceMu sync.Mutex
	dice   dice

	quit chan struct{} // closed when Stop begins

	mu       sync.Mutex
	active   int           // requests in progress, of any kind
	idle     chan struct{} // closed when active reaches 0 after quit
	http     *http.Server  // nil before Start
	listener net.Listener
	served   chan struct{} // closed when the listener's loop has ended
	stopped  bool
}

// Play is New as a provider.Vendor has it.
func Play(o provider.SandboxOptions) provider.Sandbox { return New(o) }

// New returns a sandbox. Start reports what is wrong with the options.
func New(o Options) *Server {
	if o.Address == "" {
		o.Address = defaultAddress
	}
	if o.Key == "" {
		o.Key = defaultKey
	}
	if o.Path == "" {
		o.Path = defaultPath
	}
	if o.MaxBody <= 0 {
		o.MaxBody = defaultMaxBody
	}
	if o.Keep == 0 {
		o.Keep = defaultKeep
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		opts:   o,
		path:   base + o.Path,
		magic:  newMagicTable(),
		ledger: newLedger(max(0, o.Keep)),
		dice:   newDice(o.Seed),
		quit:   make(chan struct{}),
		idle:   make(chan struct{}),
		served: make(chan struct{}),
	}
	s.accounts = newAccounts(o)
	s.notifier = newNotifier(o.Webhook, s.ledger.told)
	n, err := s.newSetting(Faults{o.Key, o.Rate, o.Burst, o.RetryAfterDate, o.Fail429, o.Fail500,
		o.Latency, o.Outage, o.Idempotent})
	if !strings.HasPrefix(o.Path, "/") {
		err = errors.Join(err, fmt.Errorf("the path %q must begin with /", o.Path))
	}
	for _, a := range s.accounts {
		err = errors.Join(err, a.initial)
	}
	s.initial = err
	s.setting.Store(n)
	return s
}

// Start listens and serves until Stop. The context only bounds the listening.
func (s *Server) Start(ctx context.Context) error {
	if s.initial != nil {
		return fmt.Errorf("sandbox: %w", s.initial)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil || s.stopped {
		return errors.New("sandbox: started or stopped before")
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", s.opts.Address)
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	s.listener = ln
	s.http = &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       2 * time.Minute, // a client that stalls in its body
		IdleTimeout:       5 * time.Minute,
		ErrorLog:          slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelWarn),
	}
	go func() {
		defer close(s.served)
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			s.opts.Log.Error("the sandbox stopped serving", "err", err)
		}
	}()
	return nil
}

// Stop ends the sandbox. It accepts no new connections and ends calls that hang or
// wait at once, without an answer. Other calls are answered until the context ends;
// then their connections are closed. Stop returns when everything has ended. Its
// error says that calls were cut short. Stopping again waits for the same end.
//
// http.Server.Shutdown is not used, because it waits up to 5 s for connections that
// were dialled and never used. The client of net/http makes many of those
// (https://go.dev/issue/22682).
func (s *Server) Stop(ctx context.Context) error {
	srv := s.beginStop()
	s.notifier.stop()
	of := s.stopAccounts(ctx)
	if srv != nil {
		_ = s.listener.Close() // may be closed already
	}
	var cut error
	select {
	case <-s.idle:
	case <-ctx.Done():
		cut = fmt.Errorf("sandbox: calls were cut short: %w", context.Cause(ctx))
	}
	if srv == nil { // the connections belong to the caller's server
		return errors.Join(cut, of)
	}
	_ = srv.Close() // errors of connections do not matter
	<-s.served
	<-s.idle
	return errors.Join(cut, of)
}

// beginStop begins the end and returns the HTTP server, if there is one.
func (s *Server) beginStop() *http.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		s.stopped = true
		close(s.quit)
		if s.active == 0 {
			close(s.idle)
		}
	}
	return s.http
}

// enter counts a request in progress. It returns false while the sandbox stops.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.active++
	return true
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active--; s.active == 0 && s.stopped {
		close(s.idle)
	}
}

// Addr returns the address that Start listens on, host:port; "" before Start.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// URL returns the base of the API, for NEXUSPROMAIL_API_URL; "" before Start.
func (s *Server) URL() string {
	addr := s.Addr()
	if addr == "" {
		return ""
	}
	return "http://" + addr + base
}

// Calls returns the remembered calls, the oldest first.
func (s *Server) Calls() []Call { return s.ledger.calls() }

// Stats returns the counters of all calls.
func (s *Server) Stats() Stats { return s.ledger.snapshot() }

// Accepted returns how often mail was accepted under an idempotency key.
func (s *Server) Accepted(key string) int { return s.ledger.acceptedKey(key) }

// AcceptedFor returns how many mails were accepted for a recipient.
func (s *Server) AcceptedFor(to string) int { return s.ledger.acceptedFor(to) }

// WaitFor returns when cond is true of the counters, or with the context's error.
// It checks whenever a call begins or ends.
func (s *Server) WaitFor(ctx context.Context, cond func(Stats) bool) error {
	return s.ledger.wait(ctx, cond)
}

// Reset forgets all calls and counters, and restarts the seed. The faults stay in
// force.
func (s *Server) Reset() {
	s.ledger.clear()
	s.diceMu.Lock()
	defer s.diceMu.Unlock()
	s.dice = newDice(s.opts.Seed)
}
