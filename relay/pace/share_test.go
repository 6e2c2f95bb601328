package pace

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

// board is a ledger in memory.
type board struct {
	mu      sync.Mutex
	written []byte
	readers []*reader
}

// reader is one relay's way to it.
type reader struct {
	*board
	changed chan struct{}
	deaf    bool // it hears nothing of what others tell
	cut     bool // it does not reach the board
}

func (b *board) reader() *reader {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := &reader{board: b, changed: make(chan struct{}, 1)}
	b.readers = append(b.readers, r)
	return r
}

func (r *reader) cutOff(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
}

var errCut = errors.New("the network is down")

// Update implements Ledger. The ledger's clock is an hour ahead.
func (r *reader) Update(_ context.Context, change func(time.Time, []byte) ([]byte, bool)) error {
	time.Sleep(5 * time.Millisecond)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		return errCut
	}
	next, tell := change(time.Now().Add(time.Hour), r.written)
	r.written = next
	for _, other := range r.readers {
		if tell && other != r && !other.deaf && !other.cut {
			select {
			case other.changed <- struct{}{}:
			default:
			}
		}
	}
	return nil
}

func (r *reader) Changed() <-chan struct{} { return r.changed }

// party is several relays that share an account.
type party struct {
	t     *testing.T
	board *board
	o     Options
	all   []*guest
}

// guest is one relay.
type guest struct {
	*Pacer
	reader *reader
	leave  func()
	idle   context.CancelFunc // ends its load
	load   sync.WaitGroup
}

func newParty(t *testing.T, o Options, relays int) *party {
	p := &party{t: t, board: &board{}, o: o}
	for range relays {
		p.join()
	}
	t.Cleanup(func() {
		for _, g := range p.all {
			g.quiet()
			g.leave()
		}
	})
	return p
}

func (p *party) join() *guest {
	p.t.Helper()
	g := &guest{Pacer: newPacer(p.o), reader: p.board.reader(), idle: func() {}}
	var err error
	if g.leave, err = g.Share(context.Background(), g.reader); err != nil {
		p.t.Fatal(err)
	}
	p.all = append(p.all, g)
	return g
}

// busy has so many callers call an API again and again.
func (g *guest) busy(callers int, call func() relay.Outcome) {
	ctx, cancel := context.WithCancel(context.Background())
	before := g.idle
	g.idle = func() { before(); cancel() }
	for range callers {
		g.load.Go(func() {
			for ctx.Err() == nil {
				pass, err := g.Enter(ctx)
				var busy *Busy
				switch {
				case errors.As(err, &busy):
					select {
					case <-ctx.Done():
					case <-time.After(busy.Wait):
					}
				case err == nil:
					pass.Leave(call())
				}
			}
		})
	}
}

func (g *guest) quiet() {
	g.idle()
	g.load.Wait()
	g.idle = func() {}
}

// sum is what all relays together may call a second.
func (p *party) sum() (sum float64) {
	for _, g := range p.all {
		sum += g.State().Share
	}
	return sum
}

// api answers in a moment.
func api(a *account) func() relay.Outcome {
	return func() relay.Outcome {
		out := a.call()
		time.Sleep(20 * time.Millisecond)
		return out
	}
}

// Whatever relays want, the shares add up to the rate; who lacks nothing has what it uses
// as long as that is not more than its part, and everybody has a little.
func TestDivide(t *testing.T) {
	for range 20_000 {
		rate := 0.1 + rand.Float64()*1000
		wants := make([]want, 1+rand.IntN(12))
		for i := range wants {
			wants[i] = want{Used: rand.Float64() * rate * float64(rand.IntN(2)), Line: float64(rand.IntN(40)), Lacked: rand.IntN(2) == 0}
		}
		sum, n := 0.0, float64(len(wants))
		for i, share := range divide(rate, wants) {
			sum += share
			if share < rate*min(smallest, allSmallest/n)*(1-1e-9) {
				t.Fatalf("%d of %v at %g/s has %g", i, wants, rate, share)
			}
		}
		if sum > rate*(1+1e-6) || sum < rate*(1-1e-6) {
			t.Fatalf("the shares of %v at %g/s add up to %g", wants, rate, sum)
		}
	}
}

// Relays come, go, die, are cut off, and have more and less to do. At no time may they
// call at more than the rate together, and the account has no reason for a 429.
func TestSharesNeverExceedTheRate(t *testing.T) {
	for range 5 {
		synctest.Test(t, func(t *testing.T) {
			seed := rand.Uint64()
			r := rand.New(rand.NewPCG(seed, 0))
			const allowed = 60
			a := newAccount(allowed, 20)
			p := newParty(t, Options{Settings: Settings{Rate: allowed, Burst: 6, Concurrency: 16}}, 3)
			end := time.Now().Add(10 * time.Minute)
			for next := time.Now(); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				if sum := p.sum(); sum > allowed*(1+1e-9) {
					t.Fatalf("at %s the shares add up to %g (seed %d)", time.Until(end), sum, seed)
				}
				if time.Now().Before(next) {
					continue
				}
				next = time.Now().Add(time.Duration(r.IntN(8000)) * time.Millisecond)
				g := p.all[r.IntN(len(p.all))]
				switch r.IntN(5) {
				case 0:
					g.busy(1+r.IntN(20), api(a))
				case 1:
					g.quiet()
				case 2:
					g.reader.cutOff(!g.reader.cut)
				case 3:
					if len(p.all) < 6 {
						p.join()
					}
				case 4:
					if len(p.all) > 1 {
						g.quiet()
						g.leave()
						for i, other := range p.all {
							if other == g {
								p.all = append(p.all[:i], p.all[i+1:]...)
								break
							}
						}
					}
				}
			}
			if taken, refused := a.counts(); taken < 5000 || refused > taken/200 {
				t.Errorf("%d calls were taken and %d refused (seed %d)", taken, refused, seed)
			}
		})
	}
}

// Who has something to send has the rate within seconds, whoever had it before.
func TestSharesFollowDemand(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a := newAccount(60, 12)
			p := newParty(t, Options{Settings: Settings{Rate: 60, Burst: 6, Concurrency: 16}}, 3)
			for _, g := range p.all {
				g.reader.deaf = deaf // then they learn by looking
			}
			for _, g := range p.all {
				g.busy(8, api(a))
				a.over(3 * time.Second)
				// The others keep a hundredth each, and what is less than steady is not worth a change.
				if share := g.State().Share; share < 0.94*60 {
					t.Errorf("a relay that alone has something to send has %.1f of 60/s (deaf: %t)", share, deaf)
				}
				if taken, refused := a.over(20 * time.Second); taken < 0.95*60*20 || refused > 0 {
					t.Errorf("it makes %d of %d calls, %d more are refused (deaf: %t)", taken, 60*20, refused, deaf)
				}
				g.quiet()
			}
			for _, g := range p.all {
				g.busy(8, api(a))
			}
			a.over(5 * time.Second)
			for _, g := range p.all {
				if share := g.State().Share; share < 15 || share > 25 {
					t.Errorf("of three that have as much to send one has %.1f of 60/s (deaf: %t)", share, deaf)
				}
			}
			if taken, refused := a.over(20 * time.Second); taken < 0.95*60*20 || refused > 0 {
				t.Errorf("three make %d of %d calls, %d more are refused (deaf: %t)", taken, 60*20, refused, deaf)
			}
			// A relay that dies gives its share back when its lease ends.
			p.all[0].reader.cutOff(true)
			p.all[0].quiet()
			a.over(shareLease + time.Second)
			if taken, refused := a.over(10 * time.Second); taken < 0.95*60*10 || refused > 0 {
				t.Errorf("after the death of one, two make %d of %d calls, %d more are refused (deaf: %t)", taken, 60*10, refused, deaf)
			}
		})
	}
}

// A relay that is alone has all of the rate, from the beginning.
func TestALoneRelayHasAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(60, 6)
		p := newParty(t, Options{Settings: Settings{Rate: 60, Burst: 6, Concurrency: 16}}, 1)
		p.all[0].busy(8, api(a))
		if taken, refused := a.over(time.Minute); taken < 0.99*60*60 || refused > 0 {
			t.Errorf("it makes %d of %d calls, %d more are refused", taken, 60*60, refused)
		}
	})
}

// Without the ledger a relay calls at its share until its lease ends, and not after.
func TestCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(60, 60)
		p := newParty(t, Options{Settings: Settings{Rate: 60, Burst: 6, Concurrency: 16}}, 2)
		g := p.all[0]
		g.busy(8, api(a))
		a.over(5 * time.Second)
		g.reader.cutOff(true)
		if taken, _ := a.over(shareLease); taken < 60 || taken > 60*3 {
			t.Errorf("%d calls within the lease", taken)
		}
		if taken, _ := a.over(time.Minute); taken > 0 {
			t.Errorf("%d calls after the lease", taken)
		}
		if s := g.State(); s.Apart.IsZero() || s.Share != 0 || s.Rate != 60 {
			t.Errorf("it says %+v", s)
		}
		var busy *Busy
		if _, err := g.Enter(t.Context()); !errors.As(err, &busy) || busy.Why != Apart {
			t.Errorf("Enter fails with %v", err)
		}
		if g.TryEnter() != nil {
			t.Error("TryEnter does not fail")
		}
		g.reader.cutOff(false)
		a.over(3 * time.Second)
		if taken, _ := a.over(10 * time.Second); taken < 0.95*60*10 {
			t.Errorf("%d calls in 10 s when the ledger is back", taken)
		}
	})
}

// A 429 at one relay closes the gate of all within a second, for as long as the API
// asked; those that were in flight together count once.
func TestTheGateIsShared(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newParty(t, Options{Settings: Settings{Rate: 60, Burst: 6, Concurrency: 16}}, 3)
			for _, g := range p.all {
				g.reader.deaf = deaf
			}
			time.Sleep(1500 * time.Millisecond)
			var passes []*Pass
			for _, g := range p.all {
				pass, err := g.Enter(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				passes = append(passes, pass)
			}
			begun := time.Now()
			passes[0].Leave(limited(30 * time.Second))
			passes[1].Leave(limited(30 * time.Second))
			within := 200 * time.Millisecond
			if deaf {
				within = time.Second
			}
			time.Sleep(within)
			passes[2].Leave(limited(20 * time.Second))
			time.Sleep(time.Second)
			for i, g := range p.all {
				s := g.State()
				if late := s.PausedUntil.Sub(begun) - 30*time.Second; late.Abs() > 300*time.Millisecond {
					t.Errorf("relay %d is paused %s too long (deaf: %t)", i, late, deaf)
				}
				if g.gate.closings != 1 || g.gate.inARow != 1 {
					t.Errorf("relay %d counts %d closings, %d in a row (deaf: %t)", i, g.gate.closings, g.gate.inARow, deaf)
				}
			}
			if late := p.join().State().PausedUntil.Sub(begun) - 30*time.Second; late.Abs() > 300*time.Millisecond {
				t.Errorf("a relay that starts is paused %s too long", late)
			}
			// The next one in a row is twice as long, whoever has it.
			time.Sleep(31 * time.Second)
			pass, err := p.all[1].Enter(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			begun = time.Now()
			pass.Leave(limited(10 * time.Second))
			time.Sleep(time.Second)
			for i, g := range p.all {
				if late := g.State().PausedUntil.Sub(begun) - 20*time.Second; late.Abs() > 300*time.Millisecond {
					t.Errorf("after the second 429 relay %d is paused %s too long (deaf: %t)", i, late, deaf)
				}
			}
		})
	}
}

// When one relay finds the API down, none calls it but one at a time that probes; when
// it works again, all know. A relay that dies with the probe is replaced.
func TestTheBreakerIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, Options{Settings: Settings{Rate: 60, Burst: 6, Concurrency: 16}}, 3)
		answer := relay.Outcome{Kind: relay.Unauthorized, Status: 401, Detail: "invalid key"}
		var mu sync.Mutex
		calls, atOnce, most := 0, 0, 0
		call := func() relay.Outcome {
			mu.Lock()
			calls++
			atOnce++
			most = max(most, atOnce)
			out := answer
			mu.Unlock()
			time.Sleep(100 * time.Millisecond)
			mu.Lock()
			atOnce--
			mu.Unlock()
			return out
		}
		pass, err := p.all[0].Enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pass.Leave(answer)
		time.Sleep(time.Second)
		for i, g := range p.all {
			b := g.State().Breaker
			if !b.Open || b.Why != KeyBad || b.Last.Detail != "invalid key" || g.Down() == nil {
				t.Errorf("the breaker of relay %d is %+v", i, b)
			}
		}
		for _, g := range p.all {
			g.busy(4, call)
		}
		probes := func() (n, together int) {
			mu.Lock()
			defer mu.Unlock()
			return calls, most
		}
		time.Sleep(time.Minute)
		if n, together := probes(); n < 3 || n > 7 || together != 1 {
			t.Errorf("%d probes in a minute, %d at once", n, together)
		}
		// The relay that has the leave to probe dies.
		for _, g := range p.all[:2] {
			g.reader.cutOff(true)
			g.quiet()
		}
		p.all[2].Probe()
		before, _ := probes()
		time.Sleep(10 * time.Second)
		if now, _ := probes(); now == before {
			t.Error("nobody probes any more")
		}
		p.all[0].reader.cutOff(false)
		mu.Lock()
		answer = accepted
		mu.Unlock()
		p.all[2].Probe()
		time.Sleep(5 * time.Second)
		for _, i := range []int{0, 2} {
			if b := p.all[i].State().Breaker; b.Open {
				t.Errorf("the API works, and the breaker of relay %d is %+v", i, b)
			}
		}
	})
}

// Without a configured rate the relays find the account's together.
func TestTheRateIsFoundTogether(t *testing.T) {
	for _, allowed := range []float64{5, 40} {
		synctest.Test(t, func(t *testing.T) {
			a := newAccount(allowed, max(int(allowed/2), 4))
			p := newParty(t, Options{Settings: Settings{Concurrency: 16}}, 3)
			for _, g := range p.all {
				g.busy(8, api(a))
			}
			a.over(3 * time.Minute)
			taken, refused := a.over(5 * time.Minute)
			if used := float64(taken) / (allowed * 300); used < 0.9 || refused > taken/100+5 {
				t.Errorf("%.1f %% of %g/s used, %d refused", 100*used, allowed, refused)
			}
			for _, g := range p.all {
				s := g.State()
				if !s.Found || s.Relays != 3 {
					t.Errorf("a relay says %+v", s)
				}
			}
		})
	}
}
