package admin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// onTCP runs a server on a free port for one test and returns its address.
func onTCP(t *testing.T, o ServerOptions) string {
	t.Helper()
	o.Address = "127.0.0.1:0"
	if o.Admin == nil {
		o.Admin = New(Options{Pace: func() pace.State { return pace.State{} }})
	}
	s := NewServer(o)
	must(t, s.Start(t.Context()))
	t.Cleanup(func() { stop(t, s) })
	return s.Addr().String()
}

func ask(t *testing.T, method, url, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader("{}"))
	must(t, err)
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(body)
}

// What needs the token, by what is open without it.
func TestWhatTheAddressShows(t *testing.T) {
	const token = "a-token-of-16-letters"
	type row struct{ live, metrics, status, call int }
	for name, tt := range map[string]struct {
		opt  ServerOptions
		sent string
		want row
	}{
		"no token is asked for":      {ServerOptions{}, "", row{200, 200, 200, 403}},
		"one is sent all the same":   {ServerOptions{}, "Bearer x", row{200, 200, 200, 403}},
		"nothing is open":            {ServerOptions{Access: Access{Token: token}}, "", row{401, 401, 401, 401}},
		"health is open":             {ServerOptions{Access: Access{Token: token, OpenHealth: true}}, "", row{200, 401, 401, 401}},
		"health and metrics":         {ServerOptions{Access: Access{Token: token, OpenHealth: true, OpenMetrics: true}}, "", row{200, 200, 401, 401}},
		"the right token":            {ServerOptions{Access: Access{Token: token}}, "Bearer " + token, row{200, 200, 200, 200}},
		"a wrong token":              {ServerOptions{Access: Access{Token: token, OpenHealth: true}}, "Bearer " + token + "x", row{200, 401, 401, 401}},
		"an empty token":             {ServerOptions{Access: Access{Token: token}}, "Bearer ", row{401, 401, 401, 401}},
		"without the word before it": {ServerOptions{Access: Access{Token: token}}, token, row{401, 401, 401, 401}},
	} {
		t.Run(name, func(t *testing.T) {
			tt.opt.Metrics = prometheus.NewRegistry()
			at := "http://" + onTCP(t, tt.opt)
			var got row
			got.live, _ = ask(t, "GET", at+Livez, tt.sent)
			got.metrics, _ = ask(t, "GET", at+Metrics, tt.sent)
			got.status, _ = ask(t, "GET", at+status, tt.sent)
			var body string
			got.call, body = ask(t, "POST", at+"/v1/status", tt.sent)
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if strings.Contains(body, token) {
				t.Errorf("the token is shown: %s", body)
			}
		})
	}
}

// A path that is written otherwise is no way around the guard.
func TestNoWayAroundTheGuard(t *testing.T) {
	at := "http://" + onTCP(t, ServerOptions{Access: Access{Token: "a-token-of-16-letters", OpenHealth: true}})
	for _, path := range []string{"//v1/status", "/livez/../v1/status", "/livez/../status", "/v1/status?/livez", "/%761/status"} {
		if code, body := ask(t, "POST", at+path, ""); code == http.StatusOK {
			t.Errorf("%s: %s", path, body)
		}
	}
}

// A page in a browser on this machine can have a name that leads here.
func TestForeignNames(t *testing.T) {
	for _, tt := range []struct {
		token, host string
		want        int
	}{
		{"", "evil.example", 403}, {"", "evil.example:9090", 403}, {"", "127.0.0.1:9090", 200}, {"", "[::1]:9090", 200}, {"", "localhost:9090", 200},
		{"", "192.0.2.7", 200}, {"a-token-of-16-letters", "relay.example", 200},
	} {
		at := "http://" + onTCP(t, ServerOptions{Access: Access{Token: tt.token, OpenHealth: true}})
		req, err := http.NewRequestWithContext(t.Context(), "GET", at+Livez, nil)
		must(t, err)
		req.Host, req.Close = tt.host, true
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		_ = resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s, token %q: %d, want %d", tt.host, tt.token, resp.StatusCode, tt.want)
		}
	}
}

func TestTheClientOverTCP(t *testing.T) {
	const token = "a-token-of-16-letters"
	at := onTCP(t, ServerOptions{Access: Access{Token: token, OpenHealth: true}})
	c, err := DialTCP(t.Context(), at, token)
	must(t, err)
	if s, err := c.Status(t.Context()); err != nil || s.State != StateFine {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := c.List(t.Context(), Filter{}); !errors.Is(err, ErrNoQueue) {
		t.Errorf("List: %v", err)
	}
	c, err = DialTCP(t.Context(), at, "wrong")
	must(t, err)
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "the token is missing or wrong") {
		t.Errorf("with a wrong token: %v", err)
	}
	if said, err := c.Ask(t.Context(), Livez); err != nil || said != "ok" {
		t.Errorf("%q, %v", said, err)
	}
}

func TestHealthPages(t *testing.T) {
	bad := func(context.Context) error { return errors.New("the disk is on fire") }
	hangs := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	at := "http://" + onTCP(t, ServerOptions{Health: Health{Ready: bad}})
	if code, body := ask(t, "GET", at+Livez, ""); code != 200 || body != "ok\n" {
		t.Errorf("livez: %d %q", code, body)
	}
	if code, body := ask(t, "GET", at+Readyz, ""); code != 503 || body != "the disk is on fire\n" {
		t.Errorf("readyz: %d %q", code, body)
	}
	if code, _ := ask(t, "POST", at+Livez, ""); code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", code)
	}
	w := httptest.NewRecorder()
	healthPage(hangs, time.Millisecond).ServeHTTP(w, httptest.NewRequest("GET", Livez, nil))
	if w.Code != 503 || !strings.Contains(w.Body.String(), "deadline exceeded") {
		t.Errorf("a check that hangs: %d %q", w.Code, w.Body)
	}
}

// The words by which a person learns how the relay stands.
func TestSummary(t *testing.T) {
	now := time.Date(2026, 3, 29, 15, 0, 0, 0, time.Local)
	ago := now.Add(-58 * time.Minute)
	down := func(why pace.Why, since time.Time) pace.State {
		return pace.State{Breaker: pace.BreakerState{Open: true, Why: why, Since: since, ProbeAt: now.Add(time.Minute)}}
	}
	for _, tt := range []struct {
		view            view
		counts          Counts
		more            []Warning
		state, summary  string
		urgent, helpful string // of the first warning: its level, and part of what to do
	}{
		{view{}, Counts{}, nil, StateStopped, "no daemon runs; nothing waits", "", ""},
		{view{}, Counts{Waiting: 3}, nil, StateStopped, "no daemon runs; 3 recipients wait; nothing is lost", LevelTrouble, "start smtp2rest"},
		{view{running: true}, Counts{}, nil, StateFine, "mail flows; nothing waits", "", ""},
		{view{running: true}, Counts{Waiting: 1, Oldest: ago}, nil, StateFine, "mail flows; 1 recipient waits, the oldest since 14:02", "", ""},
		{view{running: true}, Counts{Waiting: 1, Oldest: ago.AddDate(0, 0, -1)}, nil, StateFine,
			"mail flows; 1 recipient waits, the oldest since 2026-03-28 14:02", "", ""},
		{view{running: true, pace: down(pace.KeyBad, ago)}, Counts{Waiting: 110, Sending: 2}, nil, StateDegraded,
			"the API refuses the key since 14:02; 112 recipients wait; nothing is lost", LevelTrouble, "put the right API key in place"},
		{view{running: true, pace: down(pace.Down, ago)}, Counts{}, nil, StateDegraded,
			"the API is down since 14:02; mail that comes now will wait; nothing is lost", LevelTrouble, "mail goes out by itself"},
		{view{running: true, pace: pace.State{Breaker: pace.BreakerState{Open: true, Why: pace.Down, Since: ago, ProbeAt: now,
			Last: relay.Outcome{Status: 503, Detail: "down for maintenance", Cause: errors.New("the API answered 503")}}}}, Counts{}, nil, StateDegraded,
			"the API is down (HTTP 503 down for maintenance) since 14:02; mail that comes now will wait; nothing is lost", LevelTrouble, "mail goes out by itself"},
		{view{running: true, pace: pace.State{Breaker: pace.BreakerState{Open: true, Why: pace.Down, Since: ago, ProbeAt: now,
			Last: relay.Outcome{Cause: errors.New("dial tcp: connection refused")}}}}, Counts{}, nil, StateDegraded,
			"the API is down (dial tcp: connection refused) since 14:02; mail that comes now will wait; nothing is lost", LevelTrouble, "mail goes out by itself"},
		{view{running: true, pace: down(pace.Forbidden, ago)}, Counts{Waiting: 1}, nil, StateDegraded,
			"the API forbids what it is sent since 14:02; 1 recipient waits; nothing is lost", LevelTrouble, "that sender's domain"},
		{view{running: true, pace: pace.State{PausedUntil: now.Add(time.Minute)}}, Counts{Waiting: 2}, nil, StateFine,
			"the API said 429 and is left alone; 2 recipients wait until 15:01; mail goes on by itself", LevelInfo, "by itself"},
		{view{running: true, pace: pace.State{PausedUntil: now.Add(time.Minute)}}, Counts{}, nil, StateFine,
			"the API said 429 and is left alone; mail that comes now will wait until 15:01; mail goes on by itself", LevelInfo, "by itself"},
		{view{running: true, unkept: true, pace: down(pace.Down, ago)}, Counts{}, nil, StateDegraded,
			"the API is down since 14:02; mail that comes now is answered 451, because there is no queue", LevelTrouble, "mail goes out by itself"},
		{view{running: true, full: true, pace: down(pace.Down, ago)}, Counts{}, []Warning{{Level: LevelTrouble, What: "what the API does not take at once is answered 452", Full: true}}, StateDegraded,
			"the API is down since 14:02; mail that comes now is answered 452, because the queue takes none; nothing is lost", LevelTrouble, "mail goes out by itself"},
		{view{running: true, pace: pace.State{PausedUntil: now.Add(time.Hour)}}, Counts{Waiting: 2}, nil, StateDegraded,
			"the API said 429 and is left alone; 2 recipients wait", LevelWarning, "by itself"},
		{view{running: true}, Counts{Failed: 2}, nil, StateFine, "mail flows; nothing waits", LevelInfo, "queue list --state failed"},
		{view{running: true}, Counts{Failed: 2}, []Warning{{Level: LevelWarning, Why: "the disk is nearly full", What: "soon no mail can be queued", Do: "make room"}},
			StateDegraded, "the disk is nearly full; soon no mail can be queued", LevelWarning, "make room"},
	} {
		tt.view.now = now
		s := Status{Queue: tt.counts}
		s.Warnings = append(tt.view.warnings(s), tt.more...)
		sortWarnings(s.Warnings)
		state, summary := tt.view.judge(s)
		if state != tt.state || summary != tt.summary {
			t.Errorf("%+v: %s: %q\nwant %s: %q", tt.counts, state, summary, tt.state, tt.summary)
		}
		switch {
		case tt.urgent == "" && len(s.Warnings) > 0:
			t.Errorf("%s: there is a warning %+v", summary, s.Warnings[0])
		case tt.urgent != "" && (len(s.Warnings) == 0 || s.Warnings[0].Level != tt.urgent || !strings.Contains(s.Warnings[0].Do, tt.helpful)):
			t.Errorf("%s: warnings %+v", summary, s.Warnings)
		}
	}
}

// failingQueue is a storage that is not there any more.
type failingQueue struct{ noQueue }

func (failingQueue) Stats(context.Context) (queue.Stats, error) {
	return queue.Stats{}, errors.New("disk I/O error")
}

// A person asks how things are when something is broken; that the storage is
// must be an answer.
func TestStatusOfABrokenStorage(t *testing.T) {
	l := New(Options{Queue: failingQueue{}, Pace: func() pace.State { return pace.State{} }})
	s, err := l.Status(t.Context())
	must(t, err)
	if s.State != StateDegraded || s.Summary != "the queue cannot be read: disk I/O error; it is not known what waits; nothing is lost" {
		t.Errorf("%+v", s)
	}
}

// While the queue takes no mail, the first line does not say that it would wait there.
func TestStatusOfAFullQueue(t *testing.T) {
	l := New(Options{Queue: emptyQueue{}, Pace: func() pace.State {
		return pace.State{Breaker: pace.BreakerState{Open: true, Why: pace.Down}}
	}, Warnings: func(context.Context, time.Time) []Warning {
		return []Warning{{Level: LevelTrouble, What: "what the API does not take at once is answered 452", Why: "the disk is full", Full: true}}
	}})
	s, err := l.Status(t.Context())
	must(t, err)
	if !strings.Contains(s.Summary, "is answered 452") {
		t.Errorf("%s", s.Summary)
	}
}

// emptyQueue is a queue that has nothing.
type emptyQueue struct{ queue.Queue }

func (emptyQueue) Stats(context.Context) (queue.Stats, error)       { return queue.Stats{}, nil }
func (emptyQueue) Accounts(context.Context) (map[string]int, error) { return nil, nil }

// The id of a mail that came again is an id as well.
func TestShortID(t *testing.T) {
	for name, want := range map[string]bool{
		"06h0": true, "06h0kq3n2a7g1m8v4d5e": true, "06h0kq3n2a7g1m8v4d5e.": true, "06h0kq3n2a7g1m8v4d5e.9hs4m6es": true,
		"06h": false, "06h0kq3n2a7g1m8v4d5e0": false, "bob@example.net": false,
	} {
		if got := shortID.MatchString(name); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
