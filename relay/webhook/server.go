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

// ServerOptions are what a Server is made from.
type ServerOptions struct {
	Address           string       // host:port
	Listener          net.Listener // instead of Address, when it is bound already
	CertFile, KeyFile string       // PEM, to speak https; both or neither
	Handler           http.Handler
	Log               *slog.Logger // nil: none

	// limits are the defaults where they are zero: with MaxBody of each connection
	// all clients together have some 32 MiB.
	limits webserver.Limits
}

// Server is the endpoint's own listener.
type Server struct {
	opt ServerOptions

	mu      sync.Mutex
	web     *webserver.Server // nil before Start
	stopped bool
}

// NewServer returns a Server that does nothing yet.
func NewServer(o ServerOptions) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{opt: o}
}

// Start listens and serves until Stop. ctx bounds the start, not the life.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.web != nil || s.stopped {
		return errors.New("webhook: started or stopped before")
	}
	var secure *tls.Config
	if s.opt.CertFile != "" {
		c := &certificate{certFile: s.opt.CertFile, keyFile: s.opt.KeyFile, log: s.opt.Log}
		if err := c.load(); err != nil {
			return fmt.Errorf("webhook: %w", err)
		}
		secure = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}
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

// Addr is the address that Start listens on; nil before Start.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.web == nil {
		return nil
	}
	return s.web.Addr()
}

// Stop takes no more events, waits until those under way are answered, or
// until ctx ends, and cuts off what is left then: what was not answered, the
// provider sends again. Stop without Start, or twice, is harmless.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.stopped = true
	web := s.web
	s.mu.Unlock()
	if web != nil {
		_ = web.Stop(ctx) // of events that were cut off
	}
	return nil
}
