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
	"time"

	"golang.org/x/net/netutil"
)

// What a client may use at most: all of it together some 32 MiB.
const (
	maxConnections = 128
	maxHeader      = 16 << 10
	headerTime     = 5 * time.Second
	requestTime    = 10 * time.Second
	answerTime     = 20 * time.Second
	idleTime       = time.Minute
)

// ServerOptions are what a Server is made from.
type ServerOptions struct {
	Address           string       // host:port
	Listener          net.Listener // instead of Address, when it is bound already
	CertFile, KeyFile string       // PEM, to speak https; both or neither
	Handler           http.Handler
	Log               *slog.Logger // nil: none

	requestTime time.Duration // the constant when 0
	connections int           // the constant when 0
}

// Server is the endpoint's own listener.
type Server struct {
	opt ServerOptions

	mu       sync.Mutex
	http     *http.Server // nil before Start
	listener net.Listener
	stopped  bool
	served   chan struct{} // closed when the listener's loop is over
}

// NewServer returns a Server that does nothing yet.
func NewServer(o ServerOptions) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.requestTime == 0 {
		o.requestTime = requestTime
	}
	if o.connections == 0 {
		o.connections = maxConnections
	}
	return &Server{opt: o, served: make(chan struct{})}
}

// Start listens and serves until Stop. ctx bounds the start, not the life.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil || s.stopped {
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
	s.listener = ln
	ln = netutil.LimitListener(ln, s.opt.connections)
	if secure != nil {
		ln = tls.NewListener(ln, secure)
	}
	s.http = &http.Server{
		Handler:           s.opt.Handler,
		ReadHeaderTimeout: min(headerTime, s.opt.requestTime),
		ReadTimeout:       s.opt.requestTime,
		WriteTimeout:      answerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.opt.Log.Handler(), slog.LevelDebug), // about clients: anybody can fill it
	}
	go func() {
		defer close(s.served)
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.opt.Log.Error("no more events are taken", "cause", err)
		}
	}()
	return nil
}

// Addr is the address that Start listens on; nil before Start.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Stop takes no more events, waits until those under way are answered, or
// until ctx ends, and cuts off what is left then: what was not answered, the
// provider sends again. Stop without Start, or twice, is harmless.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.stopped = true
	srv := s.http
	s.mu.Unlock()
	if srv == nil {
		return nil
	}
	if srv.Shutdown(ctx) != nil {
		_ = srv.Close() // of connections that their clients hold open
	}
	<-s.served
	return nil
}
