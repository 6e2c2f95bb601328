package smtpd

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/budget"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

const (
	fuzzBytes  = 300      // the largest message that is taken, so that it is met
	fuzzDomain = "d.test" // of addresses without one
)

// FuzzSession sends any octets as a whole session, then a part of them octet by
// octet, by a connection in memory. The server must not hang, must keep to the
// order of commands that model knows, and must give all memory back. From a
// session that is cut off the backend gets nothing but the first of the messages
// that it gets from the whole one: never a part of one.
func FuzzSession(f *testing.F) {
	for _, s := range fuzzSeeds(f) {
		for _, lmtp := range []bool{false, true} {
			f.Add([]byte(s), len(s)/2, lmtp)
			f.Add([]byte(s), len(s)-1, lmtp)
		}
	}
	login := withUsers(f, auth.Options{Delay: 1, Failures: 1 << 30}) // what one session does must not reach another
	servers := map[bool]*fuzzServer{}
	for _, lmtp := range []bool{false, true} {
		b := &tracing{}
		servers[lmtp] = &fuzzServer{lmtp: lmtp, backend: b, Server: start(f, b, func(o *Options) {
			login(o)
			o.QualifyDomain = fuzzDomain
			o.Limits.MessageBytes = fuzzBytes
			o.Listeners[0].TLS = TLS{Mode: StartTLS, SelfSigned: true}
			if lmtp {
				o.Listeners[0].Protocol = LMTP
				o.Backend = tracingEach{b}
			}
		})}
	}
	f.Fuzz(func(t *testing.T, in []byte, cut int, lmtp bool) {
		s := servers[lmtp]
		whole := s.session(t, string(in), len(in))
		part := s.session(t, string(in[:max(0, min(cut, len(in)))]), 1+max(0, cut)%3)
		if len(part) > len(whole) || len(part) > 0 && !reflect.DeepEqual(part, whole[:len(part)]) {
			t.Fatalf("cut off: %+v\nwhole: %+v", part, whole)
		}
	})
}

// fuzzSeeds are what the clients of the dialogs say, and a few more.
func fuzzSeeds(f *testing.F) []string {
	const tx = "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
	seeds := []string{
		"EHLO c\r\n" + tx + "DATA\r\nA: b\r\n\r\nx\r\n.\r\n" + tx + "DATA\r\ny\r\r\n.\r\nQUIT\r\n",
		"EHLO c\r\n" + tx + "BDAT 3\r\nabcBDAT 3 LAST\r\ndef" + tx + "BDAT 0 LAST\r\nQUIT\r\n",
		"HELO c\r\n" + tx + "BDAT 3\r\nabcRSET\r\nBDAT 3 LAST\r\nDATA\r\n" + tx + "DATA\r\n..\n.\n\r.\r\n.\r\nNOOP",
		"HELO c\r\n" + tx + "BDAT 900 LAST\r\nabc", "HELO c\r\n" + tx + "BDAT 400\r\n" + strings.Repeat("x", 400) + "BDAT 4 LAST\r\nNOOP" + tx,
		"EHLO \xff\r\nMAIL FROM:<\"a@b\"@x> SMTPUTF8\r\nRCPT TO:<panic@x>\r\n", "BDAT 5\r\nRSET\r\nBDAT -1\r\n",
		"EHLO c\r\n" + tx + "DATA\r\npanic\r\n.\r\n", "HELO c\nMAIL FROM:a@b.test\nRCPT TO:c@d.test\nDATA\n\n.\n\r\n.\r\nQUIT\n",
		"EHLO c\r\n" + plain("ann", "hunter2") + "\r\n" + tx + "DATA\r\n.\r\nAUTH LOGIN\r\n*\r\n" + tx + "BDAT 0 LAST\r\n",
		"HELO c\r\nAUTH LOGIN YW5u\r\naHVudGVyMg==\r\n" + tx + "AUTH PLAIN\r\nRSET\r\nAUTH PLAIN\r\n=\r\nDATA\r\nx\r\n.\r\n",
		"STARTTLS\r\n" + tx, "HELO c\r\nSTARTTLS\r\n\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", "HELO c\r\n" + tx + "STARTTLS\r\nDATA\r\n.\r\n",
		"LHLO c\r\n" + tx + "RCPT TO:<full@d.test>\r\nRCPT TO:<root>\r\nDATA\r\nx\r\n.\r\n" + tx + "BDAT 3 LAST\r\nabcQUIT\r\n",
		"EHLO c\r\n" + tx + plain("ann", "hunter2") + "\r\nAUTH LOGIN\r\nYW5u\r\naHVudGVyMg==\r\nDATA\r\nx\r\n.\r\n",
		"EHLO " + strings.Repeat("x", 2000) + "\r\n" + tx, strings.Repeat("FOO\r\n", 30), strings.Repeat("x", 5000),
	}
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var said strings.Builder
		for _, l := range strings.Split(string(text), "\n") {
			kind, text, _ := strings.Cut(l, " ")
			text, err := unescape(text)
			switch {
			case kind == "C:" && err == nil && !strings.HasPrefix(text, "("):
				said.WriteString(text + "\r\n")
			case kind == "c:" && err == nil:
				said.WriteString(text)
			}
		}
		if said.Len() < 20_000 {
			seeds = append(seeds, said.String())
		}
	}
	return seeds
}

// fuzzServer is a server whose clients are in memory.
type fuzzServer struct {
	*Server
	lmtp    bool
	backend *tracing
}

// session plays one, and returns what the backend took.
func (s *fuzzServer) session(t *testing.T, in string, atOnce int) []mail {
	t.Helper()
	c := &memoryConn{in: in, atOnce: max(1, atOnce), closed: make(chan struct{})}
	s.backend.begin(c)
	if !s.ports[0].current().offer(c) {
		t.Fatal("the server has stopped")
	}
	patient := time.NewTimer(patience)
	defer patient.Stop()
	select {
	case <-c.closed:
	case <-patient.C:
		t.Fatalf("the server hangs on %q", in)
	}
	waitFor(t, s.Server, 0)
	(&model{t: t, said: in, lmtp: s.lmtp, events: c.events, trace: c}).check()
	all := s.memory.Share()
	if err := all.Hold(t.Context(), budget.Dealing, 2*s.memory.Most(budget.Reading)); err != nil {
		t.Fatalf("memory is left: %v", err)
	}
	all.Release()
	var mails []mail
	for _, e := range c.events {
		if e.mail == nil {
			continue
		}
		if !isEnvelope(e.mail.env) {
			t.Fatalf("from %q to %q", e.mail.env.From, e.mail.env.Recipients)
		}
		mails = append(mails, *e.mail)
		last := &mails[len(mails)-1].env // but for what differs by connection
		last.Client.Session, last.receipt, last.reserve, last.most, last.author = "", nil, nil, 0, nil
	}
	return mails
}

// isEnvelope holds an envelope to what stands between a client and whoever
// builds a command or a header from it.
func isEnvelope(env Envelope) bool {
	for _, address := range append([]string{env.From}, env.Recipients...) {
		clean := !strings.ContainsFunc(address, unicode.IsControl)
		if canonical, ok := canonicalAddress(address); address != "" && (!ok || canonical != address) || !clean {
			return false
		}
	}
	return len(env.Recipients) > 0 && !slices.Contains(env.Recipients, "")
}

// memoryConn is a client that has sent all it is going to send, but that it
// waits for the greeting and for the reply to EHLO. It hears everything, and keeps it with what the
// backend hears, in order.
type memoryConn struct {
	atOnce int  // octets a read gets
	rude   bool // it does not wait for the reply to EHLO

	mu       sync.Mutex
	in       string
	line     string // that has begun
	goesOn   bool   // the client waits for nothing
	deadline time.Time
	events   []event
	once     sync.Once
	closed   chan struct{}
}

func (c *memoryConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.deadline.Equal(time.Unix(1, 0)): // the server woke its reader
		return 0, os.ErrDeadlineExceeded
	case !c.goesOn && !c.deadline.After(time.Now()): // it only looks what has arrived
		return 0, os.ErrDeadlineExceeded
	case c.in == "":
		return 0, io.EOF
	}
	c.goesOn = true
	n := 0
	for n < len(p) && n < c.atOnce && n < len(c.in) && c.goesOn {
		p[n] = c.in[n]
		c.say(p[n])
		n++
	}
	c.in = c.in[n:]
	return n, nil
}

func (c *memoryConn) say(octet byte) {
	if octet != '\n' {
		c.line += string(rune(octet))
		return
	}
	line := strings.ToUpper(c.line) // behind a chunk a command does not begin a line
	c.goesOn = c.rude || !strings.Contains(line, "HELO") && !strings.Contains(line, "EHLO") && !strings.Contains(line, "LHLO")
	c.line = ""
}

func (c *memoryConn) Write(p []byte) (int, error) {
	c.add(event{written: string(p)})
	return len(p), nil
}

func (c *memoryConn) add(e event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, e)
}

func (c *memoryConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (c *memoryConn) SetReadDeadline(d time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = d
	return nil
}

func (c *memoryConn) SetDeadline(d time.Time) error    { return c.SetReadDeadline(d) }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }

func (c *memoryConn) LocalAddr() net.Addr { return c.RemoteAddr() }
func (c *memoryConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:1"))
}

func (c *memoryConn) String() string {
	var b strings.Builder
	for _, e := range c.events {
		switch {
		case e.mail != nil:
			b.WriteString("\n  mail " + strings.Join(e.mail.env.Recipients, ",") + " " + e.mail.data)
		case e.asked != "":
			b.WriteString("\n  asked for " + e.asked)
		default:
			b.WriteString("\n  " + e.written)
		}
	}
	return b.String()
}

// tracing is a fakeBackend that tells the client of the session, of which there
// is one at a time.
type tracing struct {
	fakeBackend

	mu   sync.Mutex
	conn *memoryConn
}

func (b *tracing) begin(c *memoryConn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conn, b.mails, b.kept = c, nil, nil
}

func (b *tracing) tell(e event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conn.add(e)
}

func (b *tracing) Recipient(ctx context.Context, env *Envelope, rcpt string) error {
	err := b.fakeBackend.Recipient(ctx, env, rcpt)
	b.tell(event{asked: rcpt, taken: err == nil})
	return err
}

func (b *tracing) Message(ctx context.Context, env *Envelope, data []byte) *reply.Reply {
	b.tell(event{mail: &mail{*env, string(data)}})
	return b.fakeBackend.Message(ctx, env, data)
}

type tracingEach struct{ *tracing }

func (b tracingEach) MessageEach(ctx context.Context, env *Envelope, data []byte) []*reply.Reply {
	b.tell(event{mail: &mail{*env, string(data)}})
	return eachBackend{&b.fakeBackend}.MessageEach(ctx, env, data)
}
