// Package handover keeps a TCP socket open while the servers behind it change. On a
// reload, a new server takes over at the same address, and no client is refused in
// between. smtpd may not import relay, and has its own version in listener.go.
package handover

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// acceptPause is the wait after Accept fails, for example because too many files are open.
const acceptPause = 100 * time.Millisecond

// Socket accepts connections and gives them to the active Listener.
type Socket struct {
	listener net.Listener
	closed   chan struct{}
	served   chan struct{} // closed when accept has returned
	once     sync.Once

	mu      sync.Mutex
	active  *Listener     // nil before the first is activated
	changed chan struct{} // closed when another Listener becomes active
}

// Listen binds an address. It accepts no connections before a Listener is active.
func Listen(ctx context.Context, address string) (*Socket, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s := &Socket{listener: ln, closed: make(chan struct{}), served: make(chan struct{}), changed: make(chan struct{})}
	go s.accept()
	return s, nil
}

// Addr returns the address of the socket.
func (s *Socket) Addr() net.Addr { return s.listener.Addr() }

// Close closes the socket. Connections that a server has accepted stay open.
func (s *Socket) Close() {
	s.once.Do(func() {
		close(s.closed)
		_ = s.listener.Close()
	})
	<-s.served
}

func (s *Socket) accept() {
	defer close(s.served)
	// Before a Listener is active, clients wait in the kernel's queue.
	if s.waitForActive() == nil {
		return
	}
	for {
		conn, err := s.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			if !s.pause() {
				return
			}
			continue
		}
		for !s.waitForActive().offer(conn, s.closed) { // not nil: s.active is never unset
			if s.isClosed() {
				_ = conn.Close()
				return
			}
		}
	}
}

// waitForActive waits until the active Listener is open, and returns it. If the socket is
// closed, it returns the last one, which may be nil.
func (s *Socket) waitForActive() *Listener {
	for {
		s.mu.Lock()
		active, changed := s.active, s.changed
		s.mu.Unlock()
		if active != nil && !active.isClosed() {
			return active
		}
		select {
		case <-changed:
		case <-s.closed:
			return active
		}
	}
}

func (s *Socket) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// pause waits for acceptPause. It returns false if the socket is closed in the meantime.
func (s *Socket) pause() bool {
	timer := time.NewTimer(acceptPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.closed:
		return false
	}
}

// Listener is one server's view of the socket. It is a net.Listener that gets connections
// while it is active.
type Listener struct {
	socket   *Socket
	incoming chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

var _ net.Listener = (*Listener)(nil)

// NewListener returns a Listener that is not active yet.
func (s *Socket) NewListener() *Listener {
	return &Listener{socket: s, incoming: make(chan net.Conn), closed: make(chan struct{})}
}

// Activate makes l get the connections from now on. The previous server must close its own
// Listener.
func (l *Listener) Activate() {
	s := l.socket
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = l
	close(s.changed)
	s.changed = make(chan struct{})
}

// offer hands conn to the server. It returns false if the Listener or the socket is closed.
func (l *Listener) offer(conn net.Conn, socketClosed <-chan struct{}) bool {
	select {
	case l.incoming <- conn:
		return true
	case <-l.closed:
		return false
	case <-socketClosed:
		return false
	}
}

func (l *Listener) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.incoming:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-l.socket.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. The socket stays open.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return l.socket.Addr() }
