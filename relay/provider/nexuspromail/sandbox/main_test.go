package sandbox

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const good = `{"to":{"email":"bob@example.net"},"from":{"email":"hello@mail.example.com","name":"App"},"subject":"Hi","html":"<p>Hi</p>","text":"Hi","reply_to":{"email":"s@example.com"}}`

// bodyTo returns a good body for a recipient.
func bodyTo(to string) string { return strings.Replace(good, "bob@example.net", to, 1) }

// start runs a sandbox for one test.
func start(t testing.TB, o Options) *Server {
	t.Helper()
	s := New(o)
	if err := s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

// client returns a new HTTP client that follows no redirects.
func client(t testing.TB) *http.Client {
	tr := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// got is an answer that was read to its end.
type got struct {
	status int
	header http.Header
	body   string
}

// call makes one call; edit may change the request.
func call(t testing.TB, c *http.Client, url, body string, edit func(*http.Request)) (got, error) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+defaultKey)
	r.Header.Set("Content-Type", "application/json")
	// If net/http repeated a call, it would hide a connection that was reset.
	r.GetBody = nil
	if edit != nil {
		edit(r)
	}
	resp, err := c.Do(r)
	if err != nil {
		return got{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return got{resp.StatusCode, resp.Header, string(b)}, err
}

// must makes a call that must be answered.
func must(t testing.TB, c *http.Client, url, body string, edit func(*http.Request)) got {
	t.Helper()
	g, err := call(t, c, url, body, edit)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (s *Server) sendURL() string { return s.URL() + s.opts.Path }
