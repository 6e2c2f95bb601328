package attempt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is an API that gives these answers in order, and then repeats the last.
type script struct {
	answers []relay.Outcome
	takes   time.Duration // each call, unless its context ends first

	mu     sync.Mutex
	keys   []string
	bodies []string
}

func (s *script) Send(ctx context.Context, r provider.Request) relay.Outcome {
	body, _ := io.ReadAll(r.Body.Open(r.To))
	s.mu.Lock()
	out := s.answers[min(len(s.keys), len(s.answers)-1)]
	s.keys = append(s.keys, r.IdempotencyKey)
	s.bodies = append(s.bodies, string(body))
	s.mu.Unlock()
	if int64(len(body)) != r.Body.Len(r.To) {
		return relay.Outcome{Kind: relay.Refused, Status: 400, Detail: "the size is wrong"}
	}
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return relay.Outcome{Kind: relay.Ambiguous, Cause: ctx.Err()}
	}
	out.Took = s.takes
	return out
}

// calls returns the number of calls.
func (s *script) calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.keys)
}

// text is a Body that names its recipient.
type text string

func (b text) Len(to string) int64      { return int64(len(b) + len(to)) }
func (b text) Redirected() bool         { return strings.Contains(string(b), "redirected") }
func (b text) Open(to string) io.Reader { return strings.NewReader(string(b) + to) }

type rig struct {
	*Sender
	api          *script
	pace         *pace.Pacer
	suppressions *suppress.List
	log          bytes.Buffer
}

func newRig(takes time.Duration, answers ...relay.Outcome) *rig {
	r := &rig{
		api:          &script{answers: answers, takes: takes},
		pace:         pace.New(pace.Options{Settings: pace.Settings{Concurrency: 1, MaxPause: time.Hour}, Failures: 2}),
		suppressions: suppress.New(suppress.Options{Settings: settings.Defaults[suppress.Settings]()}),
	}
	r.Sender = New(Options{API: r.api, Pace: r.pace, Suppressions: r.suppressions,
		Log: slog.New(slog.NewJSONHandler(&r.log, nil))})
	return r
}

// try tries a mail to bob, whose turn must come within wait.
func (r *rig) try(t *testing.T, wait time.Duration) relay.Outcome {
	turn, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	return r.Try(turn, Attempt{
		MessageID: "id1", From: "alice@example.com", To: "bob@example.net", Number: 1, Body: text("mail for "),
	})
}

// lines returns the log's lines, parsed.
func (r *rig) lines(t *testing.T) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(r.log.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q is no JSON: %v", line, err)
		}
		all = append(all, m)
	}
	return all
}

func (r *rig) outcomes(t *testing.T) string {
	t.Helper()
	var all []string
	for _, l := range r.lines(t) {
		all = append(all, l["outcome"].(string))
	}
	return strings.Join(all, " ")
}

var (
	accepted = relay.Outcome{Kind: relay.Accepted, Status: 200, MessageID: "msg_1"}
	limited  = relay.Outcome{Kind: relay.RateLimited, Status: 429, RetryAfter: 3 * time.Second}
)

// There is one line for each attempt, at a level that says whether somebody has to
// look.
func TestAnAttemptIsOneLineInTheLog(t *testing.T) {
	always := []string{"attempt", "duration", "from", "id", "level", "message_id", "msg", "outcome", "status", "time", "to"}
	for _, tt := range []struct {
		out   relay.Outcome
		level string
		more  map[string]any
	}{
		{accepted, "INFO", nil},
		{relay.Outcome{Kind: relay.Suppressed, Status: 422, Detail: "suppressed"}, "INFO", map[string]any{"api_says": "suppressed"}},
		{relay.Outcome{Kind: relay.Refused, Status: 422, Detail: "no subject"}, "INFO", map[string]any{"api_says": "no subject"}},
		{relay.Outcome{Kind: relay.TooLarge, Status: 413}, "INFO", nil},
		{relay.Outcome{Kind: relay.Unavailable, Status: 503, Cause: errors.New("down")}, "WARN", map[string]any{"cause": "down"}},
		{relay.Outcome{Kind: relay.Ambiguous, Cause: errors.New("time-out")}, "WARN", map[string]any{"cause": "time-out"}},
		{relay.Outcome{Kind: relay.Unauthorized, Status: 401}, "ERROR", nil},
	} {
		t.Run(tt.out.Kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(20*time.Millisecond, tt.out)
				if got := r.try(t, time.Second); got.Kind != tt.out.Kind {
					t.Fatalf("the outcome is %+v", got)
				}
				lines := r.lines(t)
				if len(lines) != 1 {
					t.Fatalf("%d lines: %v", len(lines), lines)
				}
				want := map[string]any{
					"msg": "recipient", "level": tt.level, "id": "id1", "from": "alice@example.com", "to": "bob@example.net",
					"outcome": tt.out.Kind.String(), "status": float64(tt.out.Status), "message_id": tt.out.MessageID,
					"attempt": float64(1), "duration": float64(20 * time.Millisecond),
				}
				maps.Copy(want, tt.more)
				for k, v := range want {
					if lines[0][k] != v {
						t.Errorf("%s is %v, want %v", k, lines[0][k], v)
					}
				}
				keys := slices.Sorted(maps.Keys(lines[0]))
				expected := slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(tt.more)), always...)))
				if !slices.Equal(keys, expected) {
					t.Errorf("the line has %v, want %v", keys, expected)
				}
			})
		})
	}
}

// A 429 does not end the attempt. It is waited out, and the next call has the same key
// and the whole body.
func TestALimitIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(0, limited, limited, accepted)
		begin := time.Now()
		if out := r.try(t, 10*time.Second); out.Kind != relay.Accepted {
			t.Fatalf("the outcome is %+v", out)
		}
		// 3 s, and twice that for the second in a row.
		if took := time.Since(begin); took < 9*time.Second || took > 10*time.Second {
			t.Errorf("it took %s, want 3 s and 6 s", took)
		}
		if got := r.outcomes(t); got != "rate_limited rate_limited accepted" {
			t.Errorf("the log has %s", got)
		}
		for i := range r.api.keys {
			if r.api.keys[i] != r.api.keys[0] || r.api.bodies[i] != "mail for bob@example.net" {
				t.Errorf("call %d had the key %q and the body %q", i, r.api.keys[i], r.api.bodies[i])
			}
		}
	})
}

// If the limit lasts longer than the client waits, Try returns at once.
func TestALimitBeyondTheTurnIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(0, limited, accepted)
		begin := time.Now()
		out := r.try(t, 2*time.Second)
		if took := time.Since(begin); took != 0 {
			t.Errorf("it took %s to say no", took)
		}
		if out.Kind != relay.RateLimited || out.RetryAfter != 3*time.Second || out.Cause == nil {
			t.Errorf("the outcome is %+v, want 3 s and a cause", out)
		}
		if n := len(r.api.keys); n != 1 {
			t.Errorf("%d calls were made", n)
		}
	})
}

// A call that has begun is never given up for the client's sake. Its recipient would
// be in flight and in the queue at the same time.
func TestACallOutlivesTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(8*time.Second, accepted)
		begin := time.Now()
		if out := r.try(t, time.Second); out.Kind != relay.Accepted {
			t.Errorf("the outcome is %+v", out)
		}
		if took := time.Since(begin); took != 8*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// The other call holds the only slot for longer than the turn lasts.
func TestNoTurnIsNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(time.Minute, accepted)
		var wg sync.WaitGroup
		wg.Go(func() { r.try(t, time.Second) })
		synctest.Wait()
		out := r.try(t, time.Second)
		if out.Kind != relay.RateLimited || out.Status != 0 || out.RetryAfter <= 0 {
			t.Errorf("the outcome is %+v", out)
		}
		wg.Wait()
		if n := len(r.api.keys); n != 1 {
			t.Errorf("%d calls were made", n)
		}
		if got := r.outcomes(t); got != "rate_limited accepted" {
			t.Errorf("the log has %s", got)
		}
	})
}

// A call ends when another relay may make it next.
func TestACallEndsWhenItsClaimIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(time.Hour, accepted)
		lost := make(chan struct{})
		time.AfterFunc(time.Minute, func() { close(lost) })
		begun := time.Now()
		out := r.Try(t.Context(), Attempt{MessageID: "id1", To: "bob@example.net", Body: text("mail for "), Lost: lost})
		if took := time.Since(begun); out.Kind != relay.Ambiguous || took != time.Minute {
			t.Errorf("after %s: %+v", took, out)
		}
	})
}

// While the breaker is open nobody calls and nobody waits. The outcome is that of the
// last answer.
func TestAnOpenBreakerSaysWhy(t *testing.T) {
	for _, tt := range []struct {
		answer relay.Kind
		calls  int // that open the breaker
	}{
		{relay.Unavailable, 2},
		{relay.Unauthorized, 1},
	} {
		t.Run(tt.answer.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(0, relay.Outcome{Kind: tt.answer, Status: 1})
				for range tt.calls {
					r.try(t, time.Second)
				}
				begin := time.Now()
				out := r.try(t, time.Minute)
				if out.Kind != tt.answer || out.Status != 0 || out.Cause == nil || time.Since(begin) != 0 {
					t.Errorf("the outcome is %+v after %s", out, time.Since(begin))
				}
				if n := len(r.api.keys); n != tt.calls {
					t.Errorf("%d calls were made", n)
				}
			})
		})
	}
}

func TestASuppressedRecipientIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(0, relay.Outcome{Kind: relay.Suppressed, Status: 422})
		r.try(t, time.Second)
		entry, known := r.suppressions.Lookup("BOB@example.net", time.Now())
		if !known || entry.Reason != suppress.Provider {
			t.Errorf("the list has %+v", entry)
		}
		if _, known := r.suppressions.Lookup("alice@example.com", time.Now()); known {
			t.Error("the sender is suppressed")
		}
	})
}

// If the provider says that an address is suppressed, that counts for mail that is
// waiting, however often it waited.
func TestSuppressedWhileItWaitsForItsTurn(t *testing.T) {
	for _, calls := range []int{0, 1, 3} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(time.Second, limited) // for ever
			r.pace.Resume(time.Now().Add(2*time.Second), 0)
			go func() {
				for r.api.calls() < calls {
					time.Sleep(time.Second) // virtual
				}
				time.Sleep(1500 * time.Millisecond) // virtual: the gate is closed
				r.suppressions.Learn("Bob@example.net", suppress.HardBounce, "", time.Now())
			}()
			out := r.try(t, time.Minute)
			if out.Kind != relay.Suppressed || !out.Untried || out.Status != 0 {
				t.Errorf("%+v", out)
			}
			if n := r.api.calls(); n != calls {
				t.Errorf("%d calls, %d before the address was suppressed", n, calls)
			}
			if got := r.pace.State().InFlight; got != 0 {
				t.Errorf("%d passes are kept", got)
			}
			if got, want := r.outcomes(t), strings.Repeat("rate_limited ", calls)+"suppressed"; got != want {
				t.Errorf("the log has %q, want %q", got, want)
			}
		})
	}
}

func TestOnlySuppressedIsRemembered(t *testing.T) {
	for _, k := range relay.Kinds() {
		if k == relay.Suppressed || k == relay.RateLimited {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			r := newRig(0, relay.Outcome{Kind: k, Status: 422})
			r.try(t, time.Second)
			if _, known := r.suppressions.Lookup("bob@example.net", time.Now()); known {
				t.Errorf("%s suppresses", k)
			}
		})
	}
}

// The key keeps a second attempt from being a second mail.
func TestIdempotencyKey(t *testing.T) {
	key := IdempotencyKey("06h0kod3l4pf6t8jqoad", "bob@example.net")
	if want := "06h0kod3l4pf6t8jqoad-e7b3b708168e80fd"; key != want {
		t.Errorf("the key is %q, want %q for ever: mail in queues depends on it", key, want)
	}
	if !regexp.MustCompile(`^[0-9a-z-]{1,64}$`).MatchString(key) {
		t.Errorf("%q is not fit for a header", key)
	}
	for _, other := range []string{
		IdempotencyKey("06h0kod3l4pf6t8jqoad", "eve@example.net"),
		IdempotencyKey("06h0kod3l4pf6t8jqoae", "bob@example.net"),
	} {
		if other == key {
			t.Errorf("two recipients or two mails share %q", key)
		}
	}
	for _, same := range []string{
		IdempotencyKey("06h0kod3l4pf6t8jqoad", "Bob@Example.NET"),
		IdempotencyKey(relay.ContinueID("06h0kod3l4pf6t8jqoad", "06h0kod3l4pf6t8jqoaf"), "bob@example.net"),
	} {
		if same != key {
			t.Errorf("%q is not %q", same, key)
		}
	}
}
