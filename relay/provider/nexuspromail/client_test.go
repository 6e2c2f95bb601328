package nexuspromail

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/httpcall"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newClient(t *testing.T, o provider.Connection) *httpcall.Client {
	t.Helper()
	o.Path = Vendor(nil).Path
	d := settings.Defaults[provider.Timeouts]()
	o.Timeout, o.ConnectTimeout = cmp.Or(o.Timeout, d.Timeout), cmp.Or(o.ConnectTimeout, d.ConnectTimeout)
	o.Key = "top-secret"
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func request(body string) provider.Request {
	return provider.Request{IdempotencyKey: "01abc-42", To: "bob@example.net", Body: words(body)}
}

// words is a body that is the same for all recipients.
type words string

func (w words) Len(string) int64      { return int64(len(w)) }
func (w words) Open(string) io.Reader { return strings.NewReader(string(w)) }
func (words) Redirected() bool        { return false }

func TestTheRequestOnTheWire(t *testing.T) {
	var got *http.Request
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, `{"message_id":"msg_1"}`)
	}))
	defer srv.Close()
	out := newClient(t, provider.Connection{URL: srv.URL + "/api/", UserAgent: "smtp2rest/x"}).Send(t.Context(), request(`{"to":1}`))
	if out.Kind != relay.Accepted || out.MessageID != "msg_1" || out.Took <= 0 {
		t.Fatalf("outcome %+v", out)
	}
	for name, want := range map[string]string{
		"Authorization": "Bearer top-secret", "Content-Type": "application/json",
		"Idempotency-Key": "01abc-42", "User-Agent": "smtp2rest/x", "Content-Length": "8",
	} {
		if v := got.Header.Get(name); v != want {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	if got.Method != "POST" || got.URL.Path != "/api/v1/transactional/send" || string(body) != `{"to":1}` {
		t.Errorf("%s %s %q", got.Method, got.URL.Path, body)
	}
}

// serveRaw answers each connection by hand and counts the requests.
func serveRaw(t *testing.T, handle func(n int32, conn net.Conn, req *http.Request)) (url string, requests *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	requests = new(atomic.Int32)
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r := bufio.NewReader(conn)
			for {
				req, err := http.ReadRequest(r)
				if err != nil {
					break
				}
				_, _ = io.Copy(io.Discard, req.Body)
				handle(requests.Add(1), conn, req)
			}
			_ = conn.Close()
		}
	}()
	return "http://" + l.Addr().String(), requests
}

const ok200 = "HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{\"message_id\":\"msg_1\"}"

// If a connection breaks after the request was written, the mail may have been taken.
// net/http must not repeat it by itself. On a reused connection it would, for an
// Idempotency-Key in canonical form.
func TestABrokenConnectionIsAmbiguousAndNotRetried(t *testing.T) {
	url, requests := serveRaw(t, func(n int32, conn net.Conn, _ *http.Request) {
		if n == 1 {
			_, _ = io.WriteString(conn, ok200)
			return
		}
		_ = conn.Close()
	})
	c := newClient(t, provider.Connection{URL: url})
	if out := c.Send(t.Context(), request("{}")); out.Kind != relay.Accepted {
		t.Fatalf("first: %+v", out)
	}
	if out := c.Send(t.Context(), request("{}")); out.Kind != relay.Ambiguous || out.Cause == nil {
		t.Errorf("second: %+v, want ambiguous", out)
	}
	if n := requests.Load(); n != 2 {
		t.Errorf("the server saw %d requests, want 2", n)
	}
}

func TestNobodyListeningIsUnavailable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	_ = l.Close()
	if out := newClient(t, provider.Connection{URL: url}).Send(t.Context(), request("{}")); out.Kind != relay.Unavailable || out.Status != 0 {
		t.Errorf("%+v", out)
	}
}

func TestTimeoutAfterWritingIsAmbiguous(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-release
	}))
	defer srv.Close()
	defer close(release)
	out := newClient(t, provider.Connection{URL: srv.URL, Timeouts: provider.Timeouts{Timeout: 50 * time.Millisecond}}).Send(t.Context(), request("{}"))
	if out.Kind != relay.Ambiguous || !errors.Is(out.Cause, context.DeadlineExceeded) {
		t.Errorf("%+v", out)
	}
}

func TestAnAnswerCutShortIsAmbiguous(t *testing.T) {
	url, _ := serveRaw(t, func(_ int32, conn net.Conn, _ *http.Request) {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"message")
		_ = conn.Close()
	})
	out := newClient(t, provider.Connection{URL: url}).Send(t.Context(), request("{}"))
	if out.Kind != relay.Ambiguous || out.Status != 200 {
		t.Errorf("%+v", out)
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	var elsewhere atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("/elsewhere", func(http.ResponseWriter, *http.Request) { elsewhere.Store(true) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	out := newClient(t, provider.Connection{URL: srv.URL}).Send(t.Context(), request("{}"))
	if out.Kind != relay.Unavailable || out.Status != 307 || elsewhere.Load() {
		t.Errorf("%+v, followed: %t", out, elsewhere.Load())
	}
}

// Answers are read to their end and connections kept, so that a series of calls needs
// one connection.
func TestConnectionsAreReused(t *testing.T) {
	var connections atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, strings.Repeat("x", 100<<10)) // longer than maxBody
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	c := newClient(t, provider.Connection{URL: srv.URL})
	for range 10 {
		if out := c.Send(t.Context(), request("{}")); out.Kind != relay.Unavailable || out.Status != 500 {
			t.Fatalf("%+v", out)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("10 calls took %d connections", n)
	}
}

func TestAnEndlessAnswerIsBounded(t *testing.T) {
	stopped := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer close(stopped)
		chunk := []byte(strings.Repeat("x", 32<<10))
		for {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	defer srv.Close()
	if out := newClient(t, provider.Connection{URL: srv.URL}).Send(t.Context(), request("{}")); out.Kind != relay.Ambiguous {
		t.Errorf("%+v", out)
	}
	<-stopped // the connection was given up, not read for ever
}

func TestAnExtraCA(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			t.Errorf("HTTP/%d", r.ProtoMajor)
		}
		_, _ = io.WriteString(w, `{"message_id":"msg_1"}`)
	}))
	defer srv.Close()
	if out := newClient(t, provider.Connection{URL: srv.URL}).Send(t.Context(), request("{}")); out.Kind != relay.Unavailable {
		t.Errorf("an unknown CA was trusted: %+v", out)
	}
	c := newClient(t, provider.Connection{URL: srv.URL, ExtraCAs: pemOf(srv.Certificate().Raw)})
	if out := c.Send(t.Context(), request("{}")); out.Kind != relay.Accepted {
		t.Errorf("with its CA: %+v", out)
	}
	if _, err := New(provider.Connection{URL: srv.URL, ExtraCAs: []byte("no certificate")}); err == nil {
		t.Error("a CA file without a certificate was taken")
	}
}

// No outcome has the key, whatever went wrong.
func TestTheKeyIsInNoOutcome(t *testing.T) {
	for _, url := range []string{"http://127.0.0.1:1", "http://nosuch.invalid", "http://[::1"} {
		c, err := New(provider.Connection{URL: url, Path: "/x", Key: "top-secret", Timeouts: provider.Timeouts{Timeout: time.Second, ConnectTimeout: time.Second}})
		if err != nil {
			if strings.Contains(err.Error(), "top-secret") {
				t.Errorf("%s: %v", url, err)
			}
			continue
		}
		out := c.Send(t.Context(), request("{}"))
		if out.Cause == nil || strings.Contains(out.Cause.Error()+out.Detail, "top-secret") {
			t.Errorf("%s: %+v", url, out)
		}
	}
}
