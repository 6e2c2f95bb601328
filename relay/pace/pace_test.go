package pace

import (
	"cmp"
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
)

// newPacer returns a Pacer that pauses as long as by default, unless o says how long.
func newPacer(o Options) *Pacer {
	o.MaxPause = cmp.Or(o.MaxPause, settings.Defaults[Settings]().MaxPause)
	return New(o)
}

var (
	accepted = relay.Outcome{Kind: relay.Accepted, Status: 200}
	down     = relay.Outcome{Kind: relay.Unavailable}
)

func limited(after time.Duration) relay.Outcome {
	return relay.Outcome{Kind: relay.RateLimited, Status: 429, RetryAfter: after}
}

// call passes once through p and returns how long it had to wait.
func call(t *testing.T, p *Pacer, out relay.Outcome) time.Duration {
	t.Helper()
	start := time.Now()
	pass, err := p.Enter(context.Background())
	if err != nil {
		t.Fatalf("Enter: %v", err)
	}
	defer pass.Leave(out)
	return time.Since(start)
}

func TestRateIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Rate: 10, Burst: 5, Concurrency: 4}})
		start := time.Now()
		for range 105 {
			call(t, p, accepted)
		}
		if got, want := time.Since(start), 10*time.Second; got != want {
			t.Errorf("105 calls with a burst of 5 at 10/s took %s, want %s", got, want)
		}
	})
}

func TestConcurrencyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Concurrency: 3}})
		var mu sync.Mutex
		var now, most int
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				pass, err := p.Enter(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				now++
				most = max(most, now)
				mu.Unlock()
				time.Sleep(time.Second) // virtual: the length of a call
				mu.Lock()
				now--
				mu.Unlock()
				pass.Leave(accepted)
			})
		}
		wg.Wait()
		if most != 3 {
			t.Errorf("%d calls at once, want 3", most)
		}
	})
}

func Test429ClosesTheGateForEveryone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Rate: 1e6, Burst: 8, Concurrency: 8}})
		call(t, p, limited(7*time.Second))
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if waited := call(t, p, accepted).Round(time.Second); waited != 7*time.Second {
					t.Errorf("waited %s, want 7s", waited)
				}
			})
		}
		wg.Wait()
	})
}

func TestFurther429sInARowDouble(t *testing.T) {
	tests := []struct {
		name     string
		outcomes []relay.Outcome
		want     []time.Duration // the wait before the call after each
	}{
		{"doubles to the ceiling",
			[]relay.Outcome{limited(10 * time.Second), limited(10 * time.Second), limited(10 * time.Second), limited(10 * time.Second)},
			[]time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute}},
		{"an answer that is no 429 ends the row",
			[]relay.Outcome{limited(10 * time.Second), limited(10 * time.Second), accepted, limited(10 * time.Second)},
			[]time.Duration{10 * time.Second, 20 * time.Second, 0, 10 * time.Second}},
		{"no answer at all says nothing about the rate",
			[]relay.Outcome{limited(10 * time.Second), down, limited(10 * time.Second)},
			[]time.Duration{10 * time.Second, 0, 20 * time.Second}},
		{"zero is not a hot loop",
			[]relay.Outcome{limited(0), limited(-time.Hour)},
			[]time.Duration{time.Second, 2 * time.Second}},
		{"at most eightfold: an account that others use up says 429 for long",
			[]relay.Outcome{limited(time.Second), limited(time.Second), limited(time.Second), limited(time.Second), limited(time.Second)},
			[]time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 8 * time.Second}},
		{"31 December 9999 does not overflow",
			[]relay.Outcome{limited(math.MaxInt64), limited(math.MaxInt64), limited(math.MaxInt64)},
			[]time.Duration{time.Minute, time.Minute, time.Minute}},
		{"one Retry-After beyond the ceiling",
			[]relay.Outcome{limited(100 * time.Hour)},
			[]time.Duration{time.Minute}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPacer(Options{Settings: Settings{Concurrency: 1, MaxPause: time.Minute}})
				for i, out := range tt.outcomes {
					call(t, p, out)
					if got := p.pause(); got != tt.want[i] {
						t.Fatalf("pause after outcome %d is %s, want %s", i, got, tt.want[i])
					}
					time.Sleep(p.pause()) // virtual
				}
			})
		})
	}
}

// Calls that were in flight together get their 429s together. That counts once.
func TestA429StormDoublesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Concurrency: 10}})
		var passes []*Pass
		for range 10 {
			pass, err := p.Enter(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			passes = append(passes, pass)
		}
		for _, pass := range passes {
			pass.Leave(limited(5 * time.Second))
		}
		if got := p.pause(); got != 5*time.Second {
			t.Errorf("pause is %s, want 5s", got)
		}
		passes[0].pacer.mu.Lock()
		defer passes[0].pacer.mu.Unlock()
		if p.gate.inARow != 1 {
			t.Errorf("counted %d 429s in a row, want 1", p.gate.inARow)
		}
	})
}

func TestTheLongestRetryAfterWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Concurrency: 2}})
		first, _ := p.Enter(context.Background())
		second, _ := p.Enter(context.Background())
		first.Leave(limited(30 * time.Second))
		second.Leave(limited(5 * time.Second))
		if got := p.pause(); got != 30*time.Second {
			t.Errorf("pause is %s, want 30s", got)
		}
	})
}

func TestBucketRestartsEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Rate: 2, Burst: 10, Concurrency: 4}})
		call(t, p, limited(20*time.Second))
		start := time.Now()
		for range 4 {
			call(t, p, accepted)
		}
		// A pause of 20 s, then one token every half second: no burst of ten.
		if got, want := time.Since(start), 22*time.Second; got != want {
			t.Errorf("four calls after the pause took %s, want %s", got, want)
		}
	})
}

func TestEnterFailsWhenThereIsNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()

		p := newPacer(Options{Settings: Settings{Concurrency: 1}})
		call(t, p, limited(10*time.Second))
		start := time.Now()
		_, err := p.Enter(ctx)
		var busy *Busy
		if !errors.As(err, &busy) || busy.Why != Paused || busy.Wait != 10*time.Second {
			t.Errorf("behind a closed gate: %v, want Busy for 10s", err)
		}
		if time.Since(start) != 0 {
			t.Errorf("took %s to say so, want at once", time.Since(start))
		}

		slow := newPacer(Options{Settings: Settings{Rate: 0.1, Burst: 1, Concurrency: 1}})
		call(t, slow, accepted)
		if _, err := slow.Enter(ctx); !errors.As(err, &busy) || busy.Why != Rate {
			t.Errorf("with an empty bucket: %v, want Busy", err)
		}
		if slow.slots.Taken() != 0 {
			t.Error("a failed Enter kept its place")
		}

		full := newPacer(Options{Settings: Settings{Concurrency: 1}})
		pass, _ := full.Enter(context.Background())
		if _, err := full.Enter(ctx); !errors.As(err, &busy) {
			t.Errorf("with no place free: %v, want Busy", err)
		}
		pass.Leave(accepted)
	})
}

// A waiter that slept for the old bucket must not pass a gate that was closed in the
// meantime.
func TestNobodySlipsThroughAClosingGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Rate: 1, Burst: 1, Concurrency: 5}})
		first, _ := p.Enter(context.Background())
		waited := make(chan time.Duration, 1)
		go func() { waited <- call(t, p, accepted) }()
		synctest.Wait()
		first.Leave(limited(30 * time.Second))
		if got := <-waited; got < 30*time.Second {
			t.Errorf("a call was made %s into a pause of 30s", got)
		}
	})
}

// After a restart, the rest of a pause passes by the monotonic clock. Setting the
// clock back does not make it longer.
func TestResumeByTheMonotonicClock(t *testing.T) {
	p := newPacer(Options{Settings: Settings{Concurrency: 1}})
	p.Resume(time.Now().Round(0).Add(time.Minute), 0) // as it was written down
	if until := p.State().PausedUntil; until == until.Round(0) {
		t.Errorf("%v is a time of the wall clock alone", until)
	}
}
