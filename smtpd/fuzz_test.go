package smtpd

import (
	"io"
	"net"
	"net/netip"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
)

// FuzzSession sends any octets as a whole session, then a part of them. The
// server must not hang, must reply in well-formed lines, and the backend must
// get from a session that is cut off nothing but the first of the messages
// that it gets from the whole one: never a part of one.
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
		exchange(t, s, in)
		waitFor(t, s, 0)
		mails := b.took()
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

// exchange sends in and checks the replies.
func exchange(t *testing.T, s *Server, in []byte) {
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
	}
	if last := lines[len(lines)-1]; last != "" && err == nil {
		t.Fatalf("a reply without end: %q", last)
	}
}
