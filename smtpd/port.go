package smtpd

import (
	"errors"
	"net"
	"strings"
	"sync"
)

// A port is a socket that is listened on. It outlives what it is for: a new
// configuration puts another door behind it, and no client notices.
type port struct {
	net.Listener
	server *Server
	key    string // the listener's address, and which it is of those that have the same

	mu     sync.Mutex
	door   *door // for clients that come now; nil before the first
	closed bool  // no other door will come
}

// current is what clients that come now find.
func (p *port) current() *door {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.door
}

// lead puts a door behind the port and closes the one before to newcomers.
func (p *port) lead(d *door) {
	p.mu.Lock()
	before := p.door
	p.door = d
	p.mu.Unlock()
	if before != nil {
		before.retire()
	}
}

// accept hands connections to the current door until the port is closed.
func (p *port) accept() {
	for {
		conn, err := p.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			p.server.log.Error("cannot accept connections", "listener", p.Addr().String(), "error", err)
			p.server.pause(p.server.ctx, acceptPause)
			continue
		}
		for !p.current().offer(conn) { // it retired a moment ago
			if p.isClosed() {
				_ = conn.Close()
				return
			}
		}
	}
}

// close lets nobody in any more.
func (p *port) close() {
	_ = p.Listener.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	if d := p.current(); d != nil {
		d.retire()
	}
}

func (p *port) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// number is the port number of a TCP address, "" of anything else.
func (p *port) number() string {
	_, number, err := net.SplitHostPort(p.Addr().String())
	if err != nil || strings.HasPrefix(number, "/") {
		return ""
	}
	return number
}
