package signedpost

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
)

// One handler can check the provider's signatures and ours.
func TestTheSignatureIsTheProvidersOwn(t *testing.T) {
	for _, body := range []string{"", "{}", `{"text":"ä"}`} {
		if got, want := Sign("secret", []byte(body)), nexuspromail.Sign("secret", []byte(body)); got != want {
			t.Errorf("%q is signed %s, by the provider %s", body, got, want)
		}
	}
}

func TestPost(t *testing.T) {
	var got *http.Request
	var body []byte
	answer := func(w http.ResponseWriter) {}
	elsewhere := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer other.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		answer(w)
	}))
	defer server.Close()
	c := New(Options{UserAgent: "smtp2rest/test"})
	defer c.Close()
	post := func(url string, timeout time.Duration) error {
		return c.Post(t.Context(), Target{URL: url, Secret: "whsec_a-secret", Timeout: timeout}, []byte(`{"a":1}`))
	}

	if err := post(server.URL+"/hook?to=ops", time.Minute); err != nil {
		t.Fatal(err)
	}
	if got.Method != "POST" || got.URL.String() != "/hook?to=ops" || string(body) != `{"a":1}` || got.Header.Get("Content-Type") != "application/json" ||
		got.Header.Get(SignatureHeader) != Sign("whsec_a-secret", body) || got.Header.Get("User-Agent") != "smtp2rest/test" {
		t.Errorf("it got %s %s %q %v", got.Method, got.URL, body, got.Header)
	}

	for name, tt := range map[string]struct {
		answer func(w http.ResponseWriter)
		want   string
	}{
		"a secret at the end": {func(w http.ResponseWriter) { http.Error(w, strings.Repeat("x", 195)+"whsec_a-secret", 404) }, "HTTP 404: " + strings.Repeat("x", 195) + "[the …"},
		"an error":            {func(w http.ResponseWriter) { http.Error(w, "no\nsuch  hook: whsec_a-secret\x00", 404) }, "HTTP 404: no such hook: [the secret]"},
		"no words":            {func(w http.ResponseWriter) { w.WriteHeader(500) }, "HTTP 500"},
		"many words":          {func(w http.ResponseWriter) { w.WriteHeader(500); _, _ = io.WriteString(w, strings.Repeat("é", 1<<20)) }, "HTTP 500: " + strings.Repeat("é", 100) + "…"},
		"elsewhere": {func(w http.ResponseWriter) { w.Header().Set("Location", other.URL); w.WriteHeader(307) },
			"HTTP 307: it redirects, which is not followed; write the address itself"},
	} {
		answer = tt.answer
		err := post(server.URL, time.Minute)
		if e := (*StatusError)(nil); err == nil || err.Error() != tt.want || !errors.As(err, &e) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
	if elsewhere > 0 {
		t.Error("a redirection was followed to another host")
	}

	answer = func(w http.ResponseWriter) { w.Header().Set("Retry-After", "120"); w.WriteHeader(429) }
	if e, ok := errors.AsType[*StatusError](post(server.URL, time.Minute)); !ok || e.RetryAfter != 2*time.Minute {
		t.Errorf("of Retry-After: %+v", e)
	}
	done := make(chan struct{})
	answer = func(http.ResponseWriter) { <-done }
	err := post(server.URL+"/a-secret-path", 50*time.Millisecond)
	close(done)
	if err == nil || strings.Contains(err.Error(), "a-secret-path") {
		t.Errorf("one that does not answer: %v", err)
	}
}
