package smtpd

import (
	"io"
	"net"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/budget"
)

// FuzzSession sends any octets as a whole session, then a part of them. The
// server must not hang and must reply in well-formed lines. Each message that
// the backend took was told to the client, and none that it did not take; each
// has a sender's and recipients' addresses that are addresses; all memory is
// given back. From a session that is cut off the backend gets nothing but the
// first of the messages that it gets from the whole one: never a part of one.
func FuzzSession(f *testing.F) {
	const tx = "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
	for _, s := range []string{
		"EHLO c\r\n" + tx + "DATA\r\nA: b\r\n\r\nx\r\n.\r\n" + tx + "DATA\r\ny\r\r\n.\r\nQUIT\r\n",
		"EHLO c\r\n" + tx + "BDAT 3\r\nabcBDAT 3 LAST\r\ndef" + tx + "BDAT 0 LAST\r\nQUIT\r\n",
		"HELO c\r\n" + tx + "BDAT 3\r\nabcRSET\r\nBDAT 3 LAST\r\nDATA\r\n" + tx + "DATA\r\n..\n.\n\r.\r\n.\r\nNOOP",
		"HELO c\r\n" + tx + "BDAT 900 LAST\r\nabc", "HELO c\r\n" + tx + "BDAT 400\r\n" + strings.Repeat("x", 400) + "BDAT 4 LAST\r\nNOOP" + tx,
		"EHLO \xff\r\nMAIL FROM:<\"a@b\"@x> SMTPUTF8\r\nRCPT TO:<panic@x>\r\n", "GET / HTTP/1.0\r\n\r\n", "BDAT 5\r\nRSET\r\nBDAT -1\r\n",
		"EHLO c\r\n" + tx + "DATA\r\npanic\r\n.\r\n", "HELO c\nMAIL FROM:a@b.test\nRCPT TO:c@d.test\nDATA\n\n.\n\r\n.\r\nQUIT\n",
		"EHLO c\r\n" + plain("ann", "hunter2") + "\r\n" + tx + "DATA\r\n.\r\nAUTH LOGIN\r\n*\r\n" + tx + "BDAT 0 LAST\r\n",
		"HELO c\r\nAUTH LOGIN YW5u\r\naHVudGVyMg==\r\n" + tx + "AUTH PLAIN\r\nRSET\r\nAUTH PLAIN\r\n=\r\nDATA\r\nx\r\n.\r\n",
		"HELO c\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<\"a\\\"b c\"@d.test>\r\nRCPT TO:<bounced@d.test>\r\nDATA\r\nFrom: x\r\n" + strings.Repeat("a", 400) + "\r\n.\r\nRSET\r\n",
		"EHLO c\r\nMAIL FROM:<> SIZE=200 BODY=8BITMIME\r\nRCPT TO:<c@d.test>\r\nDATA\r\n\r\n.\r\nMAIL FROM:<a@b.test> SIZE=9999\r\nDATA\r\nQUIT\r\n",
		"STARTTLS\r\n" + tx, "HELO c\r\nSTARTTLS\r\n\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", "HELO c\r\n" + tx + "STARTTLS\r\nDATA\r\n.\r\n",
		strings.Repeat("FOO\r\n", 30), strings.Repeat("x", 5000),
	} {
		f.Add([]byte(s), len(s)/2)
		f.Add([]byte(s), len(s)-1)
	}
	b := &fakeBackend{}
	login := withUsers(f, auth.Options{Delay: 1, Failures: 1 << 30}) // what one session does must not reach another
	s := start(f, b, func(o *Options) {
		login(o)
		o.Limits.MessageBytes = 300
		o.Listeners[0].TLS = TLS{Mode: StartTLS, SelfSigned: true}
		o.Limits.HandshakeTime = time.Second
	})
	session := func(t *testing.T, in []byte) []mail {
		b.mu.Lock()
		b.mails, b.kept = nil, nil
		b.mu.Unlock()
		told := exchange(t, s, in)
		waitFor(t, s, 0)
		mails := b.took()
		if told != len(mails) {
			t.Fatalf("%d messages were taken, %d were told so", len(mails), told)
		}
		for _, m := range mails {
			if !isEnvelope(m.env) {
				t.Fatalf("taken from %q to %q", m.env.From, m.env.Recipients)
			}
		}
		all := s.memory.Share()
		if err := all.Hold(t.Context(), budget.Dealing, s.memory.Most(budget.Dealing)); err != nil {
			t.Fatalf("memory is left: %v", err)
		}
		all.Release()
		for i := range mails { // what differs by connection
			mails[i].env.Client.Session, mails[i].env.Client.Addr = "", netip.AddrPort{}
			mails[i].env.receipt, mails[i].env.reserve = nil, nil
		}
		return mails
	}
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		whole := session(t, in)
		part := session(t, in[:max(0, min(cut, len(in)))])
		if len(part) > len(whole) || len(part) > 0 && !reflect.DeepEqual(part, whole[:len(part)]) {
			t.Fatalf("cut off: %+v\nwhole: %+v", part, whole)
		}
	})
}

var wellFormed = regexp.MustCompile(`^[2-5][0-9][0-9][ -][ -~]*$`)

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

// exchange sends in and checks the replies. It returns how many of them say
// that a message was taken.
func exchange(t *testing.T, s *Server, in []byte) (taken int) {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = conn.Write(in) // the server may hang up in the middle
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	replies, err := io.ReadAll(conn)
	<-sent
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Fatalf("the server hangs on %q", in)
	}
	lines := strings.SplitAfter(string(replies), "\r\n")
	for i, l := range lines[:len(lines)-1] {
		if l = strings.TrimSuffix(l, "\r\n"); !wellFormed.MatchString(l) || len(l) > maxReplyLine {
			t.Fatalf("reply %d is %q", i, l)
		}
		if strings.HasPrefix(l, "250 2.0.0 queued q1") {
			taken++
		}
	}
	if last := lines[len(lines)-1]; last != "" && err == nil {
		t.Fatalf("a reply without end: %q", last)
	}
	return taken
}
