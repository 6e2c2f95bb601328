package webhook

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/internal/webserver"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
)

const patience = 10 * time.Second

func serve(t *testing.T, o ServerOptions) (*Server, *keeper) {
	t.Helper()
	h, k := newHandler(secret)
	o.Address, o.Handler = "127.0.0.1:0", h
	s := NewServer(o)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, s, patience) })
	return s, k
}

func end(t *testing.T, s *Server, budget time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), budget)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", s.Addr().String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// written returns a request as it is on the wire.
func written(body, signature string) string {
	return fmt.Sprintf("POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s", nexuspromail.SignatureHeader, signature, len(body), body)
}

func statusOf(t *testing.T, c net.Conn) int {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if cerr := resp.Body.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	return resp.StatusCode
}

func TestOverTheWire(t *testing.T) {
	s, k := serve(t, ServerOptions{})
	c := dial(t, s)
	for range 2 { // on one connection
		_, _ = io.WriteString(c, written(hardBounce, nexuspromail.Sign(secret, []byte(hardBounce))))
		if got := statusOf(t, c); got != 200 {
			t.Error(got)
		}
	}
	_, _ = io.WriteString(c, written(hardBounce, ""))
	if got := statusOf(t, c); got != 401 || len(k.all()) != 1 {
		t.Errorf("%d, %d events", got, len(k.all()))
	}
}

// TestSlowClientsAreCutOff checks that a client that stays silent, or sends very
// slowly, only costs a connection for a while.
func TestSlowClientsAreCutOff(t *testing.T) {
	for name, begin := range map[string]string{
		"silent":           "",
		"in the header":    "POST /webhook HTTP/1.1\r\nHost: x\r\n",
		"in the body":      written(strings.Repeat("x", 1000), "")[:300],
		"a part of a line": "PO",
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := serve(t, ServerOptions{limits: webserver.Limits{RequestTime: 50 * time.Millisecond}})
			c := dial(t, s)
			_, _ = io.WriteString(c, begin)
			rest, err := io.ReadAll(c)
			if err != nil || len(rest) > 0 && !strings.Contains(string(rest), " 400 ") && !strings.Contains(string(rest), " 408 ") {
				t.Errorf("%v, %q", err, rest)
			}
		})
	}
}

func TestLargeHeadersAreRefused(t *testing.T) {
	s, _ := serve(t, ServerOptions{})
	c := dial(t, s)
	go func() { // it may be answered before all is read
		_, _ = io.WriteString(c, "POST /webhook HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 64<<10)+"\r\n\r\n")
	}()
	// If something is left unread when the server hangs up, the client may lose the
	// answer.
	answer, err := io.ReadAll(c)
	if err == nil && !strings.HasPrefix(string(answer), "HTTP/1.1 431 ") || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%q, %v", answer, err)
	}
}

// TestALargeBodyIsNotRead checks that the answer comes before the body is sent.
func TestALargeBodyIsNotRead(t *testing.T) {
	s, _ := serve(t, ServerOptions{})
	c := dial(t, s)
	_, _ = fmt.Fprintf(c, "POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 10<<20)
	if got := statusOf(t, c); got != 413 {
		t.Error(got)
	}
}

// TestStrangersMakeRoom checks that neither silent clients nor clients without a
// signature keep the provider out.
func TestStrangersMakeRoom(t *testing.T) {
	s, k := serve(t, ServerOptions{limits: webserver.Limits{Connections: 4, PerAddress: 5, Grace: 1}})
	for range 6 {
		dial(t, s)
		slow := dial(t, s)
		_, _ = io.WriteString(slow, written(hardBounce, nexuspromail.Sign(secret, []byte(hardBounce)))[:100])
	}
	third := dial(t, s)
	_, _ = io.WriteString(third, written(hardBounce, nexuspromail.Sign(secret, []byte(hardBounce))))
	if got := statusOf(t, third); got != 200 || len(k.all()) != 1 {
		t.Errorf("%d, %d events", got, len(k.all()))
	}
}

// TestTheUnsignedAreHungUpOn checks that a client without a good signature does not
// keep its connection.
func TestTheUnsignedAreHungUpOn(t *testing.T) {
	s, _ := serve(t, ServerOptions{})
	for _, request := range []string{
		written(hardBounce, ""), written(hardBounce, strings.Repeat("0", 64)), "GET /webhook HTTP/1.1\r\nHost: x\r\n\r\n", "POST /else HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
	} {
		c := dial(t, s)
		_, _ = io.WriteString(c, request)
		if answer, err := io.ReadAll(c); err != nil || !strings.Contains(string(answer), "\r\nConnection: close\r\n") {
			t.Errorf("%q: %q, %v", request, answer, err)
		}
	}
}

// TestStop checks that idle connections do not delay Stop, and that nothing is
// accepted after it.
func TestStop(t *testing.T) {
	s, _ := serve(t, ServerOptions{})
	c := dial(t, s)
	_, _ = io.WriteString(c, written(hardBounce, nexuspromail.Sign(secret, []byte(hardBounce))))
	if got := statusOf(t, c); got != 200 {
		t.Fatal(got)
	}
	silent := dial(t, s)
	begin := time.Now()
	end(t, s, 100*time.Millisecond)
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("it took %s", took)
	}
	if _, err := io.ReadAll(silent); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
		t.Error("it still listens")
	}
	end(t, s, patience) // harmless
	if err := s.Start(t.Context()); err == nil {
		t.Error("started again")
	}
	end(t, NewServer(ServerOptions{}), patience) // before Start
}

// newPair writes a certificate for 127.0.0.1 and its key.
func newPair(t *testing.T, dir string, number int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(number), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	newPair(t, dir, 1)
	s, k := serve(t, ServerOptions{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")})
	c := tls.Client(dial(t, s), &tls.Config{InsecureSkipVerify: true})
	_, _ = io.WriteString(c, written(hardBounce, nexuspromail.Sign(secret, []byte(hardBounce))))
	if got := statusOf(t, c); got != 200 || len(k.all()) != 1 || c.ConnectionState().Version < tls.VersionTLS12 {
		t.Errorf("%d, %d events", got, len(k.all()))
	}
	if s := NewServer(ServerOptions{Address: "127.0.0.1:0", CertFile: "/none", KeyFile: "/none"}); s.Start(t.Context()) == nil {
		t.Error("started without its certificate")
	}
}
