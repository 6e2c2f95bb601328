package smtpd

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/budget"
)

// limitCase meets one limit.
type limitCase struct {
	change func(o *Options)
	meet   func(c *client, s *Server)
	silent bool // the log does not tell, as there is no reply
}

func soon() time.Duration { return 100 * time.Millisecond }

// hurry changes limits of a session that is there already.
func (c *client) hurry(s *Server, change func(*Limits)) {
	c.t.Helper()
	if err := hurry(s, func(o *Options) error { change(&o.Limits); return nil }); err != nil {
		c.t.Fatal(err)
	}
}

const nextMail = "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n"

// data gets as far as the content of a message.
func (c *client) data() {
	c.t.Helper()
	c.open()
	c.do("DATA", "354 ")
}

// limitCases has one for each limit, by its name.
func limitCases(t *testing.T) map[limit]limitCase {
	users := withUsers(t, auth.Options{Delay: 1, Failures: 2})
	rate := auth.Rate{Number: 1, Per: time.Hour}
	set := func(f func(l *Limits)) func(*Options) { return func(o *Options) { f(&o.Limits) } }
	said := func(pairs ...string) func(*client, *Server) {
		return func(c *client, _ *Server) { c.open(); c.do(pairs...) }
	}
	second := func(c *client, s *Server) {
		c.want("220 ")
		other := dial(c.t, s)
		other.want("421 4.7.0 too many connections")
	}
	return map[limit]limitCase{
		limitConnections: {change: set(func(l *Limits) { l.Connections = 1 }), meet: second},
		limitAddress:     {change: set(func(l *Limits) { l.ConnectionsPerAddress = 1 }), meet: second},
		limitMessages: {change: set(func(l *Limits) { l.MessagesPerConnection = 1 }),
			meet: said("DATA", "354 ", ".", "250 ", "MAIL FROM:<a@b.test>", "421 4.7.0 too many messages in one connection")},
		limitRecipients: {change: set(func(l *Limits) { l.Recipients = 1 }), meet: said("RCPT TO:<e@d.test>", "452 4.5.3 too many recipients")},
		limitSize:       {change: set(func(l *Limits) { l.MessageBytes = 10 }), meet: said("DATA", "354 ", "0123456789\r\n.", "552 5.3.4 message too large")},
		limitHeader:     {change: set(func(l *Limits) { l.HeaderBytes = 10 }), meet: said("DATA", "354 ", "A: 456789\r\n.", "552 5.3.4 message header too large")},
		limitLine:       {change: set(func(l *Limits) { l.LineBytes = 10 }), meet: said("DATA", "354 ", "\r\n01234567890\r\n.", "554 5.6.0 a line is too long")},
		limitCommand:    {meet: said("NOOP "+strings.Repeat("x", 5000), "500 5.5.2 line too long")},
		limitIdle:       {change: set(func(l *Limits) { l.IdleTime = soon() }), meet: func(c *client, _ *Server) { c.want("220 "); c.want("421 4.4.2 timeout") }},
		limitMessageTime: {change: set(func(l *Limits) { l.MessageTime = soon() }), meet: func(c *client, _ *Server) {
			c.data()
			c.want("421 4.4.2 timeout")
		}},
		limitMinRate: {change: set(func(l *Limits) { l.MinRate, l.RateTime = 1000, soon() }), meet: func(c *client, _ *Server) {
			c.data()
			c.want("421 4.4.2 too slow")
		}},
		limitWrite: {change: set(func(l *Limits) { l.IdleCommands = 1 << 30 }), meet: func(c *client, s *Server) {
			c.want("220 ")
			c.hurry(s, func(l *Limits) { l.WriteTime = soon() })
			noops := strings.Repeat("NOOP\r\n", 1000)
			for {
				if _, err := c.conn.Write([]byte(noops)); err != nil {
					break // the server has closed
				}
			}
			waitFor(c.t, s, 0)
		}, silent: true},
		limitHandshake: {change: func(o *Options) {
			o.Listeners[0].TLS = TLS{Mode: ImplicitTLS, SelfSigned: true}
			o.Limits.HandshakeTime = soon()
		}, meet: func(c *client, _ *Server) { c.want("EOF") }, silent: true},
		limitWrongCommands:   {change: set(func(l *Limits) { l.WrongCommands = 2 }), meet: said("FOO", "500 ", "FOO", "421 4.7.0 too many errors")},
		limitWrongRecipients: {change: set(func(l *Limits) { l.WrongRecipients = 2 }), meet: said("RCPT TO:<bounced@d.test>", "550 ", "RCPT TO:<bounced@d.test>", "421 4.7.0 too many errors")},
		limitIdleCommands:    {change: set(func(l *Limits) { l.IdleCommands = 3 }), meet: said("NOOP", "250 ", "RSET", "250 ", "NOOP", "421 4.7.0 too many errors")},
		limitStrangerTime: {change: func(o *Options) { o.Listeners[0].Networks, o.Limits.StrangerTime = nil, soon() }, meet: func(c *client, _ *Server) {
			c.want("220 ")
			c.want("421 4.4.2 timeout")
		}},
		limitStrangerCommands: {change: func(o *Options) { o.Listeners[0].Networks, o.Limits.StrangerCommands = nil, 1 }, meet: func(c *client, _ *Server) {
			c.want("220 ")
			c.do("NOOP", "250 ", "NOOP", "421 4.7.0 too many errors")
		}},
		limitAddressRate: {change: set(func(l *Limits) { l.AddressRate = rate }), meet: said("RCPT TO:<e@d.test>", "450 4.7.1 too many recipients from this address, try again in 3600 s")},
		limitSenderRate:  {change: set(func(l *Limits) { l.SenderRate = rate }), meet: said("RCPT TO:<e@d.test>", "450 4.7.1 too many recipients from this sender, try again in 3600 s")},
		limitUserRate: {change: func(o *Options) {
			withUsers(t, auth.Options{Delay: 1})(o)
			o.Limits.UserRate = rate
		}, meet: func(c *client, _ *Server) {
			c.want("220 ")
			c.do("EHLO c", "250 ", plain("ann", "hunter2"), "235 ", "MAIL FROM:<a@b.test>", "250 ", "RCPT TO:<c@d.test>", "250 ",
				"RCPT TO:<e@d.test>", "450 4.7.1 too many recipients from this user, try again in 3600 s")
		}},
		limitMemory: {change: func(o *Options) {
			o.Memory = budget.New(1<<20, nil)
			o.Limits.MemoryWait = soon()
		}, meet: func(c *client, s *Server) {
			all := s.memory.Share()
			defer all.Release()
			if err := all.Hold(c.t.Context(), budget.Dealing, 1<<20-2*ConnectionBytes); err != nil {
				c.t.Error(err)
			}
			c.want("220 ")
			c.do("EHLO c", "250 ", "MAIL FROM:<a@b.test> SIZE=100000", "250 ", "RCPT TO:<c@d.test>", "250 ", "DATA", "452 4.3.1 out of memory")
			all.Release()
			c.do("DATA", "354 ", ".", "250 ")
		}},
		limitLogins: {change: users, meet: func(c *client, _ *Server) {
			c.want("220 ")
			c.do("EHLO c", "250 ", plain("ann", "x"), "535 ", plain("ann", "y"), "421 4.7.0 too many failed attempts")
		}},
	}
}

// Each limit has its reply, is counted under its name and no other, and stands
// in the log.
func TestLimits(t *testing.T) {
	cases := limitCases(t)
	if len(cases) != len(limits()) {
		t.Errorf("%d limits are met, there are %d", len(cases), len(limits()))
	}
	for _, name := range limits() {
		t.Run(string(name), func(t *testing.T) {
			t.Parallel()
			tt, ok := cases[name]
			if !ok {
				t.Fatal("is never met")
			}
			reg := prometheus.NewPedanticRegistry()
			var log records
			s := start(t, &fakeBackend{}, func(o *Options) {
				o.Metrics = reg
				o.Log = slog.New(slog.NewJSONHandler(&log, nil))
				if tt.change != nil {
					tt.change(o)
				}
			})
			c := dial(t, s)
			tt.meet(c, s)
			_ = c.conn.Close()
			waitFor(t, s, 0)
			for label, n := range series(t, reg, "smtp2rest_smtp_limits_total") {
				if want := map[bool]float64{true: 1}[label == string(name)]; n != want {
					t.Errorf("%s was met %v times, want %v", label, n, want)
				}
			}
			told := 0
			for _, r := range log.all(t) {
				if r["msg"] == "refused" || r["msg"] == "login failed" {
					told++
				}
			}
			if told == 0 && !tt.silent {
				t.Error("the log does not tell")
			}
			if used := series(t, reg, "smtp2rest_smtp_connections")[""]; used != 0 {
				t.Errorf("%v connections are left", used)
			}
			if err := s.memory.Share().Hold(t.Context(), budget.Dealing, 2*s.memory.Most(budget.Reading)); err != nil {
				t.Errorf("memory is left: %v", err)
			}
		})
	}
}

// series is a metric's values by their only label.
func series(t testing.TB, reg prometheus.Gatherer, name string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			label := ""
			if l := m.GetLabel(); len(l) > 0 {
				label = l[0].GetValue()
			}
			got[label] = m.GetCounter().GetValue() + m.GetGauge().GetValue() // one of them is there
		}
	}
	if len(got) == 0 {
		t.Fatalf("there is no %s", name)
	}
	return got
}

// What the other metrics say of one session.
func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	users := withUsers(t, auth.Options{Delay: 1})
	s := start(t, &fakeBackend{}, func(o *Options) {
		users(o)
		o.Metrics = reg
		o.Listeners[0].TLS = TLS{Mode: StartTLS, SelfSigned: true}
	})
	c := dial(t, s)
	c.want("220 ")
	c.do("EHLO c", "250 ", "STARTTLS", "220 ")
	if err := c.secure(nil); err != nil {
		t.Fatal(err)
	}
	c.do("EHLO c", "250 ", plain("ann", "wrong"), "535 ", plain("ann", "hunter2"), "235 ", "MAIL FROM:<a@b.test>", "250 ", "RCPT TO:<c@d.test>", "250 ",
		"DATA", "354 ", "12345\r\n.", "250 ")
	for _, tt := range []struct {
		name, label string
		want        float64
	}{
		{"connections", "", 1}, {"connections_total", "", 1}, {"messages_total", "taken", 1}, {"messages_total", "refused", 0},
		{"received_bytes_total", "", 7}, {"tls_handshakes_total", "1.3", 1}, {"tls_handshakes_total", "failed", 0},
		{"logins_total", "right", 1}, {"logins_total", "wrong", 1}, {"logins_total", "shut_out", 0},
		{"replies_total", "220", 2}, {"replies_total", "250", 5}, {"replies_total", "354", 1}, {"replies_total", "535", 1}, {"replies_total", "other", 0},
	} {
		if got, ok := series(t, reg, "smtp2rest_smtp_"+tt.name)[tt.label]; !ok || got != tt.want {
			t.Errorf("%s %s is %v, want %v", tt.name, tt.label, got, tt.want)
		}
	}
}
