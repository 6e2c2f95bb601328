package sandbox

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := inMemory(t, Options{Rate: 0.4, Burst: 2})
		status := func(body string, edit func(*http.Request)) int {
			return must(t, c, memoryURL, body, edit).status
		}
		// Refusals of the payload count for the rate; refusals of the key do not.
		if got := status(good, func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }); got != 401 {
			t.Errorf("status %d", got)
		}
		if got := status(`{}`, nil); got != 422 {
			t.Errorf("status %d", got)
		}
		if got := status(good, nil); got != 200 {
			t.Errorf("status %d", got)
		}
		g := must(t, c, memoryURL, good, nil)
		if g.status != 429 || g.header.Get("Retry-After") != "3" || g.body != `{"error":"rate_limited","message":"too many requests"}` {
			t.Errorf("%+v; want 429 after 3 s, 2.5 s rounded up", g)
		}
		if got := status(`{}`, nil); got != 422 {
			t.Errorf("over the rate a bad payload got %d, want 422 as ever", got)
		}
		<-time.After(2499 * time.Millisecond) // the bubble's clock, not ours
		if got := status(good, nil); got != 429 {
			t.Errorf("just before the token: status %d", got)
		}
		<-time.After(time.Millisecond)
		if got := status(good, nil); got != 200 {
			t.Errorf("with the token: status %d", got)
		}
		if err := s.SetRate(0, 0); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if got := status(good, nil); got != 200 {
				t.Errorf("without a limit: status %d", got)
			}
		}
		if err := s.SetRate(3, 0); err != nil { // a second's worth at once
			t.Fatal(err)
		}
		// Other changes leave the bucket as it is.
		for i, want := range []int{200, 200, 200, 429} {
			if err := s.SetLatency(0); err != nil {
				t.Fatal(err)
			}
			if got := status(good, nil); got != want {
				t.Errorf("call %d: status %d, want %d", i+1, got, want)
			}
		}
	})
}

func TestRetryAfterDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := inMemory(t, Options{RetryAfterDate: true})
		if err := s.SetOutage("ratelimited+0x30"); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			<-time.After(333 * time.Millisecond)
			g := must(t, c, memoryURL, good, nil)
			at, err := http.ParseTime(g.header.Get("Retry-After"))
			if wait := time.Until(at); err != nil || wait < 30*time.Second || wait >= 31*time.Second {
				t.Errorf("Retry-After %q is in %v, %v", g.header.Get("Retry-After"), wait, err)
			}
		}
	})
}

func TestFractions(t *testing.T) {
	fates := func(s *Server, c *http.Client) string {
		fates := ""
		for range 1000 {
			fates += strconv.Itoa(must(t, c, s.sendURL(), good, nil).status)[:1]
		}
		return fates
	}
	s := start(t, Options{Fail429: 0.2, Fail500: 0.1, Seed: 7})
	c := client(t)
	first := fates(s, c)
	by := s.Stats().ByStatus
	if !near(by[429], 200) || !near(by[500], 100) || by[200]+by[429]+by[500] != 1000 {
		t.Errorf("%v", by)
	}
	if calls := s.Calls(); calls[len(calls)-1].To != "bob@example.net" {
		t.Errorf("%+v", calls[len(calls)-1])
	}
	s.Reset()
	if fates(s, c) != first {
		t.Error("after a reset other calls fail")
	}
	if same := start(t, Options{Fail429: 0.2, Fail500: 0.1, Seed: 7}); fates(same, c) != first {
		t.Error("with the same seed other calls fail")
	}
	if other := start(t, Options{Fail429: 0.2, Fail500: 0.1, Seed: 8}); fates(other, c) == first {
		t.Error("with another seed the same calls fail")
	}
	if err := s.SetFractions(0, 1); err != nil {
		t.Fatal(err)
	}
	if g := must(t, c, s.sendURL(), good, nil); g.status != 500 {
		t.Errorf("status %d", g.status)
	}
}

// near allows four standard deviations and a bit.
func near(got, want int) bool {
	return math.Abs(float64(got-want)) < 5*math.Sqrt(float64(want))
}

func TestOutages(t *testing.T) {
	s := start(t, Options{})
	c := client(t)
	for o, want := range map[Outage]int{
		OutageNone: 200, OutageError: 500, OutageUnavailable: 503, OutageReset: 0, OutageLost: 0,
		OutageGarbage: 200, OutageNoID: 200, OutageRedirect: 302, "down+1": 500,
	} {
		if err := s.SetOutage(o); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			before := s.Stats().Accepted
			g, err := call(t, c, s.sendURL(), good, nil)
			if (err != nil) != (want == 0) || g.status != want {
				t.Errorf("%q: %+v, %v", o, g, err)
			}
			if taken := s.Stats().Accepted > before; taken != (o == OutageNone || o == OutageLost) {
				t.Errorf("%q: the mail was taken: %v", o, taken)
			}
		}
	}
	// An outage does not hide faults of a call.
	if g := must(t, c, s.sendURL(), `{}`, nil); g.status != 422 {
		t.Errorf("status %d", g.status)
	}
	if err := s.SetOutage(OutageNone); err != nil {
		t.Fatal(err)
	}
	if g := must(t, c, s.sendURL(), good, nil); g.status != 200 {
		t.Errorf("after the outage: status %d", g.status)
	}
}

func TestWrongSettings(t *testing.T) {
	for _, tc := range []struct {
		o    Options
		want string
	}{
		{Options{Rate: -1}, "sandbox: the rate must be 0 or more calls a second"},
		{Options{Rate: math.NaN()}, "sandbox: the rate must be 0 or more calls a second"},
		{Options{Burst: -1}, "sandbox: the burst must be 0 or more calls"},
		{Options{Fail429: 0.6, Fail500: 0.6}, "sandbox: the fractions of failures must be 0 to 1 together"},
		{Options{Fail500: -0.1}, "sandbox: the fractions of failures must be 0 to 1 together"},
		{Options{Latency: -1}, "sandbox: the latency must be 0 or more"},
		{Options{Outage: "rain"}, `sandbox: outage "rain" is no magic recipient's local part`},
		{Options{Path: "send"}, `sandbox: the path "send" must begin with /`},
	} {
		if err := New(tc.o).Start(t.Context()); fmt.Sprint(err) != tc.want {
			t.Errorf("%+v: %v", tc.o, err)
		}
	}
	s := New(Options{})
	if err := s.SetKey(""); err == nil || s.Faults().Key != defaultKey {
		t.Errorf("an empty key: %v, in force %q", err, s.Faults().Key)
	}
}
