package budget

import (
	"sync"
	"time"
)

const (
	// restLoad is how much mail must hold at once for the memory of the process to be
	// worth giving back afterwards.
	restLoad = 4 << 20
	// restAfter is for how long mail must hold less before the load counts as over.
	restAfter = 10 * time.Second
)

// A rest finds out when a load is over. While there is none it has no timer, so that
// an idle process is not woken.
type rest struct {
	over  func()
	timer *time.Timer // nil while there is no load
	most  int64       // that mail held since the timer was set
	calls sync.WaitGroup
}

// AtRest has f called, on a goroutine of its own, each time that a load is over: once
// mail has held a lot of memory, and then little for some seconds. stop ends that, and
// waits for a call that is under way.
func (b *Budget) AtRest(f func()) (stop func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rest.over = f
	return func() {
		b.mu.Lock()
		b.rest.over = nil
		if b.rest.timer != nil {
			b.rest.timer.Stop()
		}
		b.mu.Unlock()
		b.rest.calls.Wait()
	}
}

// watch is called whenever it changes how much mail holds.
func (b *Budget) watch() {
	r := &b.rest
	r.most = max(r.most, b.ofMail())
	if r.over != nil && r.timer == nil && r.most >= restLoad {
		r.timer = time.AfterFunc(restAfter, b.look)
	}
}

// look ends the load if mail held little since it last looked.
func (b *Budget) look() {
	b.mu.Lock()
	r := &b.rest
	over := r.over
	loaded := r.most >= restLoad
	r.most = b.ofMail()
	switch {
	case over == nil:
	case loaded:
		r.timer.Reset(restAfter)
		over = nil
	default:
		r.timer = nil
		r.calls.Add(1)
		defer r.calls.Done()
	}
	b.mu.Unlock()
	if over != nil {
		over()
	}
}
