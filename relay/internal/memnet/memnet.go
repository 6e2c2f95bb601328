// Package memnet is a network in memory for tests: a listener, and a dial function that
// reaches it, without sockets. testing/synctest sees a goroutine that waits on it as
// durably blocked, so virtual time goes on. Reading from a real socket would stop it.
package memnet

import (
	"context"
	"net"
	"sync"
)

// Listener is one address of the network. Servers accept on it; clients call Dial.
type Listener struct {
	conns chan net.Conn
	shut  chan struct{}
	once  sync.Once
}

var _ net.Listener = (*Listener)(nil)

// Listen returns an open Listener.
func Listen() *Listener {
	return &Listener{conns: make(chan net.Conn), shut: make(chan struct{})}
}

// Accept waits for the next client. After Close it returns net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.shut:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and Dial. It may be called twice.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.shut) })
	return nil
}

// Addr returns a name. Nobody can dial it.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "memory"} }

// Dial connects to the listener, whatever the network and the address. It has the
// signature of net.Dialer.DialContext.
func (l *Listener) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.shut:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
