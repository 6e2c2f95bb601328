package deliver

import (
	"sync"
	"time"
)

// trouble is a storage that does not let the queue be worked on, from its first
// error until it does again.
type trouble struct {
	mu    sync.Mutex
	since time.Time // zero: there is none
	err   error
}

// note takes an error, or that it works.
func (t *trouble) note(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.since, t.err = time.Time{}, nil
		return
	}
	if t.err = err; t.since.IsZero() {
		t.since = time.Now()
	}
}

func (t *trouble) state() (since time.Time, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.since, t.err
}

// Trouble is why nothing can be sent from the queue although mail waits: the
// storage does not say what is due, or does not take what came of an attempt;
// and since when. The error is nil when all is well.
func (e *Engine) Trouble() (since time.Time, err error) {
	if since, err = e.settling.state(); err != nil {
		return since, err
	}
	return e.claiming.state()
}
