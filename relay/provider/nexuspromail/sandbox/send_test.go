package sandbox

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestOrderOfChecks makes calls with everything wrong, and corrects the first fault
// each time.
func TestOrderOfChecks(t *testing.T) {
	s := start(t, Options{MaxBody: 1000, Rate: 1e-6, Burst: 1, Outage: OutageUnavailable})
	c := client(t)
	if g := must(t, c, s.sendURL(), good, nil); g.status != 503 { // and the bucket is empty
		t.Fatalf("status %d", g.status)
	}
	large := strings.Repeat("x", 1001)
	wrong := map[string]string{"Authorization": "Bearer x", "Content-Type": "text/plain"}
	for _, tc := range []struct {
		method, url, body string
		headers           map[string]string
		status            int
		want              string
	}{
		{"PUT", s.URL() + "/v1/api/send", large, wrong, 404, `{"error":"not_found","message":"there is no /api/v1/api/send"}`},
		{"PUT", s.sendURL(), large, wrong, 405, `{"error":"method_not_allowed","message":"use POST"}`},
		{"POST", s.sendURL(), large, wrong, 401, `{"error":"unauthorized","message":"the API key is wrong or missing"}`},
		{"POST", s.sendURL(), large, map[string]string{"Content-Type": "text/plain"}, 413, `{"error":"too_large","message":"the body is too large"}`},
		{"POST", s.sendURL(), "x", map[string]string{"Content-Type": "text/plain"}, 415, `{"error":"unsupported_media_type","message":"Content-Type must be application/json"}`},
		{"POST", s.sendURL(), "x", nil, 400, `{"error":"bad_request","message":"invalid JSON at byte 0"}`},
		{"POST", s.sendURL(), "{}", nil, 422, `{"error":"validation","message":"to is required"}`},
		{"POST", s.sendURL(), bodyTo("down@example.net"), nil, 429, `{"error":"rate_limited","message":"too many requests"}`},
	} {
		g := must(t, c, tc.url, tc.body, func(r *http.Request) {
			r.Method = tc.method
			for k, v := range tc.headers {
				r.Header.Set(k, v)
			}
		})
		if g.status != tc.status || g.body != tc.want {
			t.Errorf("got %+v, want %d %s", g, tc.status, tc.want)
		}
		if tc.status == 405 && g.header.Get("Allow") != "POST" {
			t.Errorf("Allow: %q", g.header.Get("Allow"))
		}
	}
	if err := s.SetRate(0, 0); err != nil {
		t.Fatal(err)
	}
	if g := must(t, c, s.sendURL(), bodyTo("down@example.net"), nil); g.status != 503 {
		t.Errorf("an outage comes before magic, but got %d", g.status)
	}
}

func TestHeaders(t *testing.T) {
	s := start(t, Options{Key: "k1"})
	c := client(t)
	for _, tc := range []struct {
		name   string
		values []string
		status int
	}{
		{"Authorization", []string{"Bearer k1"}, 200},
		{"Authorization", []string{"bearer k1"}, 200},
		{"Authorization", nil, 401},
		{"Authorization", []string{"k1"}, 401},
		{"Authorization", []string{"Bearer"}, 401},
		{"Authorization", []string{"Bearer "}, 401},
		{"Authorization", []string{"Bearer k12"}, 401},
		{"Authorization", []string{"Basic k1"}, 401},
		{"Authorization", []string{"Bearer k1", "Bearer k1"}, 401},
		{"Content-Type", []string{"application/json; charset=utf-8"}, 200},
		{"Content-Type", []string{"Application/JSON;charset=\"UTF-8\""}, 200},
		{"Content-Type", nil, 415},
		{"Content-Type", []string{"text/json"}, 415},
		{"Content-Type", []string{"application/json; charset=latin1"}, 415},
		{"Content-Type", []string{"application/json;;"}, 415},
	} {
		g := must(t, c, s.sendURL(), good, func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer k1")
			r.Header[tc.name] = tc.values
		})
		if g.status != tc.status {
			t.Errorf("%s %q: status %d, want %d", tc.name, tc.values, g.status, tc.status)
		}
	}
	if err := s.SetKey("k2"); err != nil {
		t.Fatal(err)
	}
	if g := must(t, c, s.sendURL(), good, func(r *http.Request) { r.Header.Set("Authorization", "Bearer k1") }); g.status != 401 {
		t.Errorf("the old key: status %d", g.status)
	}
}

// TestLargeBodies sends a body far above the limit. The client must get the 413 and
// not a broken connection, with or without a Content-Length.
func TestLargeBodies(t *testing.T) {
	s := start(t, Options{MaxBody: 4 << 20})
	c := client(t)
	body := with("<p>Hi</p>", strings.Repeat("x", 12<<20))
	for _, length := range []int64{int64(len(body)), -1} {
		g := must(t, c, s.sendURL(), body, func(r *http.Request) { r.ContentLength = length })
		if g.status != 413 {
			t.Errorf("length %d: status %d", length, g.status)
		}
	}
	exact := with("<p>Hi</p>", strings.Repeat("x", 4<<20-len(good)+len("<p>Hi</p>")))
	if g := must(t, c, s.sendURL(), exact, nil); g.status != 200 || len(exact) != 4<<20 {
		t.Errorf("%d bytes: status %d", len(exact), g.status)
	}
	if g := must(t, c, s.sendURL(), exact+" ", nil); g.status != 413 {
		t.Errorf("one byte more: status %d", g.status)
	}
}

// TestAnswersAreSentBeforeTheCallIsOver: Stop closes the connections of finished
// calls, and must not cut an answer in a buffer.
func TestAnswersAreSentBeforeTheCallIsOver(t *testing.T) {
	s := New(Options{})
	for _, path := range []string{s.path, "/", "/sandbox/stats"} {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if !w.Flushed {
			t.Errorf("the answer to %s is not flushed", path)
		}
	}
}

func TestPath(t *testing.T) {
	s := start(t, Options{Path: "/v1/api/send"})
	c := client(t)
	if g := must(t, c, s.URL()+"/v1/api/send", good, nil); g.status != 200 {
		t.Errorf("status %d", g.status)
	}
	if g := must(t, c, s.URL()+defaultPath, good, nil); g.status != 404 {
		t.Errorf("status %d", g.status)
	}
}
