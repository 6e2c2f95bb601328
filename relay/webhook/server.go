package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/smtp2rest/smtp2rest/relay/internal/webserver"
)

// ServerOptions configure a Server.
type ServerOptions struct {
	Address           string       // host:port
	Listener          net.Listener // bound already; instead of Address
	CertFile, KeyFile string       // PEM files for https; both or neither
	Handler           http.Handler
	Log               *slog.Logger // nil: none

	// limits are the defaults where they are zero. With MaxBody for each connection,
	// all clients together use about 32 MiB.
	limits webserver.Limits
}

// Server is the listener of the endpoint.
type Server struct {
	opt ServerOptions

	mu      sync.Mutex
	web     *webserver.Server // nil before Start
	stopped bool
}

// NewServer returns a Server. It does nothing before Start.
func NewServer(o ServerOptions) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{opt: o}
}

// Start listens and serves until Stop. ctx only bounds the start.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.web != nil || s.stopped {
		return errors.New("webhook: started or stopped before")
	}
	var secure *tls.Config
	if s.opt.CertFile != "" {
		var err error
		if secure, err = webserver.TLS(s.opt.CertFile, s.opt.KeyFile, s.opt.Log); err != nil {
			return fmt.Errorf("webhook: %w", err)
		}
	}
	ln := s.opt.Listener
	if ln == nil {
		var err error
		if ln, err = new(net.ListenConfig).Listen(ctx, "tcp", s.opt.Address); err != nil {
			return fmt.Errorf("webhook: %w", err)
		}
	}
	stopping := func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusServiceUnavailable, "Try again later")
	}
	s.web = webserver.New(webserver.Options{Handler: s.opt.Handler, Stopping: http.HandlerFunc(stopping), TLS: secure, Limits: s.opt.limits, Log: s.opt.Log})
	return s.web.Start(ln)
}

// Addr returns the address that Start listens on; nil before Start.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.web == nil {
		return nil
	}
	return s.web.Addr()
}

// Stop accepts no more events. It waits for those in progress until ctx ends, and then
// cuts off the rest. The provider sends again what was not answered. Stop may be called
// before Start, or twice.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.stopped = true
	web := s.web
	s.mu.Unlock()
	if web != nil {
		_ = web.Stop(ctx) // its error is about events that were cut off
	}
	return nil
}
