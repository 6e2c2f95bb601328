package smtpd

import (
	"bufio"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestEndless has clients that never stop. Each is told why, and ended, in a
// time and with a memory that do not depend on how much it sends.
func TestEndless(t *testing.T) {
	block := strings.Repeat("x", 32<<10)
	for _, tt := range []struct {
		name   string
		begin  string
		repeat string // for ever
		want   string // the last line
	}{
		{"command", "NOOP ", block, "500 5.5.2 line too long"},
		{"command of NULs", "", strings.Repeat("\x00", 32<<10), "500 5.5.2 line too long"},
		{"EHLO", "", "EHLO c\r\n", "554 5.5.1 wait for the reply to EHLO"},
		{"RSET", "EHLO c\r\n", "RSET\r\n", "421 4.7.0 too many errors"},
		{"MAIL and RSET", "EHLO c\r\n", "MAIL FROM:<a@b.test>\r\nRSET\r\n", "421 4.7.0 too many errors"},
		{"mails without content", "EHLO c\r\n", nextMail + "panic\r\n.\r\n", "421 4.3.0 internal error"},
		{"header line", "EHLO c\r\n" + nextMail + "Subject: ", block, "552 5.3.4 message header too large"},
		{"header fields", "EHLO c\r\n" + nextMail, strings.Repeat("A: b\r\n", 5000), "552 5.3.4 message header too large"},
		{"header folded", "EHLO c\r\n" + nextMail + "A: b\r\n", strings.Repeat(" folded\r\n", 4000), "552 5.3.4 message header too large"},
		{"body line", "EHLO c\r\n" + nextMail + "\r\n", block, "552 5.3.4 message too large"},
		{"body", "EHLO c\r\n" + nextMail + "\r\n", strings.Repeat("a short line\r\n", 2_000), "552 5.3.4 message too large"},
		{"body of CRs", "EHLO c\r\n" + nextMail + "\r\n", strings.Repeat("\r", 32<<10), "552 5.3.4 message too large"},
		{"body of almost ends", "EHLO c\r\n" + nextMail + "\r\n", strings.Repeat("\r\n.\n"+strings.Repeat("x", 28), 1000), "552 5.3.4 message too large"},
		{"chunk", "EHLO c\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 9223372036854775807 LAST\r\n\r\n", block, "552 5.3.4 message too large"},
		{"chunk without recipients", "EHLO c\r\nBDAT 9223372036854775807\r\n", block, "503 5.5.1 no recipients"},
		{"chunks", "EHLO c\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n", "BDAT 500\r\n\r\n" + strings.Repeat("x", 498), "421 4.7.0 too many errors"},
		{"recipients later", "EHLO c\r\nMAIL FROM:<a@b.test>\r\n", "RCPT TO:<busy@d.test>\r\n", "421 4.7.0 too many errors"},
		{"recipients beyond the limit", "EHLO c\r\nMAIL FROM:<a@b.test>\r\n", "RCPT TO:<c@d.test>\r\n", "421 4.7.0 too many errors"},
		{"mails later", "EHLO c\r\n", nextMail + "later\r\n.\r\n", "421 4.7.0 too many errors"},
		{"wrong recipients", "EHLO c\r\nMAIL FROM:<a@b.test>\r\n", "RCPT TO:<bounced@d.test>\r\n", "421 4.7.0 too many errors"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, &fakeBackend{}, func(o *Options) { o.Limits.MessageBytes = 1 << 20 })
			c := dial(t, s)
			c.want("220 ")
			begin, greets := strings.CutPrefix(tt.begin, "EHLO c\r\n")
			if greets {
				c.do("EHLO c", "250 ")
			}
			began, before := time.Now(), live()
			sent := make(chan int64)
			most := before
			go func() {
				// A closed connection is the end: the client has nothing to wait for.
				n, _ := io.Copy(c.conn, &forever{begin: begin, repeat: tt.repeat, look: func() { most = max(most, live()) }})
				sent <- n
			}()
			last := ""
			for l := bufio.NewScanner(c.r); l.Scan(); {
				last = l.Text()
			}
			_ = c.conn.Close()
			n := <-sent
			if !strings.HasPrefix(last, tt.want) {
				t.Errorf("the last it is told is %q, want %q", last, tt.want)
			}
			took, grown := time.Since(began), int64(most)-int64(before)
			t.Logf("ended after %d KiB and %v, with %d KiB of memory", n>>10, took.Round(time.Millisecond), grown>>10)
			if grown > 8<<20 || took > patience {
				t.Errorf("it takes %d KiB of memory, %v", grown>>10, took)
			}
		})
	}
}

// live is how much memory is in use, without what is garbage.
func live() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// forever reads as begin and then repeat without end. Every 8 MiB it looks.
type forever struct {
	begin, repeat string
	look          func()

	rest   string
	read   int64
	looked int64
}

func (f *forever) Read(p []byte) (int, error) {
	if f.read == 0 {
		f.rest = f.begin
	}
	for len(f.rest) < len(p) {
		f.rest += f.repeat
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	f.read += int64(n)
	if f.read-f.looked > 8<<20 {
		f.looked = f.read
		f.look()
	}
	return n, nil
}

// Ten thousand recipients: as many as are allowed are taken, the rest are to
// come in a next transaction, and the mail goes to the first.
func TestManyRecipients(t *testing.T) {
	b := &fakeBackend{}
	c := dial(t, start(t, b, nil))
	c.want("220 ")
	c.do("EHLO c", "250 ", "MAIL FROM:<a@b.test>", "250 ")
	const n = 10_000
	go func() { _, _ = io.WriteString(c.conn, strings.Repeat("RCPT TO:<c@d.test>\r\n", n)) }() // or the replies tell
	told := map[string]int{}
	for range n {
		told[c.line()]++
	}
	if told["250 2.1.5 recipient ok"] != 100 || told["452 4.5.3 too many recipients"] != n-100 {
		t.Errorf("told %v", told)
	}
	c.do("DATA", "354 ", ".", "250 ")
	if got := b.took(); len(got) != 1 || len(got[0].env.Recipients) != 100 {
		t.Errorf("took %d", len(got))
	}
}

// BenchmarkIdle tells what a client costs that does nothing.
func BenchmarkIdle(b *testing.B) {
	for name, mode := range map[string]TLSMode{"plain": NoTLS, "TLS": ImplicitTLS} {
		b.Run(name, func(b *testing.B) {
			s := start(b, &fakeBackend{}, func(o *Options) {
				o.Limits.Connections, o.Limits.ConnectionsPerAddress = 1<<20, 1<<20
				o.Listeners[0].TLS = TLS{Mode: mode, SelfSigned: mode != NoTLS}
			})
			before := inUse()
			for b.Loop() {
				c := dial(b, s)
				if mode != NoTLS {
					if err := c.secure(nil); err != nil {
						b.Fatal(err)
					}
				}
				c.want("220 ")
				c.do("EHLO c", "250 ")
			}
			// What this side of the connections takes is in it.
			b.ReportMetric(float64(inUse()-before)/float64(b.N), "B/client")
		})
	}
}

func inUse() uint64 {
	heap := live()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return heap + m.StackInuse
}
