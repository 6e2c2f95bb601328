package pace

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/smtp2rest/smtp2rest/relay"
)

// account is the provider's side: a token bucket that answers calls above the rate
// with 429 and a Retry-After in whole seconds.
type account struct {
	mu             sync.Mutex
	bucket         *rate.Limiter
	taken, refused int
}

func newAccount(r float64, burst int) *account {
	return &account{bucket: rate.NewLimiter(rate.Limit(r), burst)}
}

func (a *account) call() relay.Outcome {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if a.bucket.AllowN(now, 1) {
		a.taken++
		return accepted
	}
	a.refused++
	missing := (1 - a.bucket.TokensAt(now)) / float64(a.bucket.Limit())
	return limited((seconds(missing) + time.Second).Truncate(time.Second))
}

// others uses the account for somebody else.
func (a *account) others() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bucket.AllowN(time.Now(), 1)
}

// counts returns the calls that were taken and refused so far.
func (a *account) counts() (taken, refused int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.taken, a.refused
}

// over lets time pass and returns the calls that were taken and refused in it.
func (a *account) over(d time.Duration) (taken, refused int) {
	takenBefore, refusedBefore := a.counts()
	time.Sleep(d) // virtual
	taken, refused = a.counts()
	return taken - takenBefore, refused - refusedBefore
}

// offer makes calls without end, more than any account here allows, so that somebody
// is always in line. Each call takes up to twice latency, half of it before the
// account sees it. offer returns when f does.
func offer(p *Pacer, a *account, latency time.Duration, f func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	some := func() { time.Sleep(rand.N(latency)) } // virtual
	for range 2 * p.slots.Size() {
		wg.Go(func() {
			for ctx.Err() == nil {
				pass, err := p.Enter(ctx)
				if err != nil {
					continue
				}
				some()
				out := a.call()
				some()
				pass.Leave(out)
			}
		})
	}
	f()
	cancel()
	wg.Wait()
}

// Whatever rate the account allows, it is found within two minutes and then mostly
// used, at the cost of a few 429s. Accounts that allow no two calls together are left
// out: their calls come as unevenly as the network delivers them, and each 429 costs a
// second.
func TestTheRateIsFound(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 8 {
		allowed := 0.5 * math.Pow(400, r.Float64()) // 0.5 to 200
		burst := max(int(allowed*(0.1+2*r.Float64())), 2)
		latency := time.Duration(1+r.IntN(100)) * time.Millisecond
		synctest.Test(t, func(t *testing.T) {
			a := newAccount(allowed, burst)
			offer(newPacer(Options{Settings: Settings{Concurrency: 32}}), a, latency, func() {
				a.over(2 * time.Minute)
				taken, refused := a.over(6 * time.Minute)
				used, lost := float64(taken)/(allowed*360), float64(refused)/6
				if used < 0.9 || used > 1.1 || lost > 6 {
					t.Errorf("%.1f calls/s, burst %d, latency to %s: %.1f %% used, %.1f times 429 a minute (seed %d)",
						allowed, burst, latency, 100*used, lost, seed)
				}
			})
		})
	}
}

func TestARateThatChangesIsFollowed(t *testing.T) {
	for _, change := range [][2]float64{{20, 60}, {60, 20}, {5, 50}, {50, 5}} {
		synctest.Test(t, func(t *testing.T) {
			a := newAccount(change[0], int(change[0]))
			offer(newPacer(Options{Settings: Settings{Concurrency: 32}}), a, 20*time.Millisecond, func() {
				a.over(4 * time.Minute)
				a.mu.Lock()
				a.bucket.SetLimit(rate.Limit(change[1]))
				a.bucket.SetBurst(int(change[1]))
				a.mu.Unlock()
				if _, refused := a.over(3 * time.Minute); refused > 60 {
					t.Errorf("from %v to %v calls/s: %d times 429 on the way", change[0], change[1], refused)
				}
				taken, refused := a.over(5 * time.Minute)
				if used := float64(taken) / (change[1] * 300); used < 0.9 || refused > 30 {
					t.Errorf("from %v to %v calls/s: then %.1f %% used, %d times 429", change[0], change[1], 100*used, refused)
				}
			})
		})
	}
}

// Another program uses half of the account, for two minutes at a time.
func TestASharedAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const allowed = 40 // calls/s
		a := newAccount(allowed, allowed)
		offer(newPacer(Options{Settings: Settings{Concurrency: 32}}), a, 20*time.Millisecond, func() {
			a.over(4 * time.Minute)
			theirs := 0
			var wg sync.WaitGroup
			wg.Go(func() {
				for range 2 {
					for range 2 * 60 * allowed / 2 {
						a.others()
						theirs++
						time.Sleep(time.Second * 2 / allowed) // virtual
					}
					time.Sleep(2 * time.Minute) // virtual
				}
			})
			taken, refused := a.over(8 * time.Minute)
			wg.Wait()
			left := float64(allowed*8*60 - theirs)
			if used := float64(taken) / left; used < 0.75 || refused > 120 {
				t.Errorf("%.1f %% of what they left was used, %d times 429", 100*used, refused)
			}
		})
	})
}

// If the rate is configured there is nothing to find. All of it is used at once,
// without a 429.
func TestTheConfiguredRateIsUsed(t *testing.T) {
	for _, allowed := range []float64{2, 10, 50, 300} {
		synctest.Test(t, func(t *testing.T) {
			a := newAccount(allowed, max(int(allowed/2), 2))
			p := newPacer(Options{Settings: Settings{Rate: allowed, Burst: int(allowed / 10), Concurrency: 32}})
			offer(p, a, 20*time.Millisecond, func() {
				taken, refused := a.over(time.Minute)
				if used := float64(taken) / (allowed * 60); used < 0.98 || refused > 0 {
					t.Errorf("%v calls/s: %.1f %% used, %d times 429", allowed, 100*used, refused)
				}
			})
		})
	}
}

// If the configured rate is too high, or the account does not allow the burst, that
// costs a few 429s but the account is still used.
func TestAConfiguredRateThatIsTooHigh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(50, 25)
		p := newPacer(Options{Settings: Settings{Rate: 80, Burst: 80, Concurrency: 32}})
		offer(p, a, 20*time.Millisecond, func() {
			a.over(3 * time.Minute)
			taken, refused := a.over(5 * time.Minute)
			if used := float64(taken) / (50 * 300); used < 0.9 || refused > 30 {
				t.Errorf("80 calls/s configured where 50 are allowed: %.1f %% used, %d times 429", 100*used, refused)
			}
			if s := p.State(); !s.Found || s.Rate > 60 {
				t.Errorf("the state is %+v", s)
			}
			a.mu.Lock()
			a.bucket.SetLimit(1000)
			a.bucket.SetBurst(1000)
			a.mu.Unlock()
			a.over(5 * time.Minute)
			if taken, _ := a.over(time.Minute); taken < 79*60 || taken > 80*60+80 {
				t.Errorf("%d calls in a minute when all of the 80/s are allowed", taken)
			}
		})
	})
}

// If the line is too long already, nobody has to wait in it.
func TestTheEndOfALongLineIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Rate: 10, Burst: 1, Concurrency: 100}})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		var mu sync.Mutex
		var wg sync.WaitGroup
		passed, told := 0, 0
		start := time.Now()
		for range 100 {
			wg.Go(func() {
				pass, err := p.Enter(ctx)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					pass.Leave(accepted)
					passed++
				} else if time.Since(start) == 0 {
					told++
				}
			})
		}
		wg.Wait()
		// One token now, then one every tenth of a second up to the third.
		if passed < 29 || passed > 31 || passed+told < 99 {
			t.Errorf("%d passed, %d were told at once that they would not", passed, told)
		}
	})
}

// A waiter sleeps until its token is due, and one has come early.
func TestTryEnterDoesNotJumpTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Rate: 1, Burst: 1, Concurrency: 5}})
		if pass := p.TryEnter(); pass == nil {
			t.Fatal("nothing is in the way of the first call")
		} else {
			pass.Leave(accepted)
		}
		var wg sync.WaitGroup
		wg.Go(func() { call(t, p, accepted) })
		synctest.Wait()
		p.mu.Lock()
		p.bucket.SetLimit(100)
		p.mu.Unlock()
		time.Sleep(100 * time.Millisecond) // virtual
		if pass := p.TryEnter(); pass != nil {
			t.Error("a call was let in before one that waits")
			pass.Return()
		}
		wg.Wait()
		time.Sleep(time.Second) // virtual
		if pass := p.TryEnter(); pass == nil {
			t.Error("the line is over, and yet nobody may pass")
		} else {
			pass.Return()
		}
	})
}

// If the rate rises while callers are in line, it applies to the next call. Nobody has
// reserved a token at the old rate.
func TestALineMovesAtTheNewRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Rate: 0.1, Burst: 1, Concurrency: 50}})
		call(t, p, accepted)
		var wg sync.WaitGroup
		start := time.Now()
		for range 20 {
			wg.Go(func() { call(t, p, accepted) })
		}
		synctest.Wait()
		p.mu.Lock()
		p.tuner.configure(100)
		p.retune(time.Now())
		p.mu.Unlock()
		wg.Wait()
		// The first sleeps until its token would have come at the old rate.
		if took := time.Since(start); took > 11*time.Second {
			t.Errorf("20 calls took %s", took)
		}
	})
}

// A few calls after a pause, each of which waited for the empty bucket, say nothing
// about the allowed rate.
func TestTooFewCallsAreNoMeasurement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Rate: 1000, Burst: 10, Concurrency: 4}})
		for range 3 {
			for range 5 {
				call(t, p, accepted)
			}
			call(t, p, limited(time.Second))
		}
		if r := p.State().Rate; r < 400 {
			t.Errorf("three 429s left %.0f of 1000 calls/s", r)
		}
	})
}

// Several 429s in a row say only once that the rate is too high. Each after the first
// answered a single call after a long pause.
func TestOneRowOf429sIsOneCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Concurrency: 1}})
		p.Resume(time.Time{}, 100)
		for range 8 {
			call(t, p, limited(time.Second))
		}
		if r := p.State().Rate; r < 85 {
			t.Errorf("eight 429s in a row left %.0f of 100 calls/s", r)
		}
	})
}

// An account that answers 429 now and then at any rate costs the pauses, but not the
// configured rate.
func TestScattered429sAreNotTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Rate: 200, Burst: 20, Concurrency: 8}})
		for range 20 {
			for range 400 {
				call(t, p, accepted)
			}
			call(t, p, limited(time.Second))
		}
		if r := p.State().Rate; r != 200 {
			t.Errorf("a 429 each 400 calls left %.0f of 200 calls/s", r)
		}
	})
}
