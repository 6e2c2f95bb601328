package smtpd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd/budget"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// writePair writes a new certificate for a host, and its key.
func writePair(t testing.TB, dir, host string) (certFile, keyFile string) {
	t.Helper()
	pair, err := selfSigned(host, false)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		keyFile:  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// A renewed certificate is served without a restart; a broken one is not, and
// is told once. Files are looked at once in a second.
func TestCertificateIsReadAgain(t *testing.T) {
	var log bytes.Buffer
	dir := t.TempDir()
	certFile, keyFile := writePair(t, dir, "one.test")
	c := &certificate{certFile: certFile, keyFile: keyFile, log: slog.New(slog.NewTextHandler(&log, nil))}
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	host := func() string {
		leaf, err := x509.ParseCertificate(c.current(now).Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.DNSNames[0]
	}
	step := func(after time.Duration, change func(), want string, logged int) {
		t.Helper()
		change()
		now = now.Add(after)
		if got := host(); got != want || strings.Count(log.String(), "old one stays") != logged {
			t.Errorf("got %s, want %s and %d failures in %s", got, want, logged, &log)
		}
	}
	nothing := func() {}
	touch := func(at int) { // file systems may have coarse clocks
		for _, f := range []string{certFile, keyFile} {
			when := time.Unix(int64(at), 0)
			if err := os.Chtimes(f, when, when); err != nil {
				t.Fatal(err)
			}
		}
	}
	step(0, nothing, "one.test", 0)
	step(lookEvery/2, func() { writePair(t, dir, "two.test"); touch(1) }, "one.test", 0)
	step(lookEvery/2, nothing, "two.test", 0)
	step(lookEvery, func() { _ = os.WriteFile(certFile, []byte("half"), 0o600); touch(2) }, "two.test", 1)
	step(lookEvery, nothing, "two.test", 1)
	step(lookEvery, func() { _ = os.Remove(keyFile) }, "two.test", 2)
	step(lookEvery, nothing, "two.test", 2)
	step(lookEvery, func() { writePair(t, dir, "three.test"); touch(3) }, "three.test", 2)
}

// What is wrong with a certificate is told at the start, with its file.
func TestStartWithoutCertificate(t *testing.T) {
	dir := t.TempDir()
	certFile, _ := writePair(t, dir, "mx.test")
	other := t.TempDir()
	_, otherKey := writePair(t, other, "mx.test")
	for _, files := range [][2]string{{filepath.Join(dir, "none.pem"), otherKey}, {certFile, otherKey}, {otherKey, certFile}} {
		s, err := New(Options{Backend: &fakeBackend{}, Hostname: "mx.test", Limits: patient(), Memory: budget.New(1<<20, nil), Listeners: []Listener{
			{Address: "127.0.0.1:0"},
			{Address: "127.0.0.1:0", TLS: TLS{Mode: StartTLS, CertFile: files[0], KeyFile: files[1]}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), files[0]) {
			t.Errorf("Start: %v", err)
			stopWithin(t, s, patience)
		}
	}
}

// The least version is the listener's, and devices that have TLS 1.0 and RSA
// alone can be let in.
func TestVersions(t *testing.T) {
	rsaOnly := []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}
	for _, tt := range []struct {
		name       string
		server     uint16 // its least
		client     uint16 // its only
		suites     []uint16
		handshakes bool
	}{
		{"default, TLS 1.1", 0, tls.VersionTLS11, nil, false},
		{"default, TLS 1.2", 0, tls.VersionTLS12, nil, true},
		{"default, TLS 1.2, RSA", 0, tls.VersionTLS12, rsaOnly, false},
		{"TLS 1.3, TLS 1.2", tls.VersionTLS13, tls.VersionTLS12, nil, false},
		{"TLS 1.0, TLS 1.0", tls.VersionTLS10, tls.VersionTLS10, nil, true},
		{"TLS 1.0, TLS 1.0, RSA", tls.VersionTLS10, tls.VersionTLS10, rsaOnly, true},
		{"TLS 1.0, TLS 1.3", tls.VersionTLS10, tls.VersionTLS13, nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, &fakeBackend{}, func(o *Options) {
				o.Listeners[0].TLS = TLS{Mode: ImplicitTLS, MinVersion: tt.server, SelfSigned: true}
			})
			c := dial(t, s)
			err := c.secure(func(c *tls.Config) { c.MinVersion, c.MaxVersion, c.CipherSuites = tt.client, tt.client, tt.suites })
			if (err == nil) != tt.handshakes {
				t.Fatalf("handshake: %v", err)
			}
			if err == nil {
				c.want("220 ")
				c.do("QUIT", "221 ")
			}
		})
	}
}

// Stop does not wait for a handshake, nor for an idle client inside TLS.
func TestStopInTLS(t *testing.T) {
	for name, phase := range map[string]func(c *client) []string{
		"in the handshake": func(c *client) []string { return nil },
		"in half a handshake": func(c *client) []string {
			c.send("\x16\x03\x01\x02\x00")
			return nil
		},
		"after it": func(c *client) []string {
			if err := c.secure(nil); err != nil {
				c.t.Fatal(err)
			}
			c.want("220 ")
			return []string{"421 4.3.2"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, &fakeBackend{}, func(o *Options) { o.Listeners[0].TLS = TLS{Mode: ImplicitTLS, SelfSigned: true} })
			c := dial(t, s)
			waitFor(t, s, 1)
			want := append(phase(c), "EOF")
			stopWithin(t, s, patience)
			for _, w := range want {
				got := c.line()
				if ended := w == "EOF" && strings.HasPrefix(got, "error: "); !ended && !strings.HasPrefix(got, w) {
					t.Errorf("the client got %q, want %q", got, w)
				}
			}
		})
	}
}

// Stop that does not wait cuts off a client inside TLS that takes nothing.
func TestClientThatDoesNotReadInTLS(t *testing.T) {
	s := start(t, &fakeBackend{}, func(o *Options) {
		o.Listeners[0].TLS = TLS{Mode: ImplicitTLS, SelfSigned: true}
	})
	c := dial(t, s)
	if err := c.secure(nil); err != nil {
		t.Fatal(err)
	}
	c.want("220 ")
	c.hurry(s, func(l *Limits) { l.WriteTime = soon() })
	noops := strings.Repeat("NOOP\r\n", 1000)
	for {
		if _, err := io.WriteString(c.rw, noops); err != nil {
			break // the server has closed
		}
	}
	waitFor(t, s, 0)
}

// The backend learns inside TLS as well that a client did not wait.
func TestClientGoneInTLS(t *testing.T) {
	lost := make(chan struct{})
	b := &lossy{lost: lost}
	s := start(t, b, func(o *Options) { o.Listeners[0].TLS = TLS{Mode: ImplicitTLS, SelfSigned: true} })
	c := dial(t, s)
	if err := c.secure(nil); err != nil {
		t.Fatal(err)
	}
	c.open()
	c.do("DATA", "354 ")
	c.send("x\r\n.\r\n")
	c.conn.Close()
	select {
	case <-lost:
	case <-time.After(patience):
		t.Error("the backend was not told")
	}
	waitFor(t, s, 0)
}

// lossy answers when it knows that nobody hears it.
type lossy struct {
	discard
	lost chan struct{}
}

func (b *lossy) Message(_ context.Context, env *Envelope, _ []byte) *reply.Reply {
	env.OnLost(func() { close(b.lost) })
	select {
	case <-b.lost:
	case <-time.After(patience):
	}
	return reply.Queued("q")
}

// A listener that is full costs a client of TLS, and us, no handshake.
func TestTooManyConnectionsInTLS(t *testing.T) {
	s := start(t, &fakeBackend{}, func(o *Options) {
		o.Listeners[0].TLS = TLS{Mode: ImplicitTLS, SelfSigned: true}
		o.Limits.Connections = 1
	})
	first := dial(t, s)
	waitFor(t, s, 1)
	conn, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); len(got) > 0 || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if err := first.secure(nil); err != nil {
		t.Error(err)
	}
}
