package pace

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// trickle makes one call a minute, as in a quiet night.
func trickle(t *testing.T, p *Pacer, a *account, d time.Duration) {
	t.Helper()
	for range d / time.Minute {
		time.Sleep(time.Minute) // virtual
		pass, err := p.Enter(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		pass.Leave(a.call())
	}
}

// A burst after a night with one mail a minute was once taken for the end of a
// measurement of 0.15 calls a second.
func TestATrickleIsNoMeasurement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(50, 50)
		p := newPacer(Options{Settings: Settings{Concurrency: 32}})
		trickle(t, p, a, 8*time.Hour)
		offer(p, a, 20*time.Millisecond, func() {
			a.over(30 * time.Second)
			taken, _ := a.over(time.Minute)
			if used := float64(taken) / (50 * 60); used < 0.9 {
				t.Errorf("after a night of a mail a minute: %.1f %% used, the rate is %.1f", 100*used, p.State().Rate)
			}
		})
	})
}

// What was known in the evening is known in the morning.
func TestAQuietNightForgetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(60, 12)
		p := newPacer(Options{Settings: Settings{Concurrency: 32}})
		for day := range 5 {
			offer(p, a, 20*time.Millisecond, func() {
				if day == 0 {
					a.over(2 * time.Minute)
				}
				taken, _ := a.over(time.Minute)
				if used := float64(taken) / (60 * 60); used < 0.9 {
					t.Errorf("in the first minute of day %d: %.1f %% used", day, 100*used)
				}
			})
			evening := p.State().Rate
			trickle(t, p, a, 8*time.Hour)
			if morning := p.State().Rate; morning < evening*0.95 || morning > evening*1.05 {
				t.Errorf("%.1f calls/s in the evening, %.1f in the morning", evening, morning)
			}
		}
	})
}

// Bursts with hours between them are sent as fast as the account allows.
func TestBurstsAreDrained(t *testing.T) {
	for _, allowed := range []float64{2, 20, 100} {
		synctest.Test(t, func(t *testing.T) {
			a := newAccount(allowed, max(int(allowed), 2))
			p := newPacer(Options{Settings: Settings{Concurrency: 32}})
			var took time.Duration
			for range 12 {
				time.Sleep(time.Hour) // virtual
				start, mails := time.Now(), int(30*allowed)
				var mu sync.Mutex
				var wg sync.WaitGroup
				for range 50 {
					wg.Go(func() {
						for {
							mu.Lock()
							mails--
							done := mails < 0
							mu.Unlock()
							if done {
								return
							}
							for out := limited(0); out.Status == limited(0).Status; {
								pass, _ := p.Enter(context.Background())
								out = a.call()
								pass.Leave(out)
							}
						}
					})
				}
				wg.Wait()
				took = time.Since(start)
			}
			if took > 34*time.Second {
				t.Errorf("30 seconds' worth at %v calls/s took %s, the rate is %.1f", allowed, took, p.State().Rate)
			}
		})
	}
}

// A restart loses what was learnt since the last 429, but not the way up: a rate that
// was stored during a search is no ceiling.
func TestARestartDuringTheSearch(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for _, allowed := range []float64{0.5, 2, 20, 200} {
		for range 4 {
			burst := max(int(allowed*(0.2+1.8*r.Float64())), 2)
			lives := []time.Duration{seconds(60 * r.Float64()), seconds(10 * r.Float64())}
			synctest.Test(t, func(t *testing.T) {
				a := newAccount(allowed, burst)
				var until time.Time
				var found float64
				start := func() *Pacer {
					p := newPacer(Options{Settings: Settings{Concurrency: 32}, Paused: func(u time.Time, rate float64) {
						until = u
						if rate > 0 {
							found = rate
						}
					}})
					p.Resume(until, found)
					return p
				}
				for _, life := range lives {
					work(start(), a, 20*time.Millisecond, 15*time.Millisecond, func() { a.over(life) })
				}
				p := start()
				work(p, a, 20*time.Millisecond, 15*time.Millisecond, func() {
					a.over(90 * time.Second)
					taken, _ := a.over(2 * time.Minute)
					if used := float64(taken) / (allowed * 120); used < 0.85 {
						t.Errorf("%v calls/s, burst %d, restarted after %s: %.1f %% used, the rate is %.1f (seed %d)",
							allowed, burst, lives, 100*used, p.State().Rate, seed)
					}
				})
			})
		}
	}
}

// If the process ended soon after the first 429, a restart finds the 10 calls a second
// from which a search starts.
func TestAnInterimRateIsNoCeiling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(200, 200)
		p := newPacer(Options{Settings: Settings{Concurrency: 32}})
		p.Resume(time.Time{}, slowStart)
		work(p, a, 20*time.Millisecond, 5*time.Millisecond, func() {
			a.over(20 * time.Second)
			taken, _ := a.over(time.Minute)
			if used := float64(taken) / (200 * 60); used < 0.9 {
				t.Errorf("%.1f %% used, the rate is %.1f", 100*used, p.State().Rate)
			}
		})
	})
}

// The queue's worker takes several passes at once, and then claims. Nobody waits for a
// token then, although the whole rate is in use.
func TestTheRateIsFoundWithoutWaiting(t *testing.T) {
	for _, allowed := range []float64{2, 10, 50, 200} {
		synctest.Test(t, func(t *testing.T) {
			a := newAccount(allowed, int(allowed))
			p := newPacer(Options{Settings: Settings{Concurrency: 32}})
			work(p, a, 20*time.Millisecond, 15*time.Millisecond, func() {
				a.over(time.Minute)
				taken, _ := a.over(2 * time.Minute)
				if used := float64(taken) / (allowed * 120); used < 0.9 {
					t.Errorf("%v calls/s: %.1f %% used, the rate is %.1f", allowed, 100*used, p.State().Rate)
				}
			})
		})
	}
}

// work makes calls as relay/deliver does: it waits for a pass, takes more if there are
// any, and then claims the mail.
func work(p *Pacer, a *account, latency, claim time.Duration, f func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			next, err := p.Enter(ctx)
			for n := 0; err == nil && next != nil && n < 24; n++ {
				pass := next
				wg.Go(func() {
					time.Sleep(claim + rand.N(latency)) // virtual
					out := a.call()
					time.Sleep(rand.N(latency)) // virtual
					pass.Leave(out)
				})
				next = p.TryEnter()
			}
			time.Sleep(claim) // virtual
		}
	})
	f()
	cancel()
	wg.Wait()
}

// If another program keeps an account at its limit, most calls get a 429, whatever our
// rate. We still ask for what is left.
func TestAnAccountAtItsLimit(t *testing.T) {
	for _, allowed := range []float64{2, 10, 50} {
		synctest.Test(t, func(t *testing.T) {
			a := newAccount(allowed, max(int(allowed), 2))
			p := newPacer(Options{Settings: Settings{Concurrency: 32}})
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			wg.Go(func() {
				for ctx.Err() == nil {
					a.others()
					time.Sleep(rand.N(seconds(2 / allowed))) // virtual
				}
			})
			offer(p, a, 20*time.Millisecond, func() {
				a.over(3 * time.Minute)
				var worst time.Duration
				for range 3 {
					var waited time.Duration
					for taken := 0; taken == 0; waited += time.Second {
						taken, _ = a.over(time.Second)
					}
					worst = max(worst, waited)
					if taken, refused := a.over(4 * time.Minute); taken < 20 || refused > 180 {
						t.Errorf("%v calls/s at their limit: %d taken and %d refused in four minutes, the rate is %.1f",
							allowed, taken, refused, p.State().Rate)
					}
				}
				if worst > 2*time.Minute {
					t.Errorf("%v calls/s at their limit: nothing for %s", allowed, worst)
				}
			})
			cancel()
			wg.Wait()
		})
	}
}

// Two relays share one account.
func TestTwoRelaysShareAnAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const allowed = 50
		a := newAccount(allowed, allowed)
		settings := Options{Settings: Settings{Concurrency: 32}}
		one, other := &account{bucket: a.bucket}, &account{bucket: a.bucket}
		offer(New(settings), one, 20*time.Millisecond, func() {
			time.Sleep(time.Minute) // virtual
			offer(New(settings), other, 20*time.Millisecond, func() {
				time.Sleep(3 * time.Minute) // virtual
				var wg sync.WaitGroup
				var first, second int
				wg.Go(func() { first, _ = one.over(10 * time.Minute) })
				second, _ = other.over(10 * time.Minute)
				wg.Wait()
				if first < 50*600/10 || second < 50*600/10 || first+second < 50*600*8/10 {
					t.Errorf("of %d calls one relay got %d and the other %d", 50*600, first, second)
				}
			})
		})
	})
}
