// Package memnet is a network in memory for tests: a listener and the dial
// function that reaches it, without sockets. A goroutine that waits on it is
// blocked for good in the eyes of testing/synctest, so that virtual time goes
// on, which a real socket's read would hold up.
package memnet

import (
	"context"
	"net"
	"sync"
)

// Listener is one address of the network. Servers accept on it as on any
// other; clients come by Dial.
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

// Accept waits for the next client; net.ErrClosed after Close.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.shut:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and Dial. Closing twice is harmless.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.shut) })
	return nil
}

// Addr is a name and no address: there is nothing that could be dialled by it.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "memory"} }

// Dial connects to the listener, whatever the network and the address. It has
// the form of net.Dialer.DialContext.
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
