package smtpd

import (
	"net"
	"testing"
	"time"
)

// lastClient is a listener that is closed while it accepts one more client.
type lastClient struct {
	net.Listener
	port   *port
	client net.Conn
}

func (l *lastClient) Accept() (net.Conn, error) {
	if l.client == nil {
		return nil, net.ErrClosed
	}
	conn := l.client
	l.client = nil
	l.port.close()
	return conn, nil
}

// Whoever is accepted when a reload has removed the listener is closed: no other
// listener will come to take him.
func TestAClientAtAPortThatIsClosed(t *testing.T) {
	s := start(t, &fakeBackend{}, nil)
	inner, outer := net.Pipe()
	p := &port{server: s, Listener: s.ports[0].Listener}
	p.now = &listener{port: p, retired: make(chan struct{}), incoming: make(chan net.Conn)}
	p.Listener = &lastClient{p.Listener, p, inner}
	done := make(chan struct{})
	go func() { defer close(done); p.accept() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("it waits for another listener")
	}
	if _, err := outer.Read(make([]byte, 1)); err == nil {
		t.Error("the client was not closed")
	}
}
