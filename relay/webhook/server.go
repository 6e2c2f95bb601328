package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

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

// lookEvery is how often a certificate's files are checked for changes.
const lookEvery = time.Minute

// certificate is a certificate that is read again when its files change.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	pair    *tls.Certificate
	changed time.Time // the later of the files' modification times
	looked  time.Time
}

func (c *certificate) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read(c.modified())
}

// modified returns when the files were last modified. Files that are gone do not count.
func (c *certificate) modified() time.Time {
	var last time.Time
	for _, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}

func (c *certificate) read(changed time.Time) error {
	c.changed, c.looked = changed, time.Now()
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	c.pair = &pair
	return nil
}

// get returns the certificate for a connection. If a new one cannot be read, it logs
// that and returns the one before.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < lookEvery {
		return c.pair, nil
	}
	c.looked = time.Now()
	if changed := c.modified(); !changed.Equal(c.changed) {
		if err := c.read(changed); err != nil {
			c.log.Error("the new certificate of the webhook cannot be read; the old one stays in use", "cause", err)
		}
	}
	return c.pair, nil
}
