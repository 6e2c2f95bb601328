package deliver

import (
	"context"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// stopWithin stops the engine and returns how long that took.
func (r *rig) stopWithin(budget time.Duration) time.Duration {
	ctx, cancel := context.WithTimeout(context.Background(), budget)
	defer cancel()
	begin := time.Now()
	r.engine.Stop(ctx)
	return time.Since(begin)
}

// The engine stops in two steps in every phase of its work. What it leaves in the
// queue is right, and nothing goes on afterwards.
func TestStop(t *testing.T) {
	const budget = 30 * time.Second
	bad := &faulty{}
	tests := []struct {
		name     string
		to       string
		before   func(r *rig)
		after    time.Duration // the engine's start
		takes    time.Duration
		state    string
		attempts int
		settled  relay.Kind // of the attempt, if there is one
	}{
		{name: "nothing to do", after: time.Minute, to: "bob@example.net", state: "sent", attempts: 1, settled: relay.Accepted},
		{name: "waiting for the next try", to: "down@example.net", after: time.Second, state: "waiting", attempts: 1, settled: relay.Unavailable},
		{name: "at a closed gate", to: "ratelimited+0x600@example.net", after: time.Minute, state: "waiting", settled: relay.RateLimited},
		{name: "at an open breaker", to: "forbidden@example.net", after: time.Minute, state: "waiting", settled: relay.Unauthorized},
		{name: "in a call that ends", to: "slow+5s@example.net", after: time.Second, takes: 4 * time.Second, state: "sent", attempts: 1, settled: relay.Accepted},
		{name: "in a call that times out", to: "timeout@example.net", after: time.Second, takes: 9 * time.Second, state: "waiting", attempts: 1, settled: relay.Ambiguous},
		{name: "reading fails", to: "bob@example.net", before: func(*rig) { bad.set("NextDue") }, after: time.Second, state: "waiting"},
		{name: "claiming fails", to: "bob@example.net", before: func(*rig) { bad.set("Claim") }, after: time.Second, state: "waiting"},
		{name: "settling fails", to: "bob@example.net", before: func(*rig) { bad.set("Settle") }, after: time.Second, takes: budget, state: "sending", attempts: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bad.set("")
			inBubbleStopped(t, plan{wrap: func(q queue.Queue) queue.Queue { bad.Queue = q; return bad }}, func(r *rig) {
				id := r.keep("", "s", tt.to)
				if tt.before != nil {
					tt.before(r)
				}
				r.engine.Start()
				r.pass(tt.after)
				if took := r.stopWithin(budget); took != tt.takes {
					t.Errorf("it took %s, want %s", took, tt.takes)
				}
				bad.set("")
				calls := r.box.Stats().Calls
				r.wantStates(id, tt.state)
				rcpt := r.mail(id).Recipients[0]
				last, tried := rcpt.Last()
				if rcpt.Attempts != tt.attempts || tried && last.Outcome.Kind != tt.settled {
					t.Errorf("%d attempts, the last %s", rcpt.Attempts, last.Outcome.Kind)
				}
				r.pass(time.Hour)
				if n := r.box.Stats().Calls; n != calls {
					t.Errorf("%d calls after the end", n-calls)
				}
				if took := r.stopWithin(budget); took != 0 {
					t.Errorf("a second Stop took %s", took)
				}
			})
		})
	}
}

// A call that is under way when the budget ends goes on until the API answers or the
// call times out. If it were cut off, it would be made again after the restart.
func TestStopCutsOffNoCall(t *testing.T) {
	inBubble(t, plan{}, func(r *rig) {
		id := r.keep(shop, "s", "slow+9s@example.net")
		r.pass(time.Second)
		if took := r.stopWithin(2 * time.Second); took != 8*time.Second {
			t.Errorf("it took %s", took)
		}
		r.wantStates(id, "sent")
		r.restart()
		r.pass(10 * time.Minute)
		if s := r.box.Stats(); s.Calls != 1 || s.Duplicates != 0 {
			t.Errorf("%d calls", s.Calls)
		}
	})
}

// scarce is memory that is not available until it is granted.
type scarce struct{ given chan struct{} }

func (m scarce) Hold(ctx context.Context, _ int64) error {
	select {
	case <-m.given:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (scarce) Release() {}

// A claimed mail that still waits for memory when the shutdown begins is not tried any
// more. The next process can try it at once.
func TestStopBeginsNoCall(t *testing.T) {
	inBubbleStopped(t, plan{}, func(r *rig) {
		o := r.options(r.engine.opt.Log)
		o.Memory = func() Memory { return scarce{make(chan struct{})} }
		r.engine = New(o)
		id := r.keep(shop, "s", "bob@example.net")
		r.engine.Start()
		r.pass(time.Second)
		r.wantStates(id, "sending")
		if took := r.stopWithin(30 * time.Second); took != 0 {
			t.Errorf("it took %s", took)
		}
		r.wantStates(id, "waiting")
		if rcpt := r.mail(id).Recipients[0]; rcpt.Attempts != 0 || r.box.Stats().Calls != 0 {
			t.Errorf("%d calls, %d attempts", r.box.Stats().Calls, rcpt.Attempts)
		}
		r.restart()
		r.pass(time.Second)
		r.wantStates(id, "sent")
	})
}

func TestStopBeforeStart(t *testing.T) {
	inBubbleStopped(t, plan{}, func(r *rig) {
		if took := r.stopWithin(time.Minute); took != 0 {
			t.Errorf("it took %s", took)
		}
	})
}

// Keep works after the engine has stopped, because the listeners may stop later.
func TestKeepAfterStop(t *testing.T) {
	inBubble(t, plan{}, func(r *rig) {
		r.stopWithin(time.Minute)
		id := r.keep(shop, "s", "bob@example.net")
		r.pass(time.Hour)
		r.wantStates(id, "waiting")
		r.restart()
		r.pass(time.Second)
		r.wantStates(id, "sent")
	})
}

// If a process dies, its attempt was under way. The next process knows that the mail
// may have been sent, and sends it with the same key.
func TestAKill(t *testing.T) {
	bad := &faulty{}
	inBubble(t, plan{wrap: func(q queue.Queue) queue.Queue { bad.Queue = q; return bad }}, func(r *rig) {
		r.must(r.box.SetLatency(5 * time.Second))
		id := r.keep(shop, "s", "bob@example.net")
		r.pass(time.Second)
		r.wantStates(id, "sending")
		bad.set("Settle")
		r.down(false)
		bad.set("")
		r.build()
		r.engine.Start()
		r.pass(time.Minute)
		r.wantStates(id, "sent")
		h := r.mail(id).Recipients[0].History
		if len(h) != 2 || !h[0].Unknown {
			t.Errorf("the history is %+v", h)
		}
		if s := r.box.Stats(); s.Keys != 1 || s.Duplicates != 1 || s.Calls != 2 {
			t.Errorf("%d calls with %d keys", s.Calls, s.Keys)
		}
	})
}
