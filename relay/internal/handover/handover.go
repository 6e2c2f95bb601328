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

// Socket accepts connections for its Listeners.
type Socket struct {
	listener net.Listener
	conns    chan net.Conn
	running  sync.WaitGroup

	mu     sync.Mutex // held where closed is closed or running grows
	closed chan struct{}
	active *Listener
}

// Listen binds an address. Clients wait until a Listener is active.
func Listen(ctx context.Context, address string) (*Socket, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s := &Socket{listener: ln, conns: make(chan net.Conn), closed: make(chan struct{})}
	s.running.Go(s.accept)
	return s, nil
}

// Addr returns the address of the socket.
func (s *Socket) Addr() net.Addr { return s.listener.Addr() }

// Close closes the socket. Connections that a server has accepted stay open.
func (s *Socket) Close() {
	s.mu.Lock()
	if !isClosed(s.closed) {
		close(s.closed)
		_ = s.listener.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
}

func (s *Socket) accept() {
	for {
		conn, err := s.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err == nil:
			s.give(conn)
			continue
		}
		select {
		case <-time.After(acceptPause):
		case <-s.closed:
		}
	}
}

// give waits until a Listener takes conn, or the socket is closed.
func (s *Socket) give(conn net.Conn) {
	select {
	case s.conns <- conn:
	case <-s.closed:
		_ = conn.Close()
	}
}

// giveBack gives conn to the next Listener, without waiting for one: there may be none
// before the caller has ended.
func (s *Socket) giveBack(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if isClosed(s.closed) {
		_ = conn.Close()
		return
	}
	s.running.Go(func() { s.give(conn) })
}

// Listener is one server's view of the socket. It is a net.Listener that gets connections
// from Activate to Close.
type Listener struct {
	socket         *Socket
	active, closed chan struct{}
	once           sync.Once
}

// NewListener returns a Listener that is not active yet.
func (s *Socket) NewListener() *Listener {
	return &Listener{socket: s, active: make(chan struct{}), closed: make(chan struct{})}
}

// Activate has l get connections, once. The Listener before is closed: whoever connects
// after Activate has returned gets the new server.
func (l *Listener) Activate() {
	l.socket.mu.Lock()
	before := l.socket.active
	l.socket.active = l
	l.socket.mu.Unlock()
	if before != nil {
		_ = before.Close()
	}
	close(l.active)
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	var conns chan net.Conn // none before l is active
	active := l.active
	for {
		select {
		case <-active:
			conns, active = l.socket.conns, nil
		case conn := <-conns:
			if !isClosed(l.closed) {
				return conn, nil
			}
			l.socket.giveBack(conn)
			return nil, net.ErrClosed
		case <-l.closed:
			return nil, net.ErrClosed
		case <-l.socket.closed:
			return nil, net.ErrClosed
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Close implements net.Listener. The socket stays open.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return l.socket.Addr() }
