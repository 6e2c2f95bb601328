package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay/internal/webserver"
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
	Access   Access       // Prepare changes it

	Log *slog.Logger // nil: none
}

// limits bound what clients may use. On TCP anybody may come: a page of metrics
// takes some 300 KB while it is made, so that all together have some 20 MB. Who
// may open the socket may do anything, and takes time: a pager is slow.
func (o ServerOptions) limits() webserver.Limits {
	if o.Address == "" {
		return webserver.Limits{RequestTime: 30 * time.Second, WriteTime: time.Hour, IdleTime: time.Minute}
	}
	return webserver.Limits{Connections: 64, RequestTime: 30 * time.Second, WriteTime: time.Minute, IdleTime: 15 * time.Second}
}

// Server answers a Client, supervisors and monitoring on a unix socket or on
// TCP.
type Server struct {
	opt    ServerOptions
	access atomic.Pointer[Access]

	mu      sync.Mutex
	web     *webserver.Server // nil before Start
	stopped bool
}

// NewServer returns a Server that does nothing yet.
func NewServer(o ServerOptions) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{opt: o}
	s.access.Store(&o.Access)
	return s
}

// Prepare makes ready to ask something else from the next request on, of clients
// that are connected as well. It never fails.
func (s *Server) Prepare(a Access) (apply func(), err error) {
	return func() { s.access.Store(&a) }, nil
}

// Start binds the socket and serves until Stop. A socket file that a dead
// daemon left is removed; one that a living daemon answers on is not, and
// Start fails with ErrInUse. ctx bounds the start, not the life.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.web != nil || s.stopped {
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
	handlePages(mux, s.opt)
	answers := http.Handler(mux)
	if s.opt.Address != "" {
		answers = guarded(func() Access { return *s.access.Load() }, answers)
	}
	stopping := func(w http.ResponseWriter, _ *http.Request) { reply(w, struct{}{}, queue.ErrClosed) }
	s.web = webserver.New(webserver.Options{Handler: answers, Stopping: http.HandlerFunc(stopping), Limits: s.opt.limits(), Log: s.opt.Log})
	return s.web.Start(ln)
}

// Addr is where the server listens; nil before Start.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.web == nil {
		return nil
	}
	return s.web.Addr()
}

// Stop takes no more calls and lets those under way end until ctx does; then
// they are cut off. It waits for all of it and removes the socket. Stop before
// Start, or twice, is harmless.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.stopped = true
	web := s.web
	s.mu.Unlock()
	if web == nil {
		return nil
	}
	if err := web.Stop(ctx); err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}
