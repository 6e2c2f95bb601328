package smtpd

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/smtpd/budget"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestMain(m *testing.M) {
	harness.Quick()
	goleak.VerifyTestMain(m)
}

// patience bounds every wait of a test for something that must happen. It is
// far longer than any takes, so that a busy machine is no fault.
const patience = 2 * time.Minute

// mail is a message as a backend got it.
type mail struct {
	env  Envelope
	data string
}

// fakeBackend takes everything, but for recipients whose local part says
// otherwise, and keeps what it took.
type fakeBackend struct {
	entered chan struct{}           // told when Message begins, if not nil
	release chan struct{}           // Message waits for it or for its context, if not nil
	answer  func(mail) *reply.Reply // if not nil

	mu    sync.Mutex
	mails []mail
	kept  []*Envelope // to be checked for changes
}

func (b *fakeBackend) Recipient(_ context.Context, env *Envelope, rcpt string) error {
	switch local, _, _ := strings.Cut(rcpt, "@"); local {
	case "bounced":
		return reply.Suppressed(reply.Suppression{Address: rcpt, Reason: "hard bounce", HardBounce: true})
	case "busy":
		return reply.StorageFull()
	case "broken":
		return errors.New("dial tcp 10.0.0.1:5432: password=hunter2")
	case "scribble":
		env.Recipients[0] = "scribbled@d.test"
	case "panic":
		panic("recipient")
	}
	return nil
}

func (b *fakeBackend) Message(ctx context.Context, env *Envelope, data []byte) *reply.Reply {
	m := mail{*env, string(data)}
	if b.entered != nil {
		b.entered <- struct{}{}
	}
	if b.release != nil {
		select {
		case <-b.release:
		case <-ctx.Done():
			return reply.From(ctx.Err())
		}
	}
	if strings.Contains(m.data, "panic") {
		panic("message")
	}
	if m.data == "later\r\n" {
		return reply.StorageFull()
	}
	if b.answer != nil {
		if r := b.answer(m); r != nil {
			return r
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mails = append(b.mails, m)
	b.kept = append(b.kept, env)
	return reply.Queued("q1")
}

func (b *fakeBackend) took() []mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]mail(nil), b.mails...)
}

func loopback() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

// patient are the limits of a test that knows no hurry.
func patient() Limits {
	l := settings.Defaults[Limits]()
	l.IdleTime, l.MessageTime, l.WriteTime = patience, patience, patience
	return l
}

// start runs a server until the test ends; change may be nil.
func start(t testing.TB, b Backend, change func(*Options)) *Server {
	t.Helper()
	options := Options{
		Backend:   b,
		Hostname:  "mx.test",
		Listeners: []Listener{{Address: "127.0.0.1:0", Networks: loopback()}},
		Limits:    patient(),
	}
	if change != nil {
		change(&options)
	}
	if options.Memory == nil {
		options.Memory = budget.New(128<<20, options.Metrics)
	}
	s, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopWithin(t, s, patience) })
	return s
}

func stopWithin(t testing.TB, s *Server, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("Stop: %v", err)
	}
}

// client is a raw SMTP client.
type client struct {
	t    testing.TB
	conn *net.TCPConn
	rw   net.Conn // conn, or TLS on it
	r    *bufio.Reader
}

func dial(t testing.TB, s *Server) *client {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.Addrs()[0].String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return newClient(t, conn)
}

func newClient(t testing.TB, conn net.Conn) *client {
	_ = conn.SetDeadline(time.Now().Add(patience))
	tcp, _ := conn.(*net.TCPConn) // nil for a unix socket
	return &client{t, tcp, conn, bufio.NewReader(conn)}
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.rw, s); err != nil {
		c.t.Errorf("sending %.40q: %v", s, err)
	}
}

// secure begins TLS; change may be nil.
func (c *client) secure(change func(*tls.Config)) error {
	config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10}
	if change != nil {
		change(config)
	}
	conn := tls.Client(c.conn, config)
	if err := conn.Handshake(); err != nil {
		return err
	}
	c.rw, c.r = conn, bufio.NewReader(conn)
	return nil
}

// closeWrite tells the server that nothing more comes.
func (c *client) closeWrite() error {
	if conn, ok := c.rw.(*tls.Conn); ok {
		return conn.CloseWrite()
	}
	return c.conn.CloseWrite()
}

// line returns the next line, or "EOF".
func (c *client) line() string {
	c.t.Helper()
	s, err := c.r.ReadString('\n')
	switch {
	case errors.Is(err, io.EOF) && s == "":
		return "EOF"
	case err != nil:
		return "error: " + err.Error()
	}
	return strings.TrimSuffix(s, "\r\n")
}

// reply returns the last line of the next reply.
func (c *client) reply() string {
	c.t.Helper()
	for {
		if l := c.line(); len(l) < 4 || l[3] != '-' {
			return l
		}
	}
}

func (c *client) want(prefix string) {
	c.t.Helper()
	if got := c.reply(); !strings.HasPrefix(got, prefix) {
		c.t.Fatalf("got %q, want %q", got, prefix)
	}
}

// do sends commands one by one, each with the beginning of its reply.
func (c *client) do(pairs ...string) {
	c.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		c.send(pairs[i] + "\r\n")
		c.want(pairs[i+1])
	}
}

// open gets as far as a first recipient.
func (c *client) open() {
	c.t.Helper()
	c.want("220 ")
	c.do("EHLO client", "250 ", "MAIL FROM:<a@b.test>", "250 ", "RCPT TO:<c@d.test>", "250 ")
}
