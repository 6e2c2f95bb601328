// Package webserver is the HTTP server under relay/webhook and relay/admin. It
// bounds what a stranger can make it hold: connections, of all and of one
// address, headers, and the time that each step may take. Who has proved nothing
// makes room for others when there is none. It knows nothing of what is served.
package webserver

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Options configure a Server.
type Options struct {
	Handler http.Handler
	// Stopping answers requests that come after Stop began.
	Stopping http.Handler
	// Listen opens what Start serves. The listener is the server's from then on.
	Listen func(context.Context) (net.Listener, error)
	// CertFile and KeyFile are PEM files for https; both or neither. HTTP/2 is not offered:
	// it has bounds of its own.
	CertFile, KeyFile string
	Limits            Limits
	Log               *slog.Logger // nil: none
}

// Limits bound what clients may use. Zero takes the default.
type Limits struct {
	Connections int           // at once; 128
	PerAddress  int           // of strangers of one address, or an IPv6 /64; half of Connections
	HeaderBytes int           // 16 KiB
	HeaderTime  time.Duration // for the header; 5 s
	RequestTime time.Duration // for all of a request; 10 s
	WriteTime   time.Duration // for each write of an answer; 20 s
	IdleTime    time.Duration // between two requests; 5 s
	// Grace is how long a connection that has said something keeps its place, unless
	// its address holds more places than others; 1 s.
	Grace time.Duration
}

func (l Limits) withDefaults() Limits {
	l.Connections = cmp.Or(l.Connections, 128)
	l.PerAddress = cmp.Or(l.PerAddress, (l.Connections+1)/2)
	l.HeaderBytes = cmp.Or(l.HeaderBytes, 16<<10)
	l.HeaderTime = cmp.Or(l.HeaderTime, 5*time.Second)
	l.RequestTime = cmp.Or(l.RequestTime, 10*time.Second)
	l.WriteTime = cmp.Or(l.WriteTime, 20*time.Second)
	l.IdleTime = cmp.Or(l.IdleTime, 5*time.Second)
	l.Grace = cmp.Or(l.Grace, time.Second)
	return l
}

// lastBytes is how long answers that are complete may take to leave.
const lastBytes = time.Second

// Server serves one listener, once.
type Server struct {
	opt  Options
	http *http.Server
	life context.Context // of the calls; ends when they are cut off
	end  context.CancelFunc

	mu       sync.Mutex
	listener *listener // nil before Start
	stopped  bool
	calls    sync.WaitGroup // grows only while not stopped
	served   chan struct{}  // closed when the listener's loop is over
}

// New returns a Server that does nothing yet.
func New(o Options) *Server {
	o.Limits = o.Limits.withDefaults()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{opt: o, served: make(chan struct{})}
	s.life, s.end = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:     http.HandlerFunc(s.serve),
		BaseContext: func(net.Listener) context.Context { return s.life },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, ours(c))
		},
		ConnState:         func(c net.Conn, state http.ConnState) { ours(c).changed(state) },
		ReadHeaderTimeout: min(o.Limits.HeaderTime, o.Limits.RequestTime),
		ReadTimeout:       o.Limits.RequestTime,
		IdleTimeout:       o.Limits.IdleTime,
		MaxHeaderBytes:    o.Limits.HeaderBytes,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug), // about clients: anybody can fill it
	}
	return s
}

// Start listens and serves until Stop. ctx bounds only Start itself.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil || s.stopped {
		return errors.New("the server was started or stopped before")
	}
	var secure *tls.Config
	if s.opt.CertFile != "" {
		var err error
		if secure, err = certificateOf(s.opt.CertFile, s.opt.KeyFile, s.opt.Log); err != nil {
			return err
		}
	}
	ln, err := s.opt.Listen(ctx)
	if err != nil {
		return err
	}
	s.listener = &listener{Listener: ln, limits: s.opt.Limits, conns: map[*conn]struct{}{}, room: make(chan struct{}, 1), closed: make(chan struct{})}
	ln = s.listener
	if secure != nil {
		ln = tls.NewListener(ln, secure)
	}
	go func() {
		defer close(s.served)
		// Stop may close the listener before Serve has it.
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.opt.Log.Error("the HTTP server does not answer any more", "on", ln.Addr().String(), "cause", err)
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

// Stop takes no more requests and lets those under way end until ctx does; then
// they are cut off. It waits for all of it. Stop before Start, or twice, is
// harmless.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.stopped = true
	ln := s.listener
	s.mu.Unlock()
	if ln == nil {
		return nil
	}
	_ = ln.Close()                                   // closed twice at worst
	cutOff := func() { _ = s.http.Close(); s.end() } // an error of the canceled must not look like an answer
	late := context.AfterFunc(ctx, cutOff)
	s.calls.Wait()
	inTime := late()
	// The handlers have returned, but their last bytes may be on their way still.
	// It is not Shutdown that waits for the handlers because it would also wait for
	// 5 s for whoever connected and said nothing (https://go.dev/issue/22682).
	flush, cancel := context.WithTimeout(ctx, lastBytes)
	defer cancel()
	_ = s.http.Shutdown(flush)
	cutOff()
	<-s.served
	if !inTime {
		return fmt.Errorf("requests were cut short: %w", context.Cause(ctx))
	}
	return nil
}

// serve lets Stop wait for requests, and refuses those that come after it.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	stopped := s.stopped
	if !stopped {
		s.calls.Add(1)
	}
	s.mu.Unlock()
	if stopped {
		s.opt.Stopping.ServeHTTP(w, r)
		return
	}
	defer s.calls.Done()
	s.opt.Handler.ServeHTTP(w, r)
}
