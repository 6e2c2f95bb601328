package pace

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

var (
	wrongKey  = relay.Outcome{Kind: relay.Unauthorized, Status: 401}
	broken    = relay.Outcome{Kind: relay.Unavailable, Status: 503}
	ambiguous = relay.Outcome{Kind: relay.Ambiguous}
	refused   = relay.Outcome{Kind: relay.Refused, Status: 400}
)

// open opens p's breaker.
func open(t *testing.T, p *Pacer) {
	t.Helper()
	for range p.opt.Failures {
		call(t, p, broken)
	}
	if !p.State().Breaker.Open {
		t.Fatal("the breaker is closed")
	}
}

// wantBusy asks for a pass that must be refused at once.
func wantBusy(t *testing.T, p *Pacer, why Why) time.Duration {
	t.Helper()
	begin := time.Now()
	pass, err := p.Enter(t.Context())
	var busy *Busy
	if !errors.As(err, &busy) || busy.Why != why {
		t.Fatalf("Enter: %v, %v; want busy because %q", pass, err, why)
	}
	if time.Since(begin) != 0 {
		t.Errorf("it took %s to say so", time.Since(begin))
	}
	if p.TryEnter() != nil {
		t.Error("TryEnter passes where Enter does not")
	}
	return busy.Wait
}

// Several failures in a row open the breaker, or one refused key.
func TestWhatOpensTheBreaker(t *testing.T) {
	tests := []struct {
		name     string
		outcomes []relay.Outcome
		open     bool
		why      Why
	}{
		{"two failures", []relay.Outcome{broken, broken}, false, ""},
		{"three in a row", []relay.Outcome{broken, down, ambiguous}, true, Down},
		{"an acceptance between", []relay.Outcome{broken, broken, accepted, broken, broken}, false, ""},
		{"a verdict on a mail between", []relay.Outcome{broken, broken, refused, broken, broken}, false, ""},
		{"a 429 between", []relay.Outcome{broken, broken, limited(0), broken, broken}, false, ""},
		{"a refused key", []relay.Outcome{accepted, wrongKey}, true, KeyBad},
		{"refusals of mails", []relay.Outcome{refused, refused, refused, refused}, false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPacer(Options{Settings: Settings{Concurrency: 1}, Failures: 3})
				for _, out := range tt.outcomes {
					call(t, p, out)
				}
				s := p.State().Breaker
				if s.Open != tt.open || s.Why != tt.why {
					t.Errorf("it is %+v", s)
				}
				if s.Open && !s.Since.Equal(time.Now()) {
					t.Errorf("open since %s", s.Since)
				}
			})
		})
	}
}

// There is one probe at a time, after gaps that double up to one minute.
func TestProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Concurrency: 8}, Failures: 3})
		open(t, p)
		want := 2 * time.Second
		for range 12 {
			if got := wantBusy(t, p, Down); got != want {
				t.Fatalf("the next probe is in %s, want %s", got, want)
			}
			time.Sleep(want - time.Millisecond)
			wantBusy(t, p, Down)
			time.Sleep(time.Millisecond)
			probe, err := p.Enter(t.Context())
			if err != nil {
				t.Fatalf("the probe: %v", err)
			}
			wantBusy(t, p, Down) // while the probe is under way
			time.Sleep(30 * time.Second)
			wantBusy(t, p, Down)
			probe.Leave(down)
			want = min(want*2, time.Minute)
		}
		time.Sleep(want)
		call(t, p, accepted)
		if p.State().Breaker.Open {
			t.Error("a probe that succeeded did not close it")
		}
		open(t, p)
		if got := wantBusy(t, p, Down); got != 2*time.Second {
			t.Errorf("the gaps begin anew with %s", got)
		}
	})
}

// A probe that was not made gives its turn to the next one.
func TestAProbeThatIsNotMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Rate: 0.1, Burst: 1, Concurrency: 1}, Failures: 1})
		open(t, p)
		time.Sleep(2 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var busy *Busy
		if _, err := p.Enter(ctx); !errors.As(err, &busy) || busy.Why != Rate {
			t.Errorf("the bucket is empty: %v", err)
		}
		pass, err := p.Enter(t.Context())
		if err != nil {
			t.Fatalf("the next: %v", err)
		}
		pass.Return()
		if pass, err = p.Enter(t.Context()); err != nil {
			t.Fatalf("after Return: %v", err)
		}
		pass.Leave(accepted)
	})
}

// What an answer to a probe does.
func TestWhatClosesTheBreaker(t *testing.T) {
	tests := []struct {
		name string
		out  relay.Outcome
		open bool
		why  Why
	}{
		{"an acceptance", accepted, false, ""},
		{"a verdict on a mail", refused, false, ""},
		{"a 429", limited(time.Minute), false, ""},
		{"another failure", ambiguous, true, Down},
		{"a refused key", wrongKey, true, KeyBad},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPacer(Options{Settings: Settings{Concurrency: 2}, Failures: 3})
				open(t, p)
				time.Sleep(2 * time.Second)
				call(t, p, tt.out)
				if s := p.State().Breaker; s.Open != tt.open || s.Why != tt.why {
					t.Errorf("it is %+v", s)
				}
				if until := p.State().PausedUntil; tt.out.RetryAfter > 0 && !until.Equal(time.Now().Add(tt.out.RetryAfter)) {
					t.Errorf("the gate is closed until %s", until)
				}
			})
		})
	}
}

// Answers to calls from before the breaker opened neither close it nor move its probe.
func TestLateAnswersChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Concurrency: 8}, Failures: 3})
		var early []*Pass
		for range 4 {
			pass, err := p.Enter(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			early = append(early, pass)
		}
		open(t, p)
		before := p.State().Breaker
		time.Sleep(time.Second)
		for i, out := range []relay.Outcome{accepted, broken, wrongKey, refused} {
			early[i].Leave(out)
			if s := p.State().Breaker; s != before {
				t.Errorf("after a late %s it is %+v, was %+v", out.Kind, s, before)
			}
		}
	})
}

// When the breaker closes, no burst passes: neither by a full bucket nor by callers
// who waited from before.
func TestClosingIsNoBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Rate: 1, Burst: 5, Concurrency: 100}, Failures: 1})
		for range 4 {
			call(t, p, accepted)
		}
		first, err := p.Enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var passed []time.Time
		enter := func(wg *sync.WaitGroup) {
			for range 10 {
				wg.Go(func() {
					pass, err := p.Enter(t.Context())
					if err != nil {
						return // the breaker was open
					}
					mu.Lock()
					passed = append(passed, time.Now())
					mu.Unlock()
					pass.Leave(accepted)
				})
			}
		}
		var wg sync.WaitGroup
		enter(&wg) // they wait for tokens of the next ten seconds
		synctest.Wait()
		first.Leave(broken)
		time.Sleep(time.Minute) // the bucket fills
		call(t, p, accepted)    // the probe
		enter(&wg)
		wg.Wait()
		for i := 1; i < len(passed); i++ {
			if gap := passed[i].Sub(passed[i-1]); gap < time.Second-time.Millisecond {
				t.Errorf("%s between two passes at a rate of 1/s", gap)
			}
		}
		if len(passed) < 10 {
			t.Errorf("%d passed", len(passed))
		}
	})
}

// Callers in line when the breaker opens are told so and leave the line.
func TestWaitersLearnThatItOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Rate: 1, Burst: 1, Concurrency: 10}, Failures: 1})
		first, err := p.Enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		errs := make(chan error, 3)
		for range 3 {
			go func() {
				_, err := p.Enter(t.Context())
				errs <- err
			}()
		}
		synctest.Wait()
		first.Leave(wrongKey)
		for range 3 {
			var busy *Busy
			if err := <-errs; !errors.As(err, &busy) || busy.Why != KeyBad {
				t.Errorf("a waiter got %v", err)
			}
		}
		if n := p.State().InFlight; n != 0 {
			t.Errorf("%d places are not free", n)
		}
	})
}

// People can read when the breaker opened and why, and when and after how long it
// closed.
func TestTheBreakerIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		p := newPacer(Options{Settings: Settings{Concurrency: 1}, Failures: 3, Log: slog.New(slog.NewTextHandler(&log, nil))})
		call(t, p, wrongKey)
		time.Sleep(time.Hour)
		call(t, p, accepted)
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "level=ERROR") || !strings.Contains(lines[0], "the API refuses the key") ||
			!strings.Contains(lines[0], "status=401") || !strings.Contains(lines[1], "after=1h0m0s") {
			t.Errorf("the log is\n%s", log.String())
		}
	})
}

// A closed gate and a rate that was found survive a restart.
func TestResume(t *testing.T) {
	tests := []struct {
		name     string
		rate     float64 // configured
		until    time.Duration
		found    float64
		wantGate time.Duration
		wantRate float64
	}{
		{"a pause and a rate", 0, 30 * time.Second, 12.5, 30 * time.Second, 12.5},
		{"a pause that is over", 0, -time.Second, 12.5, 0, 12.5},
		{"no rate", 0, 30 * time.Second, 0, 30 * time.Second, 0},
		{"a rate was configured since", 5, 30 * time.Second, 12.5, 30 * time.Second, 5},
		{"longer than any pause", 0, 1000 * time.Hour, 0, time.Hour, 0},
		{"nonsense", 0, 0, 1e12, 0, highestRate},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPacer(Options{Settings: Settings{Rate: tt.rate, Burst: 10, Concurrency: 10}})
				p.Resume(time.Now().Add(tt.until), tt.found)
				s := p.State()
				if got := max(time.Until(s.PausedUntil), 0); got != tt.wantGate || s.Rate != tt.wantRate || s.Found != (tt.wantRate != tt.rate) {
					t.Errorf("it is %+v, paused for %s", s, got)
				}
				if tt.wantGate == 0 {
					return
				}
				if p.TryEnter() != nil {
					t.Error("TryEnter passes a closed gate")
				}
				// Only at once if no rate is known: the bucket is empty.
				want := tt.wantGate
				if tt.wantRate > 0 {
					want += time.Duration(float64(time.Second) / tt.wantRate)
				}
				if got := call(t, p, accepted); got != want {
					t.Errorf("the first call was let through after %s, want %s", got, want)
				}
			})
		})
	}
}

// If a second 429 closes the gate for longer, Paused is called each time with what a
// restart needs.
func TestPausedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type told struct {
			in   time.Duration
			rate float64
		}
		var got []told
		p := newPacer(Options{
			Settings: Settings{Concurrency: 2},
			Paused: func(until time.Time, rate float64) {
				got = append(got, told{time.Until(until), rate})
			},
		})
		first, _ := p.Enter(t.Context())
		second, _ := p.Enter(t.Context())
		first.Leave(limited(10 * time.Second))
		second.Leave(limited(5 * time.Second)) // sooner than what is known
		call(t, p, limited(10*time.Second))
		if len(got) != 2 || got[0].in != 10*time.Second || got[1].in != 20*time.Second {
			t.Fatalf("told %v", got)
		}
		for _, g := range got {
			if g.rate <= 0 {
				t.Errorf("no rate is told: %v", got)
			}
		}
	})
}
