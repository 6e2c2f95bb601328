package deliver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

const (
	// stepTime bounds a step that asks the storage. A storage that fails returns
	// an error and is asked again. One that returns nothing for so long hangs.
	stepTime = time.Minute
	// overdue is how late a wait may end on an overloaded machine.
	overdue = 30 * time.Second
	// answerTime is how soon an idle loop must answer a probe.
	answerTime = 2 * time.Second
)

// watchdog tells what the dispatch loop is doing, so that an idle loop can be told
// from one that hangs.
type watchdog struct {
	probe chan struct{} // an idle loop receives from it

	mu    sync.Mutex
	step  string
	begun time.Time
	until time.Time // when the step is overdue; zero: never
	turn  int       // counts steps
	idle  bool      // the loop receives from probe
}

func newWatchdog() *watchdog { return &watchdog{probe: make(chan struct{}), step: "not started"} }

// working begins a step that takes stepTime at most.
func (p *watchdog) working(step string) { p.begin(step, stepTime, false) }

// waiting begins a wait in which the loop receives from probe; negative: forever.
func (p *watchdog) waiting(step string, d time.Duration) {
	if d >= 0 {
		d += overdue
	}
	p.begin(step, d, true)
}

// blocked begins a wait that others end.
func (p *watchdog) blocked(step string) { p.begin(step, -1, false) }

func (p *watchdog) begin(step string, limit time.Duration, idle bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.step, p.begun, p.idle, p.until = step, time.Now(), idle, time.Time{}
	if limit >= 0 {
		p.until = p.begun.Add(limit)
	}
	p.turn++
}

// look returns the current step's number, whether the loop is idle, and an error
// if the step is overdue.
func (p *watchdog) look() (turn int, idle bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.until.IsZero() && time.Now().After(p.until) {
		err = p.stuck()
	}
	return p.turn, p.idle, err
}

func (p *watchdog) stuck() error {
	return fmt.Errorf("the delivery loop hangs: %s since %s", p.step, p.begun.UTC().Format(time.RFC3339))
}

// alive returns nil if the loop makes progress. It asks an idle loop to answer,
// which makes the loop look at the queue once.
func (p *watchdog) alive(ctx context.Context) error {
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
		return nil // it went on in the meantime
	}
	return p.stuck()
}

// Alive returns nil while the engine makes progress or is able to. Waiting for a
// storage or an API that fails is progress: restarting the process would not help.
func (e *Engine) Alive(ctx context.Context) error { return e.watchdog.alive(ctx) }

// trouble is a failing storage, from its first error until it works again.
type trouble struct {
	mu    sync.Mutex
	since time.Time // zero: it works
	err   error
}

// set records an error, or that the storage works.
func (t *trouble) set(err error) {
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

// Trouble returns since when and why nothing can be sent from the queue: the
// storage does not say what is due, or does not store outcomes. The error is nil
// if all is well.
func (e *Engine) Trouble() (since time.Time, err error) {
	if since, err = e.settling.state(); err != nil {
		return since, err
	}
	return e.claiming.state()
}

// register registers the metrics of the engine.
func (e *Engine) register(reg prometheus.Registerer) {
	promauto.With(reg).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "smtp2rest_delivery_unsettled_attempts",
		Help: "Attempts whose outcome could not be stored yet. While there are any, nothing is claimed, so that nothing is sent twice.",
	}, func() float64 { return float64(e.unsettled.Load()) })
}
