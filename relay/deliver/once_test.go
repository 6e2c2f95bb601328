package deliver

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// If the clock is set forward while a call is under way, there is no second call.
func TestAClockSetForwardMakesNoSecondCall(t *testing.T) {
	for _, step := range []time.Duration{time.Minute, time.Hour, 10 * 365 * 24 * time.Hour} {
		inBubble(t, plan{}, func(r *rig) {
			slow := r.keep(shop, "s", "slow+9s@example.net")
			r.pass(time.Second)
			r.step(step)
			other := r.keep(shop, "s", "bob@example.net") // has the queue looked at
			r.pass(time.Minute)
			r.wantStates(slow, "sent")
			r.wantStates(other, "sent")
			if n := len(r.calls("slow+9s@example.net")); n != 1 {
				t.Errorf("%d calls after a step of %s", n, step)
			}
		})
	}
}

// stalling is a queue whose first claim takes long to be written.
type stalling struct {
	queue.Queue
	stalled atomic.Bool
}

func (q *stalling) Claim(ctx context.Context, r queue.ClaimRequest) ([]queue.Claim, error) {
	claims, err := q.Queue.Claim(ctx, r)
	if len(claims) > 0 && q.stalled.CompareAndSwap(false, true) {
		time.Sleep(time.Hour)
	}
	return claims, err
}

// A claim that takes long to be written is tried once, when it is written.
func TestAClaimThatStallsMakesNoSecondCall(t *testing.T) {
	slow := &stalling{}
	inBubbleStopped(t, plan{wrap: func(q queue.Queue) queue.Queue { slow.Queue = q; return slow }}, func(r *rig) {
		first := r.keep(shop, "s", "slow+9s@example.net")
		r.engine.Start()
		r.pass(time.Minute)
		second := r.keep(shop, "s", "bob@example.net") // has the queue looked at
		r.pass(2 * time.Hour)
		r.wantStates(first, "sent")
		r.wantStates(second, "sent")
		if n := len(r.calls("slow+9s@example.net")); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

// repeating is a queue that breaks its promise: it hands out its first claim again.
type repeating struct {
	queue.Queue
	first []queue.Claim
	times atomic.Int64
	over  atomic.Bool
}

func (q *repeating) Claim(ctx context.Context, r queue.ClaimRequest) ([]queue.Claim, error) {
	claims, err := q.Queue.Claim(ctx, r)
	switch {
	case q.first == nil:
		q.first = claims
	case len(claims) < r.Max && !q.over.Load():
		claims = append(claims, q.first...)
		q.times.Add(1)
	}
	return claims, err
}

// The engine does not rely on the queue alone. It does not try a recipient twice at
// the same time.
func TestAClaimThatIsRepeatedMakesNoSecondCall(t *testing.T) {
	again := &repeating{}
	inBubble(t, plan{wrap: func(q queue.Queue) queue.Queue { again.Queue = q; return again }}, func(r *rig) {
		id := r.keep(shop, "s", "slow+9s@example.net")
		r.pass(time.Second)
		r.keep(shop, "s", "slow+1s@example.net") // has the queue asked
		r.pass(7 * time.Second)
		if again.times.Load() == 0 {
			t.Fatal("the claim was not repeated")
		}
		again.over.Store(true)
		r.pass(time.Minute)
		r.wantStates(id, "sent")
		if n := len(r.calls("slow+9s@example.net")); n != 1 {
			t.Errorf("%d calls", n)
		}
		if r.log.count("level=ERROR", "is being tried") == 0 {
			t.Error("the log does not say so")
		}
	})
}

// losing is a queue whose first claims are lost before they are handed out.
type losing struct {
	queue.Queue
	lost atomic.Bool
}

func (q *losing) Claim(ctx context.Context, r queue.ClaimRequest) ([]queue.Claim, error) {
	claims, err := q.Queue.Claim(ctx, r)
	if len(claims) > 0 && q.lost.CompareAndSwap(false, true) {
		lost := make(chan struct{})
		close(lost)
		for i := range claims {
			claims[i].Lost = lost
		}
	}
	return claims, err
}

// A claim whose lease ended makes no call, and is tried when it is claimed again.
func TestAClaimThatIsLostMakesNoCall(t *testing.T) {
	q := &losing{}
	inBubble(t, plan{wrap: func(inner queue.Queue) queue.Queue { q.Queue = inner; return q }}, func(r *rig) {
		id := r.keep(shop, "s", "bob@example.net")
		r.pass(time.Minute)
		r.wantStates(id, "sent")
		if n := len(r.calls("bob@example.net")); n != 1 || !q.lost.Load() {
			t.Errorf("%d calls", n)
		}
	})
}
