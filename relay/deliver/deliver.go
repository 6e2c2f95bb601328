// Package deliver is the queue's worker: it claims recipients at the pace that
// the account allows, makes an attempt at each (relay/attempt), settles what
// came of it, and tells senders what failed (relay/bounce). It also is
// relay/intake's way into the queue. What a claim and a settlement are is
// relay/queue's contract; when to try again is relay/retry's decision.
package deliver

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/internal/places"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// Options are what an Engine is made from.
type Options struct {
	Settings
	Queue    queue.Queue
	Attempts *attempt.Sender
	Pace     *pace.Pacer
	Warming  Warming // nil: no domain is being warmed; else *warm.Meter

	// Memory is asked for each mail that is read; nil: there is no bound.
	Memory func() Memory

	History history.Noter // nil: history.Nothing
	Tally   *bounce.Tally // nil: one of its own
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil: none

	// Now is the wall clock, by which mail is due; nil: time.Now. What lasts in
	// the process itself is measured by the monotonic clock.
	Now func() time.Time
}

// Warming bounds what a sender's domain sends in a day; *warm.Meter does.
type Warming interface {
	// Limits is how many more ordinary mails each domain may send today.
	Limits(now time.Time) map[string]int
	// Take reserves one, and says whether it may be sent; Sent or Return end
	// the reservation.
	Take(domain string, urgent bool, now time.Time) bool
	Sent(domain string, now time.Time)
	Return(domain string, now time.Time)
	// Mark is the durable counter of the domain's day.
	Mark(domain string, now time.Time) string
	// Next is when the next day's share begins; zero: never.
	Next(now time.Time) time.Time
}

const (
	// longestLook is how long the engine waits for what is due before it looks at
	// the clock again: that may have been set, or the machine may have slept.
	longestLook = time.Minute
	// clockSlack is by how much a clock may go back, as one does that is kept
	// right, before that has any mail tried early.
	clockSlack = time.Minute
)

// storagePause is how long the engine leaves a storage alone that failed.
const storagePause = 5 * time.Second

// Engine runs the queue. Start and Stop bound its life.
type Engine struct {
	opt    Options
	pulse  *pulse
	bodies *bodies
	places *places.Places // one taken per attempt under way
	flight *flight
	set    atomic.Pointer[Settings]
	later  chan struct{} // has a value when something is due sooner than was known
	anew   chan struct{} // has a value when an API that is left alone may work again
	untold *untold       // mails with a bounce to write
	told   *hourly       // senders, by their address
	// unread are mails whose header a bounce is to quote and that cannot be
	// read, since when; for tellSenders alone.
	unread map[string]time.Time
	latest bool // the probe before was for who came last; for dispatch alone

	// unsettled counts attempts whose outcome the storage does not take.
	unsettled atomic.Int64

	// refuses is set while the queue does not take the mail that comes.
	refuses atomic.Bool

	claiming, settling trouble // see Trouble

	mu       sync.Mutex
	stopping context.CancelFunc // ends claiming; nil before Start
	cutOff   context.CancelFunc // ends what attempts wait for besides the API
	loops    sync.WaitGroup
	attempts sync.WaitGroup
}

// New returns an Engine that does nothing yet.
func New(o Options) *Engine {
	if o.History == nil {
		o.History = history.Nothing{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Tally == nil {
		o.Tally = bounce.NewTally(o.Metrics)
	}
	e := &Engine{
		opt:    o,
		pulse:  newPulse(),
		bodies: newBodies(o),
		places: places.New(o.Workers),
		flight: newFlight(),
		later:  make(chan struct{}, 1),
		anew:   make(chan struct{}, 1),
		untold: newUntold(),
		told:   &hourly{},

		unread: map[string]time.Time{},
	}
	e.set.Store(&o.Settings)
	e.register(o.Metrics)
	return e
}

// Start begins to drain the queue. It returns at once; a second call does nothing.
func (e *Engine) Start() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping != nil {
		return
	}
	claiming, stopping := context.WithCancel(context.Background())
	trying, cutOff := context.WithCancel(context.Background())
	e.stopping, e.cutOff = stopping, cutOff
	e.loops.Go(func() { e.dispatch(claiming, trying) })
	e.loops.Go(func() { e.tellSenders(claiming) })
	e.loops.Go(func() { e.purge(claiming) })
}

// StopClaiming begins the end: no call begins any more. It does not wait.
func (e *Engine) StopClaiming() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping != nil {
		e.stopping()
	}
}

// Stop ends the engine in two stages: nothing more is claimed, and attempts that
// are under way end, which the API's time-out bounds; a storage that does not
// take what came of them is asked again and again until ctx ends. It waits for
// all of it. Stop before Start, or twice, is harmless.
func (e *Engine) Stop(ctx context.Context) {
	e.StopClaiming()
	e.mu.Lock()
	cutOff := e.cutOff
	e.mu.Unlock()
	if cutOff == nil {
		return
	}
	stop := context.AfterFunc(ctx, cutOff)
	defer stop()
	e.loops.Wait()
	e.attempts.Wait()
	cutOff()
}

// dispatch claims what is due whenever the account allows a call: the pass
// comes first, so that nothing is claimed that would then have to wait.
func (e *Engine) dispatch(ctx, trying context.Context) {
	defer e.pulse.stands("ended")
	for e.awaitDue(ctx) {
		passes := e.passes(ctx)
		e.pulse.works("claiming")
		claims, err := e.claim(ctx, passes)
		for i, pass := range passes {
			if i >= len(claims) || !e.begin(claims[i]) {
				pass.Return()
				e.places.Return()
				continue
			}
			e.attempts.Go(func() {
				defer e.places.Return()
				e.try(ctx, trying, pass, claims[i])
			})
		}
		switch {
		case err != nil && ctx.Err() == nil:
			e.leaveStorage(ctx, err)
		case len(passes) > 0 && len(claims) == 0:
			// NextDue may name a time at which there is nothing after all, and
			// nothing may be claimed while an attempt cannot be settled.
			e.awaitChange(ctx, time.Second)
		}
	}
}

// passes waits for the leave to make a call and takes what more there is
// without waiting. It returns none when the API is down.
func (e *Engine) passes(ctx context.Context) []*pace.Pass {
	e.pulse.stands("waiting for its turn to call the API")
	if !e.place(ctx) {
		return nil
	}
	first, err := e.opt.Pace.Enter(ctx)
	if err != nil {
		e.places.Return()
		var busy *pace.Busy
		if errors.As(err, &busy) {
			e.pulse.waits("leaving the API alone", busy.Wait)
			await(ctx, max(busy.Wait, 0), e.anew, e.pulse.probe, nil)
		}
		return nil
	}
	passes := []*pace.Pass{first}
	for len(passes) < e.places.Size() {
		select {
		case <-e.places.Free():
		default:
			return passes
		}
		pass := e.opt.Pace.TryEnter()
		if pass == nil {
			e.places.Return()
			return passes
		}
		passes = append(passes, pass)
	}
	return passes
}

func (e *Engine) place(ctx context.Context) bool {
	select {
	case <-e.places.Free():
		return true
	case <-ctx.Done():
		return false
	}
}

// claim claims a recipient for each pass. A probe is made with a mail that is
// not suspect, or with one that is when there is nothing else. Every other probe
// is for the sender whose mail came last: where a great many senders have mail
// that the API cannot take, a good one's turn would come after all of theirs.
func (e *Engine) claim(ctx context.Context, passes []*pace.Pass) ([]queue.Claim, error) {
	if len(passes) == 0 || e.unsettled.Load() > 0 {
		return nil, nil
	}
	r := e.request()
	r.Max = len(passes)
	if passes[0].Probe() {
		r.PassOver = e.opt.Pace.Suspects()
		r.Latest = !e.latest
		e.latest = r.Latest
	}
	claims, err := e.opt.Queue.Claim(ctx, r)
	if err == nil && len(claims) == 0 && len(r.PassOver) > 0 {
		r.PassOver = nil
		claims, err = e.opt.Queue.Claim(ctx, r)
	}
	if err == nil {
		e.claiming.note(nil)
	}
	return claims, err
}

// request is what may be claimed now.
func (e *Engine) request() queue.ClaimRequest {
	now := e.opt.Now()
	longest := max(e.set.Load().Schedule.Max, readPause, memoryPause)
	return queue.ClaimRequest{Now: now, Limits: e.limits(now), MaxWait: longest + clockSlack}
}

// begin is false for a recipient that is being tried already.
func (e *Engine) begin(c queue.Claim) bool {
	first := e.flight.begin(c.Token)
	if !first {
		e.opt.Log.Error("the queue handed out a recipient that is being tried; it is not tried twice", "id", c.Mail.Message.ID, "to", c.Addr)
	}
	return first
}

func (e *Engine) limits(now time.Time) map[string]int {
	if e.opt.Warming == nil {
		return nil
	}
	return e.opt.Warming.Limits(now)
}

// awaitDue waits until something is due. It is false when ctx ended.
func (e *Engine) awaitDue(ctx context.Context) bool {
	for ctx.Err() == nil {
		e.pulse.works("looking for what is due")
		r := e.request()
		now := r.Now
		due, ok, err := e.opt.Queue.NextDue(ctx, r)
		switch {
		case ctx.Err() != nil:
			return false
		case err != nil:
			e.leaveStorage(ctx, err)
		case ok && !due.After(now):
			e.bodies.rest(false)
			return true
		default:
			e.claiming.note(nil)
			e.bodies.rest(true)
			e.awaitChange(ctx, e.untilDue(now, due, ok))
		}
	}
	return false
}

// leaveStorage is for when it does not say what is due.
func (e *Engine) leaveStorage(ctx context.Context, err error) {
	e.claiming.note(err)
	e.opt.Log.Error("the queue cannot be read", "cause", err)
	e.rest(ctx, "leaving the storage alone", storagePause)
}

// untilDue is how long to wait for what becomes due by itself; negative: for ever.
func (e *Engine) untilDue(now, due time.Time, ok bool) time.Duration {
	if e.opt.Warming != nil {
		if next := e.opt.Warming.Next(now); !next.IsZero() && (!ok || next.Before(due)) {
			due, ok = next, true
		}
	}
	if !ok {
		return -1
	}
	return min(due.Sub(now), longestLook)
}

// awaitChange waits for the time to pass, for the queue to tell of a change, or
// for a settlement, by which a recipient is due again.
func (e *Engine) awaitChange(ctx context.Context, wait time.Duration) {
	e.pulse.waits("waiting for something to do", wait)
	await(ctx, wait, e.opt.Queue.Wake(), e.later, e.pulse.probe)
}

// rest waits for the time to pass, whatever comes.
func (e *Engine) rest(ctx context.Context, why string, d time.Duration) {
	end := time.Now().Add(d)
	for left := max(d, 0); left > 0 && ctx.Err() == nil; left = time.Until(end) {
		e.pulse.waits(why, left)
		await(ctx, left, e.pulse.probe, nil, nil)
	}
}

// await waits for one of three signals, any of which may be nil, or for the
// time to pass if it is not negative.
func await(ctx context.Context, wait time.Duration, signal, other, third <-chan struct{}) {
	var after <-chan time.Time
	if wait >= 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		after = timer.C
	}
	select {
	case <-ctx.Done():
	case <-signal:
	case <-other:
	case <-third:
	case <-after:
	}
}

func pause(ctx context.Context, d time.Duration) { await(ctx, max(d, 0), nil, nil, nil) }

// jitter is from 0 up to but not including 1.
func jitter() float64 { return rand.Float64() }
