package sandbox

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/internal/memnet"
)

const accepted = "accepted" // stands for a 200 with the call's message_id

// TestMagicRecipients calls each magic recipient over a real socket, once for each
// expected answer. Status 0 is a connection that is reset.
func TestMagicRecipients(t *testing.T) {
	type step struct {
		status int
		body   string
		header string // "Name: value"
	}
	ok := step{200, accepted, ""}
	down := step{500, `{"error":"internal","message":"something went wrong"}`, ""}
	page := `<html><body><h1>It works!</h1></body></html>`
	limited := func(after string) step {
		return step{429, `{"error":"rate_limited","message":"too many requests"}`, "Retry-After: " + after}
	}
	stories := map[string][]step{
		"bob":                      {ok, ok},
		"suppressed":               {{422, `{"error":"suppressed"}`, ""}, {422, `{"error":"suppressed"}`, ""}},
		"Suppressed+7":             {{422, `{"error":"suppressed"}`, ""}},
		"suppressedx":              {ok},
		"invalid":                  {{422, `{"error":"validation","message":"to.email does not accept mail"}`, ""}},
		"badrequest":               {{400, `{"error":"bad_request","message":"the request is not understood"}`, ""}},
		"toolarge":                 {{413, `{"error":"too_large","message":"the body is too large"}`, ""}},
		"ratelimited":              {limited("1"), ok, ok},
		"ratelimited+2":            {limited("1"), limited("1"), ok},
		"ratelimited+1x30":         {limited("30"), ok},
		"ratelimited+0x2":          {limited("2"), limited("2"), limited("2")},
		"ratelimited+x9":           {limited("9"), ok},
		"ratelimited+1x0":          {limited("1"), ok},
		"down":                     {down, down, down},
		"down+2":                   {down, down, ok, ok},
		"down+soon":                {down, down},
		"unavailable+1":            {{503, `{"error":"unavailable","message":"try again later"}`, ""}, ok},
		"forbidden+1":              {{403, `{"error":"forbidden","message":"the key may not send"}`, ""}, ok},
		"notfound+1":               {{404, `{"error":"not_found","message":"there is nothing here"}`, ""}, ok},
		"redirect+1":               {{302, `{"error":"moved"}`, "Location: /api/moved"}, ok},
		"nojson+1":                 {{200, page, "Content-Type: text/html; charset=utf-8"}, ok},
		"noid+1":                   {{200, `{}`, "Content-Type: application/json"}, ok},
		"slow+1ms":                 {ok},
		"slow+forever":             nil, // 3 s: TestSlow
		"timeout":                  nil, // TestTimeout
		"reset+1":                  {{}, ok},
		"lost+1":                   {{}, ok},
		"hardbounce":               {ok},
		"hardbounce+3":             {ok},
		"softbounce":               {ok},
		"complaint":                {ok},
		"unsubscribe":              {ok},
		"down+2+1":                 {down, down},
		"down+99999999999":         {down},
		"ratelimited+1x4000000000": {limited("1"), ok},
		"ratelimited+1x2000000000": {limited("604800"), ok},
		"ratelimited+1x1e9":        {limited("1"), ok},
	}
	s := start(t, Options{})
	c := client(t)
	told := map[string]bool{}
	for local, story := range stories {
		name, _, _ := strings.Cut(strings.ToLower(local), "+")
		told[name] = true
		to := local + "@example.net"
		for i, want := range story {
			g, err := call(t, c, s.sendURL(), bodyTo(to), nil)
			calls := s.Calls()
			last := calls[len(calls)-1]
			if want.status == 0 {
				if !errors.Is(err, syscall.ECONNRESET) || last.Status != 0 {
					t.Errorf("%s, call %d: %v, status %d; want a reset", local, i+1, err, last.Status)
				}
				continue
			}
			if want.body == accepted {
				want.body = `{"message_id":"` + last.MessageID + `"}`
			}
			h, v, _ := strings.Cut(want.header, ": ")
			if err != nil || g.status != want.status || g.body != want.body || h != "" && g.header.Get(h) != v || last.Status != want.status || last.To != to {
				t.Errorf("%s, call %d: %+v %v, recorded %+v; want %+v", local, i+1, g, err, last, want)
			}
		}
	}
	for _, m := range MagicRecipients() {
		name, _, _ := strings.Cut(m.LocalPart, "[")
		if !told[name] || m.What == "" {
			t.Errorf("%q is not tested or not described", m.LocalPart)
		}
	}
	if n := s.AcceptedFor("lost+1@example.net"); n != 2 {
		t.Errorf("lost+1@ was accepted %d times, want 2: the first answer is lost, the mail is not", n)
	}
	if n := s.AcceptedFor("reset+1@example.net"); n != 1 {
		t.Errorf("reset+1@ was accepted %d times, want 1", n)
	}
}

// inMemory runs the sandbox in a synctest bubble.
func inMemory(t *testing.T, o Options) (*Server, *http.Client) {
	s := New(o)
	l := memnet.Listen()
	srv := &http.Server{Handler: s.Handler()}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	tr := &http.Transport{DialContext: l.Dial}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		tr.CloseIdleConnections()
		srv.Close()
		<-done
	})
	return s, &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

const memoryURL = "http://sandbox" + base + defaultPath

func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := inMemory(t, Options{Latency: 100 * time.Millisecond})
		for local, want := range map[string]time.Duration{
			"bob": 0, "slow": 3 * time.Second, "slow+500ms": 500 * time.Millisecond, "slow+-1s": 3 * time.Second,
			"slow+x": 3 * time.Second, "slow+100h": longestWait,
		} {
			begun := time.Now()
			g := must(t, c, memoryURL, bodyTo(local+"@example.net"), nil)
			if took := time.Since(begun); g.status != 200 || took != want+100*time.Millisecond {
				t.Errorf("%s@ took %v, status %d", local, took, g.status)
			}
		}
		// A client that does not wait for slow@ has sent the mail nevertheless.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := call(t, c, memoryURL, bodyTo("slow@hasty.example"), func(r *http.Request) { *r = *r.WithContext(ctx) })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := s.AcceptedFor("slow@hasty.example"); n != 0 {
			t.Errorf("accepted %d times before it was due", n)
		}
		if err := s.WaitFor(t.Context(), func(st Stats) bool { return st.InFlight == 0 }); err != nil {
			t.Fatal(err)
		}
		if n := s.AcceptedFor("slow@hasty.example"); n != 1 {
			t.Errorf("accepted %d times", n)
		}
	})
}

func TestTimeout(t *testing.T) {
	s := start(t, Options{})
	c := client(t)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	left := make(chan error)
	go func() {
		_, err := call(t, c, s.sendURL(), bodyTo("timeout@example.net"), func(r *http.Request) { *r = *r.WithContext(ctx) })
		left <- err
	}()
	// While the call hangs, it is recorded without an answer.
	if err := s.WaitFor(t.Context(), func(st Stats) bool { return st.ByStatus[0] == 1 && st.InFlight == 1 }); err != nil {
		t.Fatal(err)
	}
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := s.WaitFor(t.Context(), func(st Stats) bool { return st.InFlight == 0 }); err != nil {
		t.Fatal(err)
	}
	if n := s.Stats().Accepted; n != 0 {
		t.Errorf("%d accepted", n)
	}
}
