package smtpd

import (
	"bufio"
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"testing"
)

// Who talks before the greeting, or ahead of the reply to EHLO, hears that and
// no more, however what they say is cut into pieces; and nothing that they said
// is looked at. TestDialogs has those who send it in one piece.
func TestEarlyTalkers(t *testing.T) {
	const (
		ehlo  = "EHLO c\r\n"
		mail  = "MAIL FROM:<evil@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nx\r\n.\r\n"
		proxy = "PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n"
	)
	b := &tracing{}
	s := start(t, b, nil)
	behindProxy := start(t, b, func(o *Options) { o.Listeners[0].ProxyFrom = loopback() })
	for name, tt := range map[string]struct {
		server *Server
		conn   *memoryConn
		want   []string // the beginning of each reply
	}{
		"at once":               {s, &memoryConn{in: ehlo + mail, atOnce: 1 << 10, goesOn: true}, []string{"554 5.5.1 wait for the greeting"}},
		"behind a proxy":        {behindProxy, &memoryConn{in: proxy + ehlo + mail, atOnce: 1 << 10}, []string{"554 5.5.1 wait for the greeting"}},
		"after EHLO, in two":    {s, &memoryConn{in: ehlo + mail, atOnce: len(ehlo), rude: true}, []string{"220 ", "554 5.5.1 wait for the reply to EHLO"}},
		"after EHLO, octets":    {s, &memoryConn{in: ehlo + mail, atOnce: 1, rude: true}, []string{"220 ", "554 5.5.1 wait for the reply to EHLO"}},
		"when it is their turn": {s, &memoryConn{in: ehlo + "QUIT\r\n" + mail, atOnce: 1 << 10}, []string{"220 ", "250-", "221 "}},
	} {
		tt.conn.closed = make(chan struct{})
		b.begin(tt.conn)
		if !tt.server.ports[0].current().offer(tt.conn) {
			t.Fatal("the server has stopped")
		}
		<-tt.conn.closed
		waitFor(t, tt.server, 0)
		if !slices.EqualFunc(tt.conn.events, tt.want, func(e event, want string) bool { return strings.HasPrefix(e.written, want) }) {
			t.Errorf("%s: it heard and did %v", name, tt.conn)
		}
	}
}

// What arrived before the greeting is found on a real socket as well, and no
// client waits for that.
func TestEarlyTalkerOnASocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	c := newClient(t, conn)
	c.send("EHLO c\r\n") // which has arrived when it is sent, as it stays on this machine
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, &fakeBackend{}, nil)
	if !s.ports[0].current().offer(accepted) {
		t.Fatal("the server has stopped")
	}
	c.want("554 5.5.1 wait for the greeting")
}

// Inside TLS a second record may have arrived with the first, and is read by
// then although bufio does not have it.
func TestEarlyTalkerInsideTLS(t *testing.T) {
	s := start(t, &fakeBackend{}, func(o *Options) { o.Listeners[0].TLS = TLS{Mode: ImplicitTLS, SelfSigned: true} })
	c := dial(t, s)
	wire := &gathering{Conn: c.conn}
	conn := tls.Client(wire, &tls.Config{InsecureSkipVerify: true})
	c.rw, c.r = conn, bufio.NewReader(conn)
	c.want("220 ")
	wire.gathers = true
	c.send("EHLO c\r\n")
	c.send("MAIL FROM:<evil@b.test>\r\n")
	if _, err := c.conn.Write(wire.gathered); err != nil {
		t.Fatal(err)
	}
	c.want("554 5.5.1 wait for the reply to EHLO")
}

// gathering keeps what is written to it, to be sent in one piece.
type gathering struct {
	net.Conn
	gathers  bool
	gathered []byte
}

func (g *gathering) Write(p []byte) (int, error) {
	if !g.gathers {
		return g.Conn.Write(p)
	}
	g.gathered = append(g.gathered, p...)
	return len(p), nil
}
