// Package handover keeps a TCP socket open while the servers behind it change. On a
// reload, a new server takes over at the same address, and no client is refused in
// between. smtpd, which imports nothing of relay, has its own for its sessions.
package handover

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// acceptPause follows an error of Accept, such as too many open files.
const acceptPause = 100 * time.Millisecond

// Socket accepts connections and gives them to the Turn that leads.
type Socket struct {
	listener net.Listener
	closed   chan struct{}
	served   chan struct{} // closed when accept has returned
	once     sync.Once

	mu      sync.Mutex
	turn    *Turn         // the one that leads; nil before the first
	changed chan struct{} // closed when another takes the lead
}

// Listen binds an address. It accepts no connections before a Turn leads.
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
	// Before a server leads, clients wait in the kernel's queue.
	if s.leader() == nil {
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
		for !s.leader().offer(conn, s.closed) {
			if s.isClosed() {
				_ = conn.Close()
				return
			}
		}
	}
}

// leader waits for an open Turn that leads. If the socket is closed, it returns the
// last Turn, which may be nil.
func (s *Socket) leader() *Turn {
	for {
		s.mu.Lock()
		turn, changed := s.turn, s.changed
		s.mu.Unlock()
		if turn != nil && !turn.isClosed() {
			return turn
		}
		select {
		case <-changed:
		case <-s.closed:
			return turn
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

// pause waits. It returns false if the socket is closed in the meantime.
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

// Turn is one server's view of the socket. It is a net.Listener that gets connections
// while it leads.
type Turn struct {
	socket   *Socket
	incoming chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

var _ net.Listener = (*Turn)(nil)

// Turn returns a Turn that does not lead yet.
func (s *Socket) Turn() *Turn {
	return &Turn{socket: s, incoming: make(chan net.Conn), closed: make(chan struct{})}
}

// Lead makes t get the connections from now on. The server of the Turn before must
// close that one.
func (t *Turn) Lead() {
	s := t.socket
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn = t
	close(s.changed)
	s.changed = make(chan struct{})
}

// offer returns false if the Turn or the socket is closed.
func (t *Turn) offer(conn net.Conn, end <-chan struct{}) bool {
	select {
	case t.incoming <- conn:
		return true
	case <-t.closed:
		return false
	case <-end:
		return false
	}
}

func (t *Turn) isClosed() bool {
	select {
	case <-t.closed:
		return true
	default:
		return false
	}
}

// Accept implements net.Listener.
func (t *Turn) Accept() (net.Conn, error) {
	select {
	case conn := <-t.incoming:
		return conn, nil
	case <-t.closed:
		return nil, net.ErrClosed
	case <-t.socket.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. The socket stays open.
func (t *Turn) Close() error {
	t.once.Do(func() { close(t.closed) })
	return nil
}

// Addr implements net.Listener.
func (t *Turn) Addr() net.Addr { return t.socket.Addr() }
