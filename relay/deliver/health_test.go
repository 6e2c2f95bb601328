package deliver

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// hanging is a storage that does not return from a call until it is released.
type hanging struct {
	queue.Queue
	open chan struct{} // nil: it answers
}

func (h *hanging) NextDue(ctx context.Context, r queue.ClaimRequest) (time.Time, bool, error) {
	if h.open != nil {
		<-h.open
	}
	return h.Queue.NextDue(ctx, r)
}

// An engine is alive if it has nothing to do, if the API is down, or if the storage
// fails. It waits for them, and restarting it would not help.
func TestAliveWhatEverIsDown(t *testing.T) {
	bad := &faulty{}
	inBubble(t, plan{wrap: func(q queue.Queue) queue.Queue { bad.Queue = q; return bad }}, func(r *rig) {
		alive := func(when string) {
			t.Helper()
			if err := r.engine.Alive(context.Background()); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		alive("at the start")
		r.pass(24 * time.Hour)
		alive("after a day without mail")
		r.keep(shop, "s", "down@example.net")
		for range 12 {
			r.pass(time.Hour)
			alive("while the API fails")
		}
		for _, call := range []string{"NextDue", "Claim"} {
			bad.set(call)
			r.keep(shop, "s", "bob@example.net")
			for range 20 {
				r.pass(7 * time.Second)
				alive("while " + call + " fails")
			}
			bad.set("")
		}
		r.pass(time.Minute)
		alive("afterwards")
	})
}

// A storage that never returns is a reason to restart the process.
func TestNotAliveWhenTheStorageHangs(t *testing.T) {
	h := &hanging{}
	inBubbleStopped(t, plan{wrap: func(q queue.Queue) queue.Queue { h.Queue = q; return h }}, func(r *rig) {
		h.open = make(chan struct{})
		r.engine.Start()
		r.pass(stepTime - time.Second)
		if err := r.engine.Alive(context.Background()); err != nil {
			t.Errorf("too early: %v", err)
		}
		r.pass(2 * time.Second)
		err := r.engine.Alive(context.Background())
		if err == nil || !strings.Contains(err.Error(), "the delivery loop hangs: looking for what is due since 2000-01-01T00:00:00Z") {
			t.Errorf("got %v", err)
		}
		close(h.open)
		r.pass(time.Second)
		if err := r.engine.Alive(context.Background()); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// A loop that claims to wait but does not answer hangs as well.
func TestNotAliveWhenNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newWatchdog()
		if err := p.alive(context.Background()); err != nil {
			t.Errorf("before the start: %v", err)
		}
		p.waiting("waiting for something to do", -1)
		if err := p.alive(context.Background()); err == nil {
			t.Error("nobody answered, and it is taken to be alive")
		}
		go func() {
			time.Sleep(answerTime / 2)
			p.working("claiming")
		}()
		if err := p.alive(context.Background()); err != nil {
			t.Errorf("it got on meanwhile: %v", err)
		}
		p.waiting("waiting", time.Minute)
		time.Sleep(time.Minute + overdue + 1)
		if err := p.alive(context.Background()); err == nil {
			t.Error("a wait that is overdue is taken to be alive")
		}
	})
}
