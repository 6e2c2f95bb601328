// Package sandbox is the provider's API as its documentation states it, as a
// real HTTP server: strict about what it takes, exact about what it answers,
// and able to fail in every way that the real one can. People try the relay on
// it without sending mail to anybody, and the relay's tests run against it. It
// knows nothing of the rest of the relay.
//
// Beside the API, below /api, it has pages of its own below /sandbox that list
// what came and change the faults while it runs.
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
)

const (
	base           = "/api"
	defaultAddress = "127.0.0.1:0"
	defaultKey     = "sandbox-key"
	defaultPath    = "/v1/transactional/send"
	defaultMaxBody = 25 << 20
	defaultKeep    = 1000
)

// Options are what a Server is made from. The zero value works.
type Options struct {
	Address string // to listen on; default 127.0.0.1 and a free port
	Key     string // that calls must bring; default "sandbox-key"
	Path    string // of the send endpoint below the base; default "/v1/transactional/send"

	// Rate is the account's calls a second, 0 for no limit, Burst the calls
	// that may come at once, 0 for a second's worth. Every call with the right
	// key counts, whatever its answer. A call too many is answered 429.
	Rate           float64
	Burst          int
	RetryAfterDate bool // Retry-After is a date and not seconds

	// Fail429 and Fail500 are the fractions, together 0 to 1, of good calls
	// answered so. The seed decides which.
	Fail429, Fail500 float64
	Seed             uint64

	Latency    time.Duration // added to each call
	Outage     Outage
	Idempotent bool // a known Idempotency-Key gets the first message_id and sends no second mail

	Webhook Webhook // where events are sent; no URL is nowhere, until it is registered

	MaxBody int64 // bytes; default 25 MiB
	// Keep is how many calls are remembered, default 1000, none when negative.
	// Of bodies no more than 64 MiB are remembered. All calls are counted.
	Keep int
	Log  *slog.Logger // a line for each call at debug; nil for none
}

// Server is the sandbox. It can be used without Start, by its Handler.
type Server struct {
	opts     Options
	path     string // the whole path of the send endpoint
	spells   spells
	ledger   *ledger
	herald   *herald
	initial  error // what is wrong with the options
	changing sync.Mutex
	setting  atomic.Pointer[setting]

	diceMu sync.Mutex
	dice   dice

	quit chan struct{} // closed when Stop begins

	mu       sync.Mutex
	active   int           // requests being answered, of any kind
	idle     chan struct{} // closed when active comes down to 0 after quit
	http     *http.Server  // nil before Start
	listener net.Listener
	served   chan struct{} // closed when the listener's loop is over
	stopped  bool
}

// New makes a sandbox. What is wrong with the options, Start reports.
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
		spells: newSpells(),
		ledger: newLedger(max(0, o.Keep)),
		dice:   newDice(o.Seed),
		quit:   make(chan struct{}),
		idle:   make(chan struct{}),
		served: make(chan struct{}),
	}
	s.herald = newHerald(o.Webhook, s.ledger.told)
	n, err := s.newSetting(Faults{o.Key, o.Rate, o.Burst, o.RetryAfterDate, o.Fail429, o.Fail500,
		o.Latency, o.Outage, o.Idempotent})
	if !strings.HasPrefix(o.Path, "/") {
		err = errors.Join(err, fmt.Errorf("the path %q must begin with /", o.Path))
	}
	s.initial = err
	s.setting.Store(n)
	return s
}

// Start listens and serves until Stop. The context bounds the listening alone.
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
			s.opts.Log.Error("the sandbox serves no more", "err", err)
		}
	}()
	return nil
}

// Stop ends the sandbox: no new connections, calls that hang or wait end
// without an answer at once, the others are answered until the context ends,
// when their connections are closed. It returns when all is over, and says by
// its error that calls were cut short. Stopping again waits for the same end.
//
// http.Server.Shutdown is not used because it waits up to 5 s for connections
// that were dialled and never used, of which net/http's own client makes many
// (https://go.dev/issue/22682).
func (s *Server) Stop(ctx context.Context) error {
	srv := s.beginStop()
	s.herald.stop()
	if srv != nil {
		_ = s.listener.Close() // closed twice at worst
	}
	var cut error
	select {
	case <-s.idle:
	case <-ctx.Done():
		cut = fmt.Errorf("sandbox: calls were cut short: %w", context.Cause(ctx))
	}
	if srv == nil { // the connections are those of the Handler's server
		return cut
	}
	_ = srv.Close() // errors of connections are the clients' business
	<-s.served
	<-s.idle
	return cut
}

// beginStop marks the end and returns the HTTP server, if there is one.
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

// enter counts a request in, and refuses it when the sandbox is stopping.
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

// Addr is the address that Start listens on, host:port; "" before Start.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// URL is the API's base, what NEXUSPROMAIL_API_URL must be; "" before Start.
func (s *Server) URL() string {
	addr := s.Addr()
	if addr == "" {
		return ""
	}
	return "http://" + addr + base
}

// Calls returns the calls that are remembered, oldest first.
func (s *Server) Calls() []Call { return s.ledger.calls() }

// Stats returns the counters of all calls.
func (s *Server) Stats() Stats { return s.ledger.snapshot() }

// Accepted returns how often mail was accepted under an idempotency key.
func (s *Server) Accepted(key string) int { return s.ledger.acceptedKey(key) }

// AcceptedFor returns how many mails were accepted for a recipient.
func (s *Server) AcceptedFor(to string) int { return s.ledger.acceptedFor(to) }

// WaitFor returns when cond holds for the counters, or with the context's
// error. It is woken by each call's begin and end.
func (s *Server) WaitFor(ctx context.Context, cond func(Stats) bool) error {
	return s.ledger.wait(ctx, cond)
}

// Reset forgets all calls and counters, and begins the seed anew. The faults
// in force stay.
func (s *Server) Reset() {
	s.ledger.clear()
	s.diceMu.Lock()
	defer s.diceMu.Unlock()
	s.dice = newDice(s.opts.Seed)
}
