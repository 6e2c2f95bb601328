package deliver

import (
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/retry"
)

// How a recipient is settled, for every kind of outcome and every age.
func TestDecide(t *testing.T) {
	schedule := retry.Schedule{First: time.Minute, Max: time.Hour, MaxAge: 48 * time.Hour}
	since := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const fresh, late, over, ancient = time.Second, 48*time.Hour - time.Second, 48 * time.Hour, 1000 * time.Hour
	type want struct {
		result queue.Result
		in     time.Duration // until Due
		free   bool          // NotAnAttempt
	}
	done, failed := want{result: queue.Done}, want{result: queue.GaveUp}
	again := func(in time.Duration) want { return want{result: queue.Later, in: in} }
	free := want{result: queue.Later, free: true}
	table := map[relay.Kind]map[time.Duration]want{
		relay.Accepted:     {fresh: done, late: done, over: done, ancient: done},
		relay.Suppressed:   {fresh: failed, late: failed, over: failed, ancient: failed},
		relay.Refused:      {fresh: failed, late: failed, over: failed, ancient: failed},
		relay.TooLarge:     {fresh: failed, late: failed, over: failed, ancient: failed},
		relay.Unauthorized: {fresh: free, late: free, over: free, ancient: free},
		relay.RateLimited:  {fresh: free, late: free, over: free, ancient: free},
		// The third attempt: four minutes, minus up to a half, and never after the
		// end.
		relay.Unavailable: {fresh: again(3 * time.Minute), late: again(time.Second), over: failed, ancient: failed},
		relay.Ambiguous:   {fresh: again(3 * time.Minute), late: again(time.Second), over: failed, ancient: failed},
	}
	for _, kind := range relay.Kinds() {
		ages, ok := table[kind]
		if !ok {
			t.Errorf("the table has no line for %s", kind)
		}
		for age, w := range ages {
			now := since.Add(age)
			out := relay.Outcome{Kind: kind, Status: 299, Detail: "words"}
			got := decide(schedule, tried{claim: queue.Claim{Attempt: 3, Since: since}, out: out, at: now}, 0.5)
			if got.Result != w.result || got.NotAnAttempt != w.free {
				t.Errorf("%s after %s: result %d, not an attempt %v; want %+v", kind, age, got.Result, got.NotAnAttempt, w)
			}
			if got.Result == queue.Later && !got.Due.Equal(now.Add(w.in)) {
				t.Errorf("%s after %s: due in %s, want %s", kind, age, got.Due.Sub(now), w.in)
			}
			if got.Outcome != out || !got.At.Equal(now) {
				t.Errorf("%s after %s: the record is %+v at %s", kind, age, got.Outcome, got.At)
			}
		}
	}
}

// A mail for which alone the key is refused is kept however old it is, and tried later
// and later.
func TestDecideOfWhatFailsAlone(t *testing.T) {
	schedule := retry.Schedule{First: time.Minute, Max: time.Hour, MaxAge: 48 * time.Hour}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for attempt, want := range map[int]time.Duration{1: time.Minute, 3: 4 * time.Minute, 100: time.Hour} {
		claim := queue.Claim{Attempt: attempt, Since: now.Add(-1000 * time.Hour)}
		got := decide(schedule, tried{claim: claim, out: relay.Outcome{Kind: relay.Unauthorized, Status: 403}, at: now, alone: true}, 0)
		if got.Result != queue.Later || got.NotAnAttempt || got.Due.Sub(now) != want {
			t.Errorf("attempt %d: %+v, want it again in %s", attempt, got, want)
		}
	}
}

// Intake's attempt, while the client waited, counts like any other.
func TestKeepRecordsTheFirstTry(t *testing.T) {
	took := 2 * time.Second
	tests := []struct {
		name     string
		out      relay.Outcome
		state    queue.State
		attempts int
		history  int
		due      time.Duration // at least
		free     bool
	}{
		{"its turn did not come", relay.Outcome{Kind: relay.RateLimited, Untried: true, RetryAfter: time.Hour}, queue.Waiting, 0, 0, 0, false},
		{"the breaker was open", relay.Outcome{Kind: relay.Unavailable, Untried: true}, queue.Waiting, 0, 0, 0, false},
		{"accepted", relay.Outcome{Kind: relay.Accepted, Status: 200, MessageID: "msg_1", Took: took}, queue.Sent, 1, 1, 0, false},
		{"suppressed", relay.Outcome{Kind: relay.Suppressed, Status: 422, Took: took}, queue.Failed, 1, 1, 0, false},
		{"refused", relay.Outcome{Kind: relay.Refused, Status: 400, Took: took}, queue.Failed, 1, 1, 0, false},
		{"no answer", relay.Outcome{Kind: relay.Ambiguous, Took: took}, queue.Waiting, 1, 1, 30 * time.Second, false},
		{"an error", relay.Outcome{Kind: relay.Unavailable, Status: 503, Took: took}, queue.Waiting, 1, 1, 30 * time.Second, false},
		{"429", relay.Outcome{Kind: relay.RateLimited, Status: 429, Took: took}, queue.Waiting, 0, 1, 0, true},
		{"401", relay.Outcome{Kind: relay.Unauthorized, Status: 401, Took: took}, queue.Waiting, 0, 1, 0, true},
	}
	inBubbleStopped(t, plan{}, func(r *rig) {
		// The other mail is open, so the whole is not settled.
		m := message("Shop@SANDBOX.example", "one of each")
		rest := relay.Remainder{Message: m, Domain: "sandbox.example", Urgent: true}
		for _, tt := range tests {
			m.Recipients = append(m.Recipients, "to@example.net")
			rest.Outcomes = append(rest.Outcomes, tt.out)
		}
		time.Sleep(time.Minute)
		now := time.Now()
		r.must(r.engine.Keep(r.t.Context(), rest))
		mail := r.mail(m.ID)
		if mail.Lane != "shop@sandbox.example" || mail.Domain != "sandbox.example" || !mail.Urgent {
			t.Errorf("lane %q, domain %q, urgent %v", mail.Lane, mail.Domain, mail.Urgent)
		}
		for i, tt := range tests {
			got := mail.Recipients[i]
			if got.State != tt.state || got.Attempts != tt.attempts || len(got.History) != tt.history {
				t.Errorf("%s: %s after %d attempts, %d in its history", tt.name, got.State, got.Attempts, len(got.History))
			}
			if tt.due > 0 && got.Due.Before(now.Add(tt.due)) || tt.due == 0 && got.Due.After(now) {
				t.Errorf("%s: due in %s", tt.name, got.Due.Sub(now))
			}
			if got.State == queue.Sent || got.State == queue.Failed {
				if !got.Ended.Equal(now) {
					t.Errorf("%s: ended at %s", tt.name, got.Ended)
				}
			}
			if tt.history > 0 {
				h := got.History[0]
				if h.Outcome.Kind != tt.out.Kind || h.NotAnAttempt != tt.free || !h.Started.Equal(now.Add(-took)) {
					t.Errorf("%s: the record is %+v", tt.name, h)
				}
			}
		}
	})
}

func TestKeepSaysWhatWasNotKept(t *testing.T) {
	inBubbleStopped(t, plan{queue: queue.Options{MaxMails: 1}}, func(r *rig) {
		r.keep(shop, "one", "bob@example.net")
		m := message(shop, "two", "bob@example.net")
		err := r.engine.Keep(r.t.Context(), relay.Remainder{Message: m, Outcomes: untried(1)})
		if err == nil {
			t.Error("a full queue is not told of")
		}
		if _, err := r.store.Get(r.t.Context(), m.ID); err == nil {
			t.Error("it was kept all the same")
		}
	})
}
