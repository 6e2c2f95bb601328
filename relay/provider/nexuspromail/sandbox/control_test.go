package sandbox

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// ask makes a request to the pages beside the API, without a key.
func ask(t *testing.T, s *Server, c *http.Client, method, path, body string) got {
	t.Helper()
	return must(t, c, "http://"+s.Addr()+path, body, func(r *http.Request) {
		r.Method = method
		r.Header = http.Header{}
	})
}

func TestListing(t *testing.T) {
	s := start(t, Options{})
	c := client(t)
	for _, body := range []string{good, bodyTo("down@example.net"), `{"to":`, bodyTo("Bob@example.net"), bodyTo("eve@example.net")} {
		must(t, c, s.sendURL(), body, nil)
	}
	type listed struct {
		Status              int
		To, Error, BodyText string
		MessageID           string `json:"message_id"`
		Text                string `json:"body_text"`
		Body                struct{ HTML string }
	}
	for query, want := range map[string]string{
		"":                          "bob@example.net down@example.net  Bob@example.net eve@example.net",
		"?to=bob@example.net":       "bob@example.net Bob@example.net",
		"?status=200":               "bob@example.net Bob@example.net eve@example.net",
		"?status=200&limit=2":       "Bob@example.net eve@example.net",
		"?limit=0":                  "bob@example.net down@example.net  Bob@example.net eve@example.net",
		"?limit=99&to=&status=":     "bob@example.net down@example.net  Bob@example.net eve@example.net",
		"?to=nobody@example.net":    "",
		"?to=eve@example.net&limit": "eve@example.net",
	} {
		g := ask(t, s, c, "GET", "/sandbox/calls"+query, "")
		var list []listed
		if err := json.Unmarshal([]byte(g.body), &list); err != nil || g.status != 200 || !strings.HasPrefix(g.body, "[") {
			t.Fatalf("%q: %v %s", query, err, g.body)
		}
		var to []string
		for _, l := range list {
			to = append(to, l.To)
			switch {
			case l.Status == 400 && (l.Text != `{"to":` || l.Error == ""),
				l.Status == 200 && (l.MessageID == "" || l.Body.HTML != "<p>Hi</p>"):
				t.Errorf("%+v", l)
			}
		}
		if strings.Join(to, " ") != want {
			t.Errorf("%q: got %q, want %q", query, to, want)
		}
	}
	for query, want := range map[string]string{
		"?status=ok": `"status must be a number"`, "?limit=-1": `"limit must be a number"`,
		"?from=a@b": `"unknown filter \"from\": to, status and limit are known"`,
	} {
		if g := ask(t, s, c, "GET", "/sandbox/calls"+query, ""); g.status != 400 || g.body != "{\n  \"error\": "+want+"\n}\n" {
			t.Errorf("%q: %+v", query, g)
		}
	}
	var st Stats
	if g := ask(t, s, c, "GET", "/sandbox/stats", ""); json.Unmarshal([]byte(g.body), &st) != nil || st.Accepted != 3 || st.ByStatus[500] != 1 {
		t.Errorf("%+v", g)
	}
	if g := ask(t, s, c, "DELETE", "/sandbox/calls", ""); g.status != 200 || len(s.Calls()) != 0 || s.Stats().Calls != 0 {
		t.Errorf("%+v", g)
	}
	if g := ask(t, s, c, "GET", "/sandbox/calls", ""); g.body != "[]\n" {
		t.Errorf("%+v", g)
	}
}

func TestFaultsOverHTTP(t *testing.T) {
	s := start(t, Options{Key: "secret-key", Seed: 3})
	c := client(t)
	g := ask(t, s, c, "PUT", "/sandbox/faults", `{"outage":"unavailable","latency":"2ms","fail_429":0.25}`)
	want := Faults{Key: "secret-key", Outage: "unavailable", Latency: 2 * time.Millisecond, Fail429: 0.25}
	if g.status != 200 || s.Faults() != want {
		t.Errorf("%+v, in force %+v", g, s.Faults())
	}
	g = ask(t, s, c, "PUT", "/sandbox/faults", `{"outage":"","key":"k2","rate":5,"burst":9,"retry_after_date":true,"fail_500":0.5,"idempotent":true}`)
	want = Faults{Key: "k2", Rate: 5, Burst: 9, RetryAfterDate: true, Fail429: 0.25, Fail500: 0.5, Latency: 2 * time.Millisecond, Idempotent: true}
	if g.status != 200 || s.Faults() != want {
		t.Errorf("%+v, in force %+v", g, s.Faults())
	}
	if g := ask(t, s, c, "GET", "/sandbox/faults", ""); g.status != 200 || strings.Contains(g.body, "k2") || !strings.Contains(g.body, `"latency": "2ms"`) {
		t.Errorf("%+v; the key must not be shown", g)
	}
	for body, message := range map[string]string{
		`{"outage":"rain"}`:  `outage \"rain\" is no magic recipient's local part`,
		`{"outages":""}`:     `json: unknown field \"outages\"`,
		`{"latency":"soon"}`: `latency \"soon\" is no duration such as 250ms`,
		`{"rate":-1}`:        `the rate must be 0 or more calls a second`,
		`{"rate":`:           `unexpected EOF`,
		``:                   `EOF`,
		`{"key":"` + string(make([]byte, 70<<10)) + `"}`: `invalid character '\\x00' in string literal`,
	} {
		if g := ask(t, s, c, "PUT", "/sandbox/faults", body); g.status != 400 || g.body != "{\n  \"error\": \""+message+"\"\n}\n" {
			t.Errorf("%.40s: %+v", body, g)
		}
	}
	if s.Faults() != want {
		t.Errorf("a refused change is in force: %+v", s.Faults())
	}
}

func TestWelcome(t *testing.T) {
	s := start(t, Options{})
	c := client(t)
	g := ask(t, s, c, "GET", "/", "")
	if g.status != 200 || !strings.Contains(g.body, "POST "+s.sendURL()) {
		t.Errorf("%+v", g)
	}
	for _, m := range MagicRecipients() {
		if !strings.Contains(g.body, m.LocalPart+"@") || !strings.Contains(g.body, m.What) {
			t.Errorf("%s is not listed", m.LocalPart)
		}
	}
	for _, r := range []string{"POST /", "GET /sandbox/", "POST /sandbox/calls", "PATCH /sandbox/faults"} {
		method, path, _ := strings.Cut(r, " ")
		if g := ask(t, s, c, method, path, ""); g.status != 404 || !strings.Contains(g.body, "there is no "+r) {
			t.Errorf("%s: %+v", r, g)
		}
	}
	if n := s.Stats().Calls; n != 0 {
		t.Errorf("pages beside the API count as %d calls", n)
	}
}
