package sandbox

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Each key has a rate and a list of mails of its own; a key that nobody has is refused.
func TestAccounts(t *testing.T) {
	s := New(Options{Key: "one", Accounts: map[string]Options{"shop": {Key: "two", Rate: 0.001, Burst: 1}, "news": {}}})
	server := httptest.NewServer(s.Handler())
	defer server.Close()
	defer func() { _ = s.Stop(context.Background()) }()
	send := func(key string) int {
		t.Helper()
		body := `{"to":{"email":"bob@example.net"},"from":{"email":"a@sandbox.example"},"subject":"s","html":"<p>t</p>","text":"t"}`
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+base+defaultPath, strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+key)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		return resp.StatusCode
	}
	var got []int
	for _, key := range []string{"one", "two", "two", "one", "news", "nobody"} {
		got = append(got, send(key))
	}
	for i, want := range []int{200, 200, 429, 200, 200, 401} {
		if got[i] != want {
			t.Fatalf("the answers are %v", got)
		}
	}
	if a, b, c := s.Stats().Accepted, s.Account("shop").Stats().Accepted, s.Account("news").Stats().Accepted; a != 2 || b != 1 || c != 1 {
		t.Errorf("accepted are %d, %d, %d", a, b, c)
	}
	resp, err := http.Get(server.URL + "/sandbox/shop/stats")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the account's pages: %v, %v", resp, err)
	}
	_ = resp.Body.Close()
}
