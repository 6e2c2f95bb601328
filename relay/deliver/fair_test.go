package deliver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
)

// One sender's bulk does not delay another's single mail. Each sender's mails are sent
// in the order in which they came.
func TestSendersTakeTurns(t *testing.T) {
	inBubbleStopped(t, plan{rate: 10, burst: 1, workers: 1}, func(r *rig) {
		for i := range 200 {
			r.keep("bulk@sandbox.example", fmt.Sprintf("bulk %03d", i), "many@example.net")
		}
		for i := range 3 {
			r.keep("news@sandbox.example", fmt.Sprintf("news %03d", i), "few@example.net")
		}
		r.keep("reset@sandbox.example", "reset", "one@example.net")
		r.engine.Start()
		r.pass(time.Minute)
		got := subjects(r.calls(""))
		if len(got) != 204 {
			r.t.Fatalf("%d sent, want 204", len(got))
		}
		if i := slices.Index(got, "reset"); i > 2 {
			t.Errorf("the single mail was number %d", i+1)
		}
		if i := slices.Index(got, "news 002"); i > 8 {
			t.Errorf("the last of three was number %d", i+1)
		}
		for _, lane := range []string{"bulk", "news"} {
			var mine []string
			for _, s := range got {
				if strings.HasPrefix(s, lane) {
					mine = append(mine, s)
				}
			}
			if !slices.IsSorted(mine) {
				t.Errorf("%s went as %v", lane, mine)
			}
		}
	})
}

// A mail that comes while the bulk drains is sent next, not last.
func TestALateMailIsNext(t *testing.T) {
	inBubble(t, plan{rate: 10, burst: 1, workers: 1}, func(r *rig) {
		for range 500 {
			r.keep("bulk@sandbox.example", "bulk", "many@example.net")
		}
		for range 10 {
			r.pass(3 * time.Second)
			begin := time.Now()
			r.keep("reset@sandbox.example", "reset", "one@example.net")
			r.pass(time.Second)
			calls := r.calls("one@example.net")
			if wait := calls[len(calls)-1].Time.Sub(begin); wait < 0 || wait > 200*time.Millisecond {
				t.Errorf("it waited %s at a rate of 10/s", wait)
			}
		}
	})
}

// fresh tries a mail as relay/intake does while its client waits.
func (r *rig) fresh(wait time.Duration) (relay.Outcome, time.Duration) {
	r.t.Helper()
	m := message("app@sandbox.example", "fresh", "fresh@example.net")
	parsed, err := mail.Map(m.Raw, m.From, mail.Options{Default: relay.Address{Email: "relay@sandbox.example"}, Domains: []string{"sandbox.example"}})
	r.must(err)
	body, err := settings.Defaults[nexuspromail.Format]().Encode(parsed)
	r.must(err)
	turn, cancel := context.WithTimeout(r.t.Context(), wait)
	defer cancel()
	begin := time.Now()
	out := r.tries.Try(turn, attempt.Attempt{MessageID: m.ID, From: m.From, To: m.Recipients[0], Number: 1, Body: body})
	return out, time.Since(begin)
}

// If the rate allows, a fresh mail gets its answer within its wait while a thousand
// mails are queued, and the backlog goes on.
func TestABacklogDoesNotStarveThePresent(t *testing.T) {
	tests := []struct {
		name    string
		plan    plan
		latency time.Duration
		most    time.Duration // for a fresh mail, beside the call itself
	}{
		{"the rate is the limit", plan{rate: 10, burst: 1}, 0, 300 * time.Millisecond},
		{"a burst", plan{rate: 10, burst: 20}, 0, 300 * time.Millisecond},
		{"a slow rate", plan{rate: 0.5, burst: 1}, 0, 6 * time.Second},
		{"calls at once are the limit", plan{concurrency: 8, workers: 6}, 8 * time.Second, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, tt.plan, func(r *rig) {
				r.must(r.box.SetLatency(tt.latency))
				for i := range 1000 {
					r.keep(fmt.Sprintf("bulk%d@sandbox.example", i%3), "bulk", "many@example.net")
				}
				r.pass(time.Second)
				for range 20 {
					out, took := r.fresh(10 * time.Second)
					if out.Kind != relay.Accepted || took > tt.most+tt.latency {
						t.Errorf("fresh mail: %s after %s", out.Kind, took)
					}
					r.pass(time.Second)
				}
				if n := r.box.AcceptedFor("many@example.net"); n < 10 {
					t.Errorf("the backlog stands still: %d sent", n)
				}
			})
		})
	}
}
