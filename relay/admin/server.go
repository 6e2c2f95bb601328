package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// ServerOptions are what a Server is made from.
type ServerOptions struct {
	Admin        Admin
	Suppressions Suppressions // nil: its calls are not answered
	History      History      // nil: likewise
	Health       Health
	Metrics      prometheus.Gatherer // what /metrics answers with; nil: there is none

	// Path of the socket; at most some 100 bytes, which is the kernel's limit.
	// Whoever may open it may do anything: it gets mode 0600, and its owner is
	// the daemon's user.
	Path string

	// Address is host:port, instead of Path. What it answers is guarded.
	Address  string
	Listener net.Listener // on Address, when it is bound already
	Access   Access       // SetAccess changes it

	Log *slog.Logger // nil: none
}

// lastBytes is how long answers that are complete may take to leave.
const lastBytes = time.Second

// Server answers a Client, supervisors and monitoring on a unix socket or on
// TCP.
type Server struct {
	opt    ServerOptions
	access atomic.Pointer[Access]

	mu       sync.Mutex
	http     *http.Server // nil before Start
	listener net.Listener
	cutOff   context.CancelFunc // ends the calls under way
	stopped  bool
	calls    sync.WaitGroup // grows only while not stopped
	served   chan struct{}  // closed when the listener's loop is over
}

// NewServer returns a Server that does nothing yet.
func NewServer(o ServerOptions) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{opt: o, served: make(chan struct{})}
	s.SetAccess(o.Access)
	return s
}

// SetAccess asks something else from the next request on, of clients that are
// connected as well.
func (s *Server) SetAccess(a Access) { s.access.Store(&a) }

// Start binds the socket and serves until Stop. A socket file that a dead
// daemon left is removed; one that a living daemon answers on is not, and
// Start fails with ErrInUse. ctx bounds the start, not the life.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil || s.stopped {
		return errors.New("admin: started or stopped before")
	}
	ln, err := s.opt.listen(ctx)
	if err != nil {
		return err
	}
	mux := handler(s.opt.Admin)
	if s.opt.Suppressions != nil {
		handleSuppressions(mux, s.opt.Suppressions)
	}
	if s.opt.History != nil {
		historyHandler(mux, s.opt.History)
	}
	pages(mux, s.opt)
	answers := s.counted(mux)
	if s.opt.Address != "" {
		answers = guarded(func() Access { return *s.access.Load() }, answers)
	}
	life, cancel := context.WithCancel(context.Background())
	srv := &http.Server{
		Handler:           answers,
		BaseContext:       func(net.Listener) context.Context { return life },
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second, // a request is small
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(s.opt.Log.Handler(), slog.LevelWarn),
	}
	s.http, s.listener = srv, ln
	s.cutOff = func() { _ = srv.Close(); cancel() } // an error of the canceled must not look like an answer
	go func() {
		defer close(s.served)
		// Shut before served when Stop closed the listener first.
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.opt.Log.Error("the admin server does not answer any more", "on", ln.Addr().String(), "cause", err)
		}
	}()
	return nil
}

// Addr is where the server listens; nil before Start.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Stop takes no more calls and lets those under way end until ctx does; then
// they are cut off. It waits for all of it and removes the socket. Stop before
// Start, or twice, is harmless.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.stopped = true
	srv := s.http
	s.mu.Unlock()
	if srv == nil {
		return nil
	}
	_ = s.listener.Close() // closed twice at worst
	late := context.AfterFunc(ctx, s.cutOff)
	s.calls.Wait()
	inTime := late()
	// Calls have returned, but their last bytes may be on their way still. It
	// is not Shutdown that waits for the calls because it would also wait for
	// 5 s for whoever connected and said nothing (https://go.dev/issue/22682).
	flush, cancel := context.WithTimeout(ctx, lastBytes)
	defer cancel()
	_ = srv.Shutdown(flush)
	s.cutOff()
	<-s.served
	if !inTime {
		return errors.Join(errors.New("admin: calls were cut short"), context.Cause(ctx))
	}
	return nil
}

// counted lets Stop wait for calls, and refuses those that come after it.
func (s *Server) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		stopped := s.stopped
		if !stopped {
			s.calls.Add(1)
		}
		s.mu.Unlock()
		if stopped {
			reply(w, struct{}{}, queue.ErrClosed)
			return
		}
		defer s.calls.Done()
		h.ServeHTTP(w, r)
	})
}
