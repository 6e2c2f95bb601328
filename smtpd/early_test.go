package smtpd

import (
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
