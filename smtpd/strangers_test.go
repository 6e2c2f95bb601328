package smtpd

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
)

// threeListeners are a listener for loopback, one where everybody logs in, and another
// of those.
func threeListeners(t *testing.T, connections int) func(o *Options) {
	users := withUsers(t, auth.Options{Delay: 1})
	return func(o *Options) {
		users(o)
		o.Limits.Connections, o.Limits.ConnectionsPerAddress = connections, connections
		login := Listener{Address: "127.0.0.1:0", AuthWithoutTLS: true}
		o.Listeners = append(o.Listeners, login, login)
	}
}

// dialAt connects to a listener from an address of this machine, and returns
// the client with the code of its greeting.
func dialAt(t *testing.T, s *Server, listener int, from string) (c *client, code string) {
	t.Helper()
	c = dialTo(t, s.Addrs()[listener].String(), from)
	return c, c.reply()[:3]
}

// sends reports whether a client that was greeted can send a mail.
func (c *client) sends() {
	c.t.Helper()
	c.do("EHLO c", "250 ", "MAIL FROM:<a@b.test>", "250 ", "RCPT TO:<c@d.test>", "250 ", "DATA", "354 ", "x\r\n.", "250 2.0.0 queued")
}

// Clients that may not send, as many as can be, keep out neither those of a
// network, as many as can be, nor those who log in, by their listener and by
// another one.
func TestStrangersStarveNobody(t *testing.T) {
	const most = 20
	s := start(t, &fakeBackend{}, threeListeners(t, most))
	var strangers []*client
	for i := range 3 * most { // from four addresses
		c, code := dialAt(t, s, 1, fmt.Sprintf("127.0.0.%d", 2+i%4))
		if code == "220" {
			strangers = append(strangers, c)
		}
	}
	if want := most * 3 / 4; len(strangers) != want {
		t.Errorf("%d strangers are in, want %d", len(strangers), want)
	}
	for listener := 1; listener <= 2; listener++ {
		c, code := dialAt(t, s, listener, "127.0.0.9")
		if code != "220" {
			t.Fatalf("somebody who would log in at listener %d hears %s", listener, code)
		}
		c.do("EHLO c", "250 ", plain("ann", "hunter2"), "235 ")
		c.sends()
	}
	for i := range most - 2 { // all but those two
		c, code := dialAt(t, s, 0, "127.0.0.1")
		if code != "220" {
			t.Fatalf("client %d of the network hears %s", i, code)
		}
		c.sends()
	}
	if _, code := dialAt(t, s, 0, "127.0.0.1"); code != "421" {
		t.Errorf("beyond all there are: %s", code)
	}
	for _, c := range strangers {
		c.want("421 4.7.0 too many connections, try again later")
	}
}

// A stranger takes the place of another one from where there are more, and
// nobody else's.
func TestStrangersShare(t *testing.T) {
	s := start(t, &fakeBackend{}, threeListeners(t, 8)) // two of which are kept for the network
	var old []*client
	for i := range 6 {
		c, code := dialAt(t, s, 1, "127.0.0.2")
		if code != "220" {
			t.Fatal(i, code)
		}
		if i == 0 {
			c.do("EHLO c", "250 ", plain("ann", "hunter2"), "235 ") // no stranger any more
		}
		old = append(old, c)
	}
	enter := func(listener int, from, want string) *client {
		t.Helper()
		c, code := dialAt(t, s, listener, from)
		if code != want {
			t.Errorf("from %s at listener %d: %s, want %s", from, listener, code, want)
		}
		return c
	}
	enter(1, "127.0.0.2", "421") // as many as there may be of them
	enter(1, "127.0.0.3", "220")
	old[1].want("421 ") // the oldest of those who are most
	enter(1, "127.0.0.3", "220")
	old[2].want("421 ")
	enter(1, "127.0.0.3", "421") // 3 and 2: one more would be as many as are there
	enter(2, "127.0.0.2", "220") // by another listener, where there are fewer
	old[3].want("421 ")
	enter(2, "127.0.0.2", "220")
	old[4].want("421 ")          // at the first listener, 2 and 2 were left: the oldest
	enter(2, "127.0.0.4", "220") // 3 and 2 now: in place of one at its own listener
	enter(0, "127.0.0.1", "220") // from what is kept
	enter(0, "127.0.0.1", "220")
	old[0].do("MAIL FROM:<a@b.test>", "250 ")
}

// Who may not send has less time for a command, and fewer of them, until it
// has logged in.
func TestStrangersAreBrief(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Options)
		limit  limit
		meet   func(t *testing.T, c *client, s *Server)
	}{
		"silent": {func(o *Options) { o.Limits.StrangerTime = soon() }, limitStrangerTime, func(t *testing.T, c *client, _ *Server) {
			c.want("421 4.4.2 timeout")
		}},
		"a line that does not end": {func(o *Options) { o.Limits.StrangerTime = soon() }, limitStrangerTime, func(t *testing.T, c *client, _ *Server) {
			c.send("NOOP")
			c.want("421 4.4.2 timeout")
		}},
		"in the middle of a login": {func(o *Options) { o.Limits.StrangerTime = 2 * time.Second }, limitStrangerTime, func(t *testing.T, c *client, _ *Server) {
			c.do("EHLO c", "250 ", "AUTH LOGIN", "334 ")
			c.want("421 4.4.2 timeout")
		}},
		"NOOPs": {nil, limitStrangerCommands, func(t *testing.T, c *client, _ *Server) {
			for range 20 {
				c.do("NOOP", "250 ")
			}
			c.do("NOOP", "421 4.7.0 too many errors")
		}},
		"logged in": {nil, "", func(t *testing.T, c *client, s *Server) {
			c.do("EHLO c", "250 ", plain("ann", "hunter2"), "235 ")
			for range 50 {
				c.do("NOOP", "250 ")
			}
			s.connections.mu.Lock()
			defer s.connections.mu.Unlock()
			for w := range s.connections.conns {
				w.mu.Lock()
				defer w.mu.Unlock()
				if got := w.clock.idle(); got != w.limits.IdleTime {
					t.Errorf("it has %v for a command", got)
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := prometheus.NewPedanticRegistry()
			s := start(t, &fakeBackend{}, func(o *Options) {
				threeListeners(t, 10)(o)
				o.Metrics, o.Limits.IdleTime = reg, time.Minute
				if tt.change != nil {
					tt.change(o)
				}
			})
			c, code := dialAt(t, s, 1, "127.0.0.2")
			if code != "220" {
				t.Fatal(code)
			}
			tt.meet(t, c, s)
			for label, n := range series(t, reg, "smtp2rest_smtp_limits_total") {
				if want := map[bool]float64{true: 1}[label == string(tt.limit)]; n != want {
					t.Errorf("%s was met %v times, want %v", label, n, want)
				}
			}
		})
	}
}

// A stranger that is to make room waits for nothing more: not for the reply to
// its wrong password, and not to be heard.
func TestDroppedWhereverItIs(t *testing.T) {
	slow := withUsers(t, auth.Options{Delay: time.Hour})
	for name, tt := range map[string]struct {
		tls   TLSMode
		begin func(c *client)
	}{
		"before EHLO":               {NoTLS, func(c *client) { c.want("220 ") }},
		"waits after a password":    {NoTLS, func(c *client) { c.want("220 "); c.do("EHLO c", "250 "); c.send(plain("ann", "x") + "\r\n") }},
		"silent before a handshake": {ImplicitTLS, func(c *client) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, &fakeBackend{}, func(o *Options) {
				slow(o)
				o.Limits.Connections = 1
				o.Limits.IdleTime, o.Limits.WriteTime, o.Limits.HandshakeTime = time.Hour, time.Hour, time.Hour
				o.Listeners = append(o.Listeners, Listener{Address: "127.0.0.1:0", AuthWithoutTLS: true, TLS: TLS{Mode: tt.tls, SelfSigned: tt.tls != NoTLS}})
			})
			tt.begin(dialTo(t, s.Addrs()[1].String(), "127.0.0.2"))
			waitFor(t, s, 1)
			c, code := dialAt(t, s, 0, "127.0.0.1")
			if code != "220" {
				t.Fatal(code)
			}
			c.sends()
			waitFor(t, s, 1)
		})
	}
}
