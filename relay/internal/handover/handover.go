// Package handover is a listening TCP socket that outlives the servers behind
// it: a reload puts another server in the place of the one that serves, at the
// same address, and no client is refused meanwhile. smtpd, which imports nothing
// of relay, has the same for its sessions.
package handover

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// acceptPause is after an error that is not the end, such as too many open files.
const acceptPause = 100 * time.Millisecond

// Socket gives the connections that it accepts to the Turn that leads.
type Socket struct {
	listener net.Listener
	closed   chan struct{}
	served   chan struct{} // closed when nothing more is accepted
	once     sync.Once

	mu      sync.Mutex
	turn    *Turn         // that leads; nil before the first
	changed chan struct{} // closed when another leads
}

// Listen binds an address. Nothing is accepted before a Turn leads.
func Listen(ctx context.Context, address string) (*Socket, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s := &Socket{listener: ln, closed: make(chan struct{}), served: make(chan struct{}), changed: make(chan struct{})}
	go s.accept()
	return s, nil
}

// Addr is where the socket listens.
func (s *Socket) Addr() net.Addr { return s.listener.Addr() }

// Close ends all of it. Connections that a Turn has taken are its server's.
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

// leader waits for a Turn that leads and is open; when the socket is closed
// before, it is what there was, perhaps nil.
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

// pause is false when the socket was closed meanwhile.
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

// Turn is the socket as one server has it: a net.Listener that gets connections
// from when it leads until another does, or it is closed.
type Turn struct {
	socket   *Socket
	incoming chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

var _ net.Listener = (*Turn)(nil)

// Turn returns one that does not lead yet.
func (s *Socket) Turn() *Turn {
	return &Turn{socket: s, incoming: make(chan net.Conn), closed: make(chan struct{})}
}

// Lead has connections come to t from now on. The Turn before has to be closed by
// its server.
func (t *Turn) Lead() {
	s := t.socket
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn = t
	close(s.changed)
	s.changed = make(chan struct{})
}

// offer is false when nobody takes the connection here any more.
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

// Close implements net.Listener; the socket stays open.
func (t *Turn) Close() error {
	t.once.Do(func() { close(t.closed) })
	return nil
}

// Addr implements net.Listener.
func (t *Turn) Addr() net.Addr { return t.socket.Addr() }
