package smtpd

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd/budget"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// TestStop stops the server in each phase of a session. With grace, Stop has
// to come back without an error; the client then sees the lines in want, which
// begin with the reply to what it sent last.
func TestStop(t *testing.T) {
	tests := []struct {
		name string
		busy bool // the client cannot know that its message is under way
		have func(c *client)
		then string // what the client sends once Stop has begun
		want []string
	}{
		{"before EHLO", false, func(c *client) { c.want("220 ") }, "", []string{"421 4.3.2"}},
		{"after EHLO", false, func(c *client) { c.want("220 "); c.do("EHLO c", "250 ") }, "", []string{"421 4.3.2"}},
		{"in the middle of a command", false, func(c *client) { c.want("220 "); c.send("EHL") }, "", []string{"421 4.3.2"}},
		{"before DATA", false, func(c *client) { c.open() }, "", []string{"421 4.3.2"}},
		{"in DATA", false, func(c *client) { c.open(); c.do("DATA", "354 "); c.send("x\r\n") }, "y\r\n.\r\n", []string{"250 2.0.0 queued", "421 4.3.2"}},
		{"in DATA, pipelined", false, func(c *client) { c.open(); c.do("DATA", "354 "); c.send("x\r\n") }, "y\r\n.\r\nNOOP\r\nQUIT\r\n", []string{"250 2.0.0 queued", "421 4.3.2"}},
		{"in a chunk", true, func(c *client) { c.open(); c.send("BDAT 3 LAST\r\nx") }, "yz", []string{"250 2.0.0 queued", "421 4.3.2"}},
		{"between chunks", false, func(c *client) { c.open(); c.send("BDAT 1\r\nx"); c.want("250 ") }, "BDAT 1 LAST\r\ny", []string{"250 2.0.0 queued", "421 4.3.2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, &fakeBackend{}, nil)
			c := dial(t, s)
			tt.have(c)
			if tt.busy {
				waitBusy(t, s)
			}
			done := make(chan error, 1)
			go func() { done <- s.Stop(t.Context()) }()
			<-s.stopping
			c.send(tt.then)
			for _, want := range append(tt.want, "EOF") {
				if got := c.line(); !strings.HasPrefix(got, want) {
					t.Errorf("the client got %q, want %q", got, want)
				}
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			if _, err := net.Dial("tcp", s.Addrs()[0].String()); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("the port is still open: %v", err)
			}
		})
	}
}

// waitBusy waits until the one session has a message under way: what a client
// has sent is not yet what the server has read.
func waitBusy(t *testing.T, s *Server) {
	t.Helper()
	waitForSession(t, s, func(c *conn) bool { return !c.idle && !c.clock.messageEnd.IsZero() })
}

// waitForSession waits until there is a session in a state.
func waitForSession(t *testing.T, s *Server, is func(*conn) bool) {
	t.Helper()
	found := func(c *conn) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return is(c)
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); runtime.Gosched() {
		s.connections.mu.Lock()
		there := slices.ContainsFunc(slices.Collect(maps.Keys(s.connections.conns)), found)
		s.connections.mu.Unlock()
		if there {
			return
		}
	}
	t.Fatal("no such session")
}

// A message that the backend works on is waited for, and its reply is written.
func TestStopDuringMessage(t *testing.T) {
	b := &fakeBackend{entered: make(chan struct{}, 1), release: make(chan struct{})}
	s := start(t, b, nil)
	c := dial(t, s)
	c.open()
	c.do("DATA", "354 ")
	c.send("x\r\n.\r\n")
	<-b.entered
	done := make(chan error, 1)
	go func() { done <- s.Stop(t.Context()) }()
	<-s.stopping
	select {
	case err := <-done:
		t.Fatalf("Stop did not wait: %v", err)
	default:
	}
	close(b.release)
	c.want("250 2.0.0 queued q1")
	c.want("421 4.3.2")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// When the time is up, the backend's context ends and the rest is cut off.
func TestStopHard(t *testing.T) {
	phases := map[string]func(b *fakeBackend, c *client){
		"in DATA":    func(b *fakeBackend, c *client) { c.send("x\r\n") },
		"in Message": func(b *fakeBackend, c *client) { c.send("x\r\n.\r\n"); <-b.entered },
	}
	for name, phase := range phases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &fakeBackend{entered: make(chan struct{}, 1), release: make(chan struct{})}
			s := start(t, b, nil)
			c := dial(t, s)
			c.open()
			c.do("DATA", "354 ")
			phase(b, c)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := s.Stop(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "1 sessions cut off") {
				t.Errorf("Stop: %v", err)
			}
			if l := c.line(); strings.HasPrefix(l, "2") {
				t.Errorf("got %q", l)
			}
			if got := b.took(); len(got) != 0 {
				t.Errorf("took %v", got)
			}
			stopWithin(t, s, patience) // again
		})
	}
}

func TestLifecycle(t *testing.T) {
	options := Options{Backend: &fakeBackend{}, Hostname: "mx.test", Limits: patient(), Memory: budget.New(1<<20, nil), Listeners: []Listener{{Address: "127.0.0.1:0"}, {Address: "127.0.0.1:0"}}}
	ctx := t.Context()

	never, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(never.Stop(ctx), never.Stop(ctx)); err != nil {
		t.Errorf("Stop without Start: %v", err)
	}
	if never.Start(ctx) == nil {
		t.Error("Start after Stop worked")
	}

	s, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if s.Start(ctx) == nil {
		t.Error("a second Start worked")
	}
	addrs := s.Addrs()
	if len(addrs) != 2 || addrs[0].String() == addrs[1].String() || addrs[0].(*net.TCPAddr).Port == 0 {
		t.Errorf("Addrs: %v", addrs)
	}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if err := s.Stop(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// Two servers in one process, each with its own backend.
func TestTwoServers(t *testing.T) {
	backends := []*fakeBackend{{}, {}}
	for i, b := range backends {
		c := dial(t, start(t, b, nil))
		c.open()
		c.do("DATA", "354 ", "x\r\n.", "250 ")
		if len(b.took()) != 1 || len(backends[1].took()) != i {
			t.Errorf("backend %d: %v", i, b.took())
		}
	}
}

func TestStartFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	for address, want := range map[string]string{
		taken.Addr().String(): "this daemon itself uses this port; stop it or choose another port",
		"192.0.2.1:2525":      "this machine has no such address",
		"127.0.0.1:smpt":      "cannot listen on 127.0.0.1:smpt",
	} {
		s, err := New(Options{Backend: &fakeBackend{}, Hostname: "mx.test", Limits: patient(), Memory: budget.New(1<<20, nil), Listeners: []Listener{{Address: free.Addr().String()}, {Address: address}}})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Start(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), address) {
			t.Errorf("Start on %s: %v", address, err)
		}
		if conn, err := net.Dial("tcp", free.Addr().String()); err == nil {
			conn.Close()
			t.Errorf("the other listener is still open")
		}
		stopWithin(t, s, patience)
	}
}

func TestNewRefuses(t *testing.T) {
	good := Options{Backend: &fakeBackend{}, Hostname: "mx.test", Limits: patient(), Memory: budget.New(1<<20, nil), Listeners: []Listener{{}}}
	for name, spoil := range map[string]func(*Options){
		"no backend":              func(o *Options) { o.Backend = nil },
		"no listeners":            func(o *Options) { o.Listeners = nil },
		`"" cannot be used`:       func(o *Options) { o.Hostname = "" },
		`"a b" cannot be used`:    func(o *Options) { o.Hostname = "a b" },
		`"a\r\nb" cannot be used`: func(o *Options) { o.Hostname = "a\r\nb" },
	} {
		o := good
		spoil(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConnectionLimits(t *testing.T) {
	for name, limit := range map[string]func(*Limits){
		"in all":      func(l *Limits) { l.Connections = 3 },
		"per address": func(l *Limits) { l.ConnectionsPerAddress = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, &fakeBackend{}, func(o *Options) { limit(&o.Limits) })
			var in []*client
			for range 3 {
				c := dial(t, s)
				c.want("220 ")
				in = append(in, c)
			}
			for range 200 {
				c := dial(t, s)
				c.want("421 4.7.0 too many connections")
				if l := c.line(); l != "EOF" {
					t.Fatalf("got %q", l)
				}
				c.conn.Close()
			}
			in[1].do("QUIT", "221 ")
			if l := in[1].line(); l != "EOF" {
				t.Fatalf("got %q", l)
			}
			waitFor(t, s, 2)
			dial(t, s).want("220 ")
		})
	}
}

// waitFor waits until n sessions are left: the server closes a socket just
// before it counts it out.
func waitFor(t testing.TB, s *Server, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); runtime.Gosched() {
		s.connections.mu.Lock()
		left := len(s.connections.conns)
		s.connections.mu.Unlock()
		if left == n {
			return
		}
	}
	t.Fatalf("not %d sessions", n)
}

// A client that sends one octet at a time, slower in all than the idle time
// allows between two reads, is served.
func TestByteAtATime(t *testing.T) {
	b := &fakeBackend{}
	s := start(t, b, nil)
	c := dial(t, s)
	c.want("220 ")
	say := func(s string) {
		for i := range len(s) {
			c.send(s[i : i+1])
		}
	}
	say("EHLO c\r\n")
	c.want("250")
	session := "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nA: b\r\n\r\n..x\r\r\n.\r\n" +
		"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 3\r\n\r\nxBDAT 0 LAST\r\nQUIT\r\n"
	say(session)
	for _, want := range []string{"250", "250", "354", "250", "250", "250", "250", "250", "221", "EOF"} {
		c.want(want)
	}
	if got := b.took(); len(got) != 2 || got[0].data != "A: b\r\n\r\n.x\r\n" || got[1].data != "\r\nx" {
		t.Errorf("took %+v", got)
	}
}

// The deadline is one between reads: a message may take longer than IdleTime.
func TestSlowButSteady(t *testing.T) {
	t.Parallel()
	const idle = 2 * time.Second // ten times the pace: a busy machine may stop for a while
	s := start(t, &fakeBackend{}, func(o *Options) { o.Limits.IdleTime = idle })
	c := dial(t, s)
	c.open()
	c.do("DATA", "354 ")
	tick := time.NewTicker(idle / 10)
	defer tick.Stop()
	for range 12 {
		<-tick.C
		c.send("x\r\n")
	}
	c.do(".", "250 ")
}

// A client that takes no replies costs no more than WriteTime.
func TestClientThatDoesNotRead(t *testing.T) {
	s := start(t, &fakeBackend{}, nil)
	c := dial(t, s)
	c.want("220 ")
	c.hurry(s, func(l *Limits) { l.WriteTime = soon() })
	noops := strings.Repeat("NOOP\r\n", 1000)
	for {
		if _, err := io.WriteString(c.conn, noops); err != nil {
			break // the server has closed
		}
	}
	waitFor(t, s, 0)
}

// A reset by the client in the middle of a chunk is no complete message.
func TestReset(t *testing.T) {
	b := &fakeBackend{}
	s := start(t, b, nil)
	for range 50 {
		c := dial(t, s)
		c.open()
		c.send("BDAT 1000 LAST\r\n" + strings.Repeat("x", 999))
		_ = c.conn.SetLinger(0)
		c.conn.Close()
	}
	waitFor(t, s, 0)
	if got := b.took(); len(got) > 0 {
		t.Errorf("took %d messages", len(got))
	}
}

func TestPanicsAreCounted(t *testing.T) {
	var mu sync.Mutex
	var panics []any
	s := start(t, &fakeBackend{}, func(o *Options) {
		o.Panicked = func(v any) {
			mu.Lock()
			defer mu.Unlock()
			panics = append(panics, v)
		}
	})
	c := dial(t, s)
	c.open()
	c.do("RCPT TO:<panic@d.test>", "421 4.3.0")
	c = dial(t, s)
	c.open()
	c.do("DATA", "354 ", "panic\r\n.", "421 4.3.0 internal error")
	if l := c.line(); l != "EOF" {
		t.Errorf("got %q", l)
	}
	c = dial(t, s)
	c.open() // the daemon lives
	mu.Lock()
	defer mu.Unlock()
	if len(panics) != 2 || panics[0] != "recipient" || panics[1] != "message" {
		t.Errorf("panics: %v", panics)
	}
}

// What the backend gets is its own, and says who sent it.
func TestEnvelope(t *testing.T) {
	b := &fakeBackend{}
	s := start(t, b, nil)
	c := dial(t, s)
	c.open()
	c.do("DATA", "354 ", "x\r\n.", "250 ", "MAIL FROM:<other@b.test>", "250 ", "RCPT TO:<other@d.test>", "250 ", "RSET", "250 ")
	env := b.kept[0]
	if env.From != "a@b.test" || len(env.Recipients) != 1 || env.Recipients[0] != "c@d.test" {
		t.Errorf("the envelope is now %+v", env)
	}
	cl := env.Client
	if cl.Helo != "client" || len(cl.Session) != 8 || cl.Addr.String() != c.conn.LocalAddr().String() || cl.Listener != s.Addrs()[0].String() {
		t.Errorf("client %+v", cl)
	}
}

// What a backend does to its copy of the envelope changes nothing.
func TestEnvelopeIsACopy(t *testing.T) {
	b := &fakeBackend{}
	c := dial(t, start(t, b, nil))
	c.open()
	c.do("RCPT TO:<scribble@d.test>", "250 ", "DATA", "354 ", ".", "250 ")
	if got := strings.Join(b.took()[0].env.Recipients, " "); got != "c@d.test scribble@d.test" {
		t.Errorf("recipients %s", got)
	}
}

// RSET ends the message that came by chunks, and its time.
func TestResetEndsMessageTime(t *testing.T) {
	s := start(t, &fakeBackend{}, nil)
	c := dial(t, s)
	c.open()
	c.send("BDAT 1\r\nx")
	c.want("250 ")
	c.do("RSET", "250 ")
	s.connections.mu.Lock()
	defer s.connections.mu.Unlock()
	for w := range s.connections.conns {
		w.mu.Lock()
		if !w.clock.messageEnd.IsZero() {
			t.Error("the clock is still running")
		}
		w.mu.Unlock()
	}
}

// A reply of the backend is given as it is, and one of 421 ends the connection.
func TestRepliesOfTheBackend(t *testing.T) {
	replies := map[string]*reply.Reply{
		"a": reply.RefusedByAPI("no\r\n250 ok"),
		"b": reply.RateLimited(time.Minute),
		"c": reply.ShuttingDown(),
	}
	b := &fakeBackend{answer: func(m mail) *reply.Reply { return replies[strings.TrimSpace(m.data)] }}
	c := dial(t, start(t, b, nil))
	c.want("220 ")
	for _, tt := range [][2]string{
		{"a", "554 5.6.0 refused by the API: no 250 ok"}, {"b", "451 4.3.2 try again in 60 s"}, {"c", "421 4.3.2 shutting down"},
	} {
		c.do("HELO c", "250 ", "MAIL FROM:<a@b.test>", "250 ", "RCPT TO:<c@d.test>", "250 ", "DATA", "354 ", tt[0]+"\r\n.", tt[1])
	}
	if l := c.line(); l != "EOF" {
		t.Errorf("got %q", l)
	}
}

func BenchmarkData(b *testing.B) {
	s := start(b, &discard{}, nil)
	c := dial(b, s)
	message := strings.Repeat(strings.Repeat("x", 76)+"\r\n", 10<<20/78) + ".\r\n"
	c.want("220 ")
	c.do("HELO c", "250 ")
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		_ = c.conn.SetDeadline(time.Now().Add(patience))
		c.do("MAIL FROM:<a@b.test> SIZE="+strconv.Itoa(len(message)), "250 ", "RCPT TO:<c@d.test>", "250 ", "DATA", "354 ")
		c.send(message)
		c.want("250 ")
	}
}

type discard struct{}

func (discard) Recipient(context.Context, *Envelope, string) error { return nil }

func (discard) Message(context.Context, *Envelope, []byte) *reply.Reply { return reply.Queued("q") }

// BenchmarkConnection is a mail on a connection of its own, as most programs
// send it.
func BenchmarkConnection(b *testing.B) {
	s := start(b, &fakeBackend{}, nil)
	for b.Loop() {
		conn, err := net.Dial("tcp", s.Addrs()[0].String())
		if err != nil {
			b.Fatal(err)
		}
		c := newClient(b, conn)
		c.open()
		c.do("DATA", "354 ", "A: b\r\n\r\nx\r\n.", "250 ", "QUIT", "221 ")
		_ = conn.Close()
	}
}
