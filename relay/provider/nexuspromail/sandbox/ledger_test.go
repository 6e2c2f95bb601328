package sandbox

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// keyed makes a call with an idempotency key that must be accepted, and returns the
// body of the answer.
func keyed(t *testing.T, s *Server, c *http.Client, key, to string) got {
	t.Helper()
	return must(t, c, s.sendURL(), bodyTo(to), func(r *http.Request) {
		if key != "" {
			r.Header.Set("Idempotency-Key", key)
		}
	})
}

func TestDeliveriesAreCounted(t *testing.T) {
	s := start(t, Options{})
	c := client(t)
	seen := map[string]bool{}
	for _, call := range []struct{ key, to string }{
		{"k1", "a@example.net"}, {"k1", "A@Example.NET"}, {"k1", "a@example.net"}, {"k2", "b@example.net"},
		{"", "b@example.net"}, {"", "b@example.net"}, {"k2", "c@example.net"}, {"k3", "down@example.net"}, {"k3", "down@example.net"},
	} {
		if g := keyed(t, s, c, call.key, call.to); g.status == 200 {
			if seen[g.body] {
				t.Errorf("message_id twice: %s", g.body)
			}
			seen[g.body] = true
		}
	}
	want := Stats{Calls: 9, ByStatus: map[int]int{200: 7, 500: 2}, Accepted: 7, Keys: 2, Duplicates: 2,
		DuplicateKeys: []string{"k1", "k2"}, WithoutKey: 2, KeyConflicts: 1}
	if err := s.WaitFor(t.Context(), func(st Stats) bool { return st.InFlight == 0 }); err != nil {
		t.Fatal(err)
	}
	if got := s.Stats(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for key, n := range map[string]int{"k1": 3, "k2": 2, "k3": 0, "k4": 0, "": 0} {
		if s.Accepted(key) != n {
			t.Errorf("%q was accepted %d times, want %d", key, s.Accepted(key), n)
		}
	}
	for to, n := range map[string]int{"a@example.net": 3, "B@example.net": 3, "c@example.net": 1, "down@example.net": 0} {
		if s.AcceptedFor(to) != n {
			t.Errorf("%s got %d, want %d", to, s.AcceptedFor(to), n)
		}
	}
	s.Reset()
	if got, want := s.Stats(), (Stats{ByStatus: map[int]int{}, DuplicateKeys: []string{}}); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("after the reset: %+v", got)
	}
	if len(s.Calls()) != 0 || s.Accepted("k1") != 0 || s.AcceptedFor("a@example.net") != 0 {
		t.Error("something is left after the reset")
	}
	if g := keyed(t, s, c, "k1", "a@example.net"); seen[g.body] {
		t.Error("a message_id again after the reset")
	}
}

func TestIdempotent(t *testing.T) {
	s := start(t, Options{Idempotent: true})
	c := client(t)
	first := keyed(t, s, c, "k1", "a@example.net")
	for range 2 {
		if again := keyed(t, s, c, "k1", "a@example.net"); again.status != 200 || again.body != first.body {
			t.Errorf("%+v, want %+v", again, first)
		}
	}
	if other := keyed(t, s, c, "k2", "a@example.net"); other.body == first.body {
		t.Error("another key got the same message_id")
	}
	g := keyed(t, s, c, "k1", "b@example.net")
	if g.status != 422 || g.body != `{"error":"validation","message":"Idempotency-Key was used for another recipient"}` {
		t.Errorf("%+v", g)
	}
	// Keys are for answers that were lost.
	if _, err := call(t, c, s.sendURL(), bodyTo("lost+1@example.net"), func(r *http.Request) { r.Header.Set("Idempotency-Key", "k3") }); err == nil {
		t.Error("an answer came")
	}
	if g := keyed(t, s, c, "k3", "lost+1@example.net"); g.status != 200 || s.AcceptedFor("lost+1@example.net") != 1 {
		t.Errorf("%+v, accepted %d times", g, s.AcceptedFor("lost+1@example.net"))
	}
	st := s.Stats()
	if st.Accepted != 3 || st.Replayed != 3 || st.Duplicates != 0 || st.KeyConflicts != 1 {
		t.Errorf("%+v", st)
	}
}

func TestCallsAreRecorded(t *testing.T) {
	s := start(t, Options{})
	c := client(t)
	before := time.Now()
	g := keyed(t, s, c, "k1", "bob@example.net")
	must(t, c, s.sendURL(), `{"subject":"Hi`, nil)
	calls := s.Calls()
	if len(calls) != 2 {
		t.Fatalf("%d calls", len(calls))
	}
	if got := calls[0]; got.Time.Before(before) || got.Took <= 0 || got.Took > time.Since(before) || got.Status != 200 ||
		got.To != "bob@example.net" || got.From != "hello@mail.example.com" || got.Subject != "Hi" || got.IdempotencyKey != "k1" ||
		string(got.Body) != good || g.body != `{"message_id":"`+got.MessageID+`"}` || !strings.HasPrefix(got.Remote, "127.0.0.1:") || got.Error != "" {
		t.Errorf("%+v", got)
	}
	if got := calls[1]; got.Status != 400 || got.Error != "bad_request: invalid JSON at byte 14" || got.MessageID != "" || string(got.Body) != `{"subject":"Hi` {
		t.Errorf("%+v", got)
	}
}

func TestRingOfCalls(t *testing.T) {
	for _, tc := range []struct{ keep, calls, kept int }{{3, 2, 2}, {3, 3, 3}, {3, 7, 3}, {1, 2, 1}, {-1, 2, 0}, {0, 1002, 1000}} {
		s := New(Options{Keep: tc.keep})
		for i := range tc.calls {
			s.ledger.settle(&Call{Subject: fmt.Sprint(i), Status: 200}, true, false)
		}
		calls := s.Calls()
		if len(calls) != tc.kept || s.Stats().Calls != tc.calls || s.Stats().Accepted != tc.calls {
			t.Errorf("%+v: %d kept, %+v", tc, len(calls), s.Stats())
		}
		for i, c := range calls {
			if c.Subject != fmt.Sprint(tc.calls-tc.kept+i) {
				t.Errorf("%+v: call %d is %s", tc, i, c.Subject)
			}
		}
	}
}

// TestBodiesAreBounded compares the ring with a plain list from which the oldest
// bodies are dropped while there are too many. The newest always stays.
func TestBodiesAreBounded(t *testing.T) {
	most := make([]byte, keptBytes+1) // the bodies share it: only lengths matter
	rapid.Check(t, func(t *rapid.T) {
		s := New(Options{Keep: rapid.IntRange(1, 6).Draw(t, "keep")})
		var model []int
		for range rapid.IntRange(1, 30).Draw(t, "calls") {
			n := rapid.SampledFrom([]int{0, 10, keptBytes / 4, keptBytes / 2, keptBytes, keptBytes + 1}).Draw(t, "bytes")
			s.ledger.settle(&Call{Body: most[:n]}, false, false)
			model = append(model, n)
			model = model[max(0, len(model)-len(s.ledger.ring)):]
			sum := 0
			for i := len(model) - 1; i >= 0; i-- {
				if sum += model[i]; sum > keptBytes && i < len(model)-1 {
					clear(model[:i+1])
					break
				}
			}
			var got []int
			for _, c := range s.Calls() {
				got = append(got, len(c.Body))
			}
			if !slices.Equal(got, model) {
				t.Fatalf("bodies of %v bytes are kept, want %v", got, model)
			}
		}
		s.Reset()
		if s.ledger.bodyBytes != 0 {
			t.Fatalf("after a reset %d bytes are counted", s.ledger.bodyBytes)
		}
	})
}

func TestWaitFor(t *testing.T) {
	s := start(t, Options{})
	c := client(t)
	const n = 50
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var waiters sync.WaitGroup
	for range 4 {
		waiters.Go(func() {
			if err := s.WaitFor(ctx, func(st Stats) bool { return st.Accepted == n }); err != nil {
				t.Error(err)
			}
		})
	}
	for range n {
		waiters.Go(func() { _, _ = call(t, c, s.sendURL(), good, nil) })
	}
	waiters.Wait()
	ended, end := context.WithCancel(t.Context())
	end()
	if err := s.WaitFor(ended, func(Stats) bool { return false }); err != context.Canceled {
		t.Error(err)
	}
}
