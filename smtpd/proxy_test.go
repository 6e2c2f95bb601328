package smtpd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func proxyBinary(command, family byte, body string) string {
	b := binary.BigEndian.AppendUint16([]byte{command, family}, uint16(len(body)))
	return proxySignature + string(b) + body
}

const (
	four = "\xc0\x00\x02\x01\x0a\x00\x00\x01\x12\x67\x00\x19" // 192.0.2.1 10.0.0.1 4711 25
	six  = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"
)

func TestReadProxy(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"PROXY TCP4 192.0.2.1 10.0.0.1 4711 25\r\n", "192.0.2.1:4711"},
		{"PROXY TCP6 2001:db8::1 ::1 4711 25\r\n", "[2001:db8::1]:4711"},
		{"PROXY TCP6 ::ffff:192.0.2.1 ::1 4711 25\r\n", "192.0.2.1:4711"},
		{"PROXY UNKNOWN\r\n", "unknown"},
		{"PROXY UNKNOWN ffff:f... whatever\r\n", "unknown"},
		{"PROXY TCP4 192.0.2.1 10.0.0.1 4711 25\n", "bad"},
		{"PROXY TCP4 192.0.2.1 10.0.0.1 4711\r\n", "bad"},
		{"PROXY TCP4 192.0.2.1 10.0.0.1 4711 25 1\r\n", "bad"},
		{"PROXY TCP4 192.0.2.1 10.0.0.1 70000 25\r\n", "bad"},
		{"PROXY TCP4 192.0.2.1 10.0.0.1 -1 25\r\n", "bad"},
		{"PROXY TCP4 2001:db8::1 ::1 4711 25\r\n", "bad"},
		{"PROXY TCP6 192.0.2.1 10.0.0.1 4711 25\r\n", "bad"},
		{"PROXY TCP6 fe80::1%eth0 ::1 4711 25\r\n", "bad"},
		{"PROXY UDP4 192.0.2.1 10.0.0.1 4711 25\r\n", "bad"},
		{"PROXY " + strings.Repeat("x", 101), "bad"},
		{"PROXY \r\n", "cut"},
		{"EHLO client.test\r\n", "bad"},
		{"", "cut"},
		{"PROXY TCP4 192.0", "cut"},
		{proxyBinary(0x21, 0x11, four), "192.0.2.1:4711"},
		{proxyBinary(0x21, 0x11, four+"\x03\x00\x04abcd"), "192.0.2.1:4711"},
		{proxyBinary(0x21, 0x21, six+six+"\x12\x67\x00\x19"), "[2001:db8::1]:4711"},
		{proxyBinary(0x20, 0x00, ""), "unknown"},
		{proxyBinary(0x20, 0x11, four), "unknown"},
		{proxyBinary(0x21, 0x00, ""), "unknown"},
		{proxyBinary(0x21, 0x31, strings.Repeat("x", 216)), "unknown"},
		{proxyBinary(0x21, 0x11, four[:11]), "bad"},
		{proxyBinary(0x21, 0x21, four), "bad"},
		{proxyBinary(0x22, 0x11, four), "bad"},
		{proxyBinary(0x11, 0x11, four), "bad"},
		{proxyBinary(0x21, 0x11, strings.Repeat("x", maxProxyBytes+1)), "bad"},
		{proxyBinary(0x21, 0x11, four)[:20], "cut"},
		{proxySignature, "cut"},
	} {
		r := strings.NewReader(tt.in + "EHLO")
		if tt.want == "cut" {
			r = strings.NewReader(tt.in)
		}
		addr, err := readProxy(r)
		got := addr.String()
		switch {
		case errors.Is(err, errNoProxy):
			got = "bad"
		case errors.Is(err, io.ErrUnexpectedEOF):
			got = "cut"
		case err == nil && !addr.IsValid():
			got = "unknown"
		}
		if got != tt.want {
			t.Errorf("%q: %s (%v), want %s", tt.in, got, err, tt.want)
		}
		inPieces, errInPieces := readProxy(iotest.OneByteReader(strings.NewReader(tt.in)))
		if inPieces != addr || errors.Is(err, errNoProxy) != errors.Is(errInPieces, errNoProxy) {
			t.Errorf("%q in pieces: %v (%v), want %s", tt.in, inPieces, errInPieces, tt.want)
		}
		if rest, _ := io.ReadAll(r); err == nil && string(rest) != "EHLO" {
			t.Errorf("%q: what is left is %q", tt.in, rest)
		}
	}
}

// FuzzReadProxy: a header is taken whole and nothing behind it, whatever comes.
func FuzzReadProxy(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 10.0.0.1 4711 25\r\nEHLO"))
	f.Add([]byte(proxyBinary(0x21, 0x11, four) + "EHLO"))
	f.Add([]byte(proxyBinary(0x20, 0x00, "")))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		addr, err := readProxy(r)
		used := in[:len(in)-r.Len()]
		if err != nil && addr.IsValid() || len(used) > len(proxySignature)+4+maxProxyBytes {
			t.Fatalf("%v, %v after %d octets", addr, err, len(used))
		}
		if err != nil {
			return
		}
		if again, err := readProxy(bytes.NewReader(used)); again != addr || err != nil {
			t.Fatalf("%q gives %v, and alone %v, %v", used, addr, again, err)
		}
	})
}

func fromLoopback(o *Options) {
	o.Listeners[0].ProxyFrom = loopback()
	o.Listeners[0].Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
}

// The client that the proxy names is the one that counts: for the networks,
// the limits, the log and the backend.
func TestProxy(t *testing.T) {
	b := &fakeBackend{}
	var log records
	s := start(t, b, func(o *Options) {
		fromLoopback(o)
		o.Limits.ConnectionsPerAddress = 1
		o.Log = slog.New(slog.NewJSONHandler(&log, nil))
	})
	in := dial(t, s)
	in.send("PROXY TCP4 192.0.2.1 10.0.0.1 4711 25\r\n")
	in.open()
	in.do("RCPT TO:<bounced@d.test>", "550 ", "DATA", "354 ", ".", "250 ")
	if got := b.took()[0].env.Client.Addr.String(); got != "192.0.2.1:4711" {
		t.Errorf("the backend was told %s", got)
	}
	if r := log.all(t); r[0]["client"] != "192.0.2.1:4711" || r[0]["proxy"] != in.conn.LocalAddr().String() {
		t.Errorf("the log has %v", r)
	}
	again := dial(t, s)
	again.send(proxyBinary(0x21, 0x11, four))
	again.want("421 4.7.0 too many connections")
	for _, header := range []string{"PROXY TCP4 198.51.100.1 10.0.0.1 4711 25\r\n", "PROXY UNKNOWN\r\n"} {
		out := dial(t, s)
		out.send(header)
		out.want("220 ")
		out.do("HELO c", "250 ", "MAIL FROM:<a@b.test>", "554 5.7.1 relaying denied", "QUIT", "221 ")
	}
	in.do("QUIT", "221 ")
	waitFor(t, s, 0)
	if len(s.connections.from) != 0 {
		t.Errorf("left over: %v", s.connections.from)
	}
}

// Nobody is served without the header, and nobody is believed who is no proxy.
func TestNoProxy(t *testing.T) {
	s := start(t, &fakeBackend{}, fromLoopback)
	c := dial(t, s)
	c.send("EHLO client.test\r\n")
	if got := c.line(); got != "EOF" && !strings.HasPrefix(got, "error: ") {
		t.Errorf("got %q", got)
	}
	s = start(t, &fakeBackend{}, func(o *Options) { o.Listeners[0].ProxyFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })
	c = dial(t, s)
	c.want("220 ")
	c.do("PROXY TCP4 192.0.2.1 10.0.0.1 4711 25", "500 ")
}

// A proxy that says nothing costs no more than its time, and TLS begins behind
// the header.
func TestProxyAndTLS(t *testing.T) {
	s := start(t, &fakeBackend{}, func(o *Options) {
		fromLoopback(o)
		o.Limits.HandshakeTime = 100 * time.Millisecond
	})
	if got := dial(t, s).line(); got != "EOF" {
		t.Errorf("got %q", got)
	}
	s = start(t, &fakeBackend{}, func(o *Options) {
		fromLoopback(o)
		o.Listeners[0].TLS = TLS{Mode: ImplicitTLS, SelfSigned: true}
	})
	c := dial(t, s)
	c.send("PROXY TCP4 192.0.2.1 10.0.0.1 4711 25\r\n")
	if err := c.secure(nil); err != nil {
		t.Fatal(err)
	}
	c.open()
	c.do("QUIT", "221 ")
}
