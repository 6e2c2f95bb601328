package deliver

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// stepTime is what a step that asks the storage may take. A storage that
	// fails says so and is asked again; one that says nothing at all for so
	// long will not be helped by waiting.
	stepTime = time.Minute
	// overdue is how much later than planned a wait may end, on a machine that
	// has more to do than it can.
	overdue = 30 * time.Second
	// answerTime is how soon a loop that waits for something to do answers.
	answerTime = 2 * time.Second
)

// pulse is where the dispatching loop is, so that others can tell a loop that
// has nothing to do from one that hangs.
type pulse struct {
	probe chan struct{} // the loop takes from it wherever it waits for something to do

	mu    sync.Mutex
	step  string
	begun time.Time
	until time.Time // by when the step must be over; zero: it may last
	turn  int       // counts steps
	idle  bool      // the loop takes from probe
}

func newPulse() *pulse { return &pulse{probe: make(chan struct{}), step: "not started"} }

// works notes a step that has to end.
func (p *pulse) works(step string) { p.begin(step, stepTime, false) }

// waits notes a wait in which the loop takes from probe; negative: for ever.
func (p *pulse) waits(step string, d time.Duration) {
	if d >= 0 {
		d += overdue
	}
	p.begin(step, d, true)
}

// stands notes a wait whose end is somebody else's decision.
func (p *pulse) stands(step string) { p.begin(step, -1, false) }

func (p *pulse) begin(step string, limit time.Duration, idle bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.step, p.begun, p.idle, p.until = step, time.Now(), idle, time.Time{}
	if limit >= 0 {
		p.until = p.begun.Add(limit)
	}
	p.turn++
}

// look says which turn it is, whether the loop should answer, and what is
// wrong if its step takes too long.
func (p *pulse) look() (turn int, idle bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.until.IsZero() && time.Now().After(p.until) {
		err = p.stuck()
	}
	return p.turn, p.idle, err
}

func (p *pulse) stuck() error {
	return fmt.Errorf("the delivery loop hangs: %s since %s", p.step, p.begun.UTC().Format(time.RFC3339))
}

// alive is nil when the loop gets on. One that waits for something to do is
// asked to show it, which costs it one look at the queue.
func (p *pulse) alive(ctx context.Context) error {
	turn, idle, err := p.look()
	if err != nil || !idle {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	select {
	case p.probe <- struct{}{}:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.turn != turn {
		return nil // it got on by itself meanwhile
	}
	return p.stuck()
}

// Alive is nil while the engine makes progress, or has nothing to do and shows
// that it would. A storage or an API that fails is no reason to end a process:
// the engine waits for them, and that is progress too.
func (e *Engine) Alive(ctx context.Context) error { return e.pulse.alive(ctx) }
