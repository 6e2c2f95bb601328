// Package deliver is the worker of the queue. It claims recipients at the pace
// that the account allows, makes an attempt at each (relay/attempt), settles the
// outcome, and writes bounces for those that failed (relay/bounce). It also
// enqueues mail for relay/intake. relay/queue defines claims and settlements,
// relay/retry decides when to try again.
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

	"github.com/smtp2rest/smtp2rest/relay/archive"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/internal/slots"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/retry"
	"github.com/smtp2rest/smtp2rest/relay/warm"
)

// Options configure an Engine.
type Options struct {
	Settings
	Account  string // whose mail is sent; "" is the default account's
	Queue    queue.Queue
	Attempts *attempt.Sender
	Pace     *pace.Pacer
	Warming  *warm.Meter // nil: no domain is being warmed

	// Memory returns a new share of the memory for a mail; nil: no limit.
	Memory func() Memory

	History history.Noter  // nil: history.Nothing
	Records Records        // nil: no sender is told of what fails late
	Tally   *bounce.Tally  // nil: a new one
	Copies  *archive.Tally // nil: a new one
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil: none

	// Now is the wall clock, by which mail is due; nil: time.Now. Durations
	// within the process are measured by the monotonic clock.
	Now func() time.Time
}

const (
	// longestLook is the longest wait before the engine looks at the clock again.
	// The clock may have been set, or the machine may have slept.
	longestLook = time.Minute
	// clockSlack is how far the clock may be set back, as time synchronisation
	// does, without mail being tried early.
	clockSlack = time.Minute
)

// storagePause is how long the engine waits after an error of the storage.
const storagePause = 5 * time.Second

// Engine drains the queue between Start and Stop.
type Engine struct {
	opt            Options
	watchdog       *watchdog
	bodies         *bodies
	slots          *slots.Pool // one taken for each attempt under way
	flight         *flight
	set            atomic.Pointer[Settings]
	dueSooner      chan struct{} // signals that something is due sooner than expected
	apiChanged     chan struct{} // signals that the API may work again
	pendingBounces *pendingBounces
	sentTo         *hourly    // bounces sent to each sender in this hour
	late           sync.Mutex // held while a sender is told of a late failure
	// unread has the mails whose header a bounce is to quote but that cannot be
	// read, and since when. Only tellSenders uses it.
	unread map[string]time.Time
	latest bool // the last probe was for the latest mail; only dispatch uses it

	// The fields below are a Group's.
	secondary bool                         // another one purges, and writes the bounces
	woken     chan struct{}                // used instead of the queue's Wake; may be nil
	engineOf  func(account string) *Engine // whose settings a bounce is written by
	later     func()                       // tells all engines that a recipient is due later

	// unsettled counts attempts whose outcome could not be stored yet.
	unsettled atomic.Int64

	// refuses is set while the queue refuses new mail.
	refuses atomic.Bool

	claiming, settling trouble // see Trouble

	mu       sync.Mutex
	stopping context.CancelFunc // ends claiming; nil before Start
	cutOff   context.CancelFunc // ends what attempts wait for, except API calls
	loops    sync.WaitGroup
	attempts sync.WaitGroup
}

// New returns an Engine. It does nothing before Start.
func New(o Options) *Engine {
	if o.History == nil {
		o.History = history.Nothing{}
	}
	if o.Warming == nil {
		o.Warming = warm.New(nil)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Tally == nil {
		o.Tally = bounce.NewTally(o.Metrics)
	}
	if o.Copies == nil {
		o.Copies = archive.NewTally(o.Metrics)
	}
	e := &Engine{
		opt:            o,
		watchdog:       newWatchdog(),
		bodies:         newBodies(o),
		slots:          slots.New(o.Workers),
		flight:         newFlight(),
		dueSooner:      make(chan struct{}, 1),
		apiChanged:     make(chan struct{}, 1),
		pendingBounces: newPendingBounces(),
		sentTo:         &hourly{},

		unread: map[string]time.Time{},
	}
	e.engineOf = func(string) *Engine { return e }
	e.later = func() { signal(e.dueSooner) }
	e.set.Store(&o.Settings)
	e.register(o.Metrics)
	return e
}

// Start begins to drain the queue and returns at once. A second call does nothing.
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
	if e.secondary {
		return
	}
	e.loops.Go(func() { e.tellSenders(claiming) })
	e.loops.Go(func() { e.purge(claiming) })
}

// StopClaiming stops new calls. It does not wait for those under way.
func (e *Engine) StopClaiming() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping != nil {
		e.stopping()
	}
}

// Stop ends the engine in two steps. First, nothing more is claimed, and attempts
// under way come to their end, which api.timeout bounds. Outcomes that the storage
// refuses are tried again until ctx ends. Stop waits for all of that. It may be
// called before Start, or twice.
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

// dispatch claims what is due whenever the pacer allows a call. It gets the pass
// first and claims after, so that no claim has to wait for a call.
func (e *Engine) dispatch(ctx, trying context.Context) {
	defer e.watchdog.blocked("ended")
	for e.awaitDue(ctx) {
		passes := e.passes(ctx)
		e.watchdog.working("claiming")
		claims, err := e.claim(ctx, passes)
		for i, pass := range passes {
			if i >= len(claims) || !e.begin(claims[i]) {
				pass.Return()
				e.slots.Return()
				continue
			}
			e.attempts.Go(func() {
				defer e.slots.Return()
				e.try(ctx, trying, pass, claims[i])
			})
		}
		switch {
		case err != nil && ctx.Err() == nil:
			e.leaveStorage(ctx, err)
		case len(passes) > 0 && len(claims) == 0:
			// Nothing can be claimed while an attempt cannot be settled. NextDue
			// may also have named a time at which nothing is due after all.
			e.awaitChange(ctx, time.Second)
		}
	}
}

// passes waits until a call may be made, and takes as many more passes as it gets
// without waiting. It returns none if the API is down.
func (e *Engine) passes(ctx context.Context) []*pace.Pass {
	e.watchdog.blocked("waiting for its turn to call the API")
	if !e.slot(ctx) {
		return nil
	}
	first, err := e.opt.Pace.Enter(ctx)
	if err != nil {
		e.slots.Return()
		var busy *pace.Busy
		if errors.As(err, &busy) {
			e.watchdog.waiting("leaving the API alone", busy.Wait)
			var fresh <-chan struct{}
			if busy.Why == pace.Forbidden { // new mail is tried soon: see pace.Down
				fresh = e.wake()
			}
			await(ctx, max(busy.Wait, 0), e.apiChanged, e.watchdog.probe, fresh)
		}
		return nil
	}
	passes := []*pace.Pass{first}
	for len(passes) < e.slots.Size() {
		select {
		case <-e.slots.Free():
		default:
			return passes
		}
		pass := e.opt.Pace.TryEnter()
		if pass == nil {
			e.slots.Return()
			return passes
		}
		passes = append(passes, pass)
	}
	return passes
}

// slot waits for a free slot. It returns false if ctx ends.
func (e *Engine) slot(ctx context.Context) bool {
	select {
	case <-e.slots.Free():
		return true
	case <-ctx.Done():
		return false
	}
}

// claim claims a recipient for each pass.
//
// A probe of an API that is down is made with a mail that is not suspected to be
// the cause, or with one that is if there is no other. Every second probe takes
// the latest mail. If many senders have mail that the API cannot take, a good
// sender's turn would otherwise come after all of theirs.
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
		e.claiming.set(nil)
	}
	return claims, err
}

// request returns what may be claimed now.
func (e *Engine) request() queue.ClaimRequest {
	now := e.opt.Now()
	longest := max(e.set.Load().Schedule.Max, readPause, memoryPause)
	return queue.ClaimRequest{Account: e.opt.Account, Now: now, Limits: e.opt.Warming.Limits(now), MaxWait: longest + clockSlack}
}

// begin returns false for a recipient that is being tried already.
func (e *Engine) begin(c queue.Claim) bool {
	first := e.flight.begin(c.Token)
	if !first {
		e.opt.Log.Error("the queue handed out a recipient that is being tried already; it is not tried twice", "id", c.Mail.Message.ID, "to", c.Addr)
	}
	return first
}

// awaitDue waits until something is due. It returns false if ctx ends.
func (e *Engine) awaitDue(ctx context.Context) bool {
	for ctx.Err() == nil {
		e.watchdog.working("looking for what is due")
		r := e.request()
		now := r.Now
		due, ok, err := e.opt.Queue.NextDue(ctx, r)
		switch {
		case ctx.Err() != nil:
			return false
		case err != nil:
			e.leaveStorage(ctx, err)
		case ok && !due.After(now):
			e.bodies.setIdle(false)
			return true
		default:
			e.claiming.set(nil)
			e.bodies.setIdle(true)
			e.awaitChange(ctx, e.untilDue(now, due, ok))
		}
	}
	return false
}

// leaveStorage waits after the queue could not be read.
func (e *Engine) leaveStorage(ctx context.Context, err error) {
	e.claiming.set(err)
	e.opt.Log.Error("the queue cannot be read", "cause", err)
	e.rest(ctx, "leaving the storage alone", storagePause)
}

// untilDue returns how long to wait for the next due time or the next day of the
// warming; negative: forever.
func (e *Engine) untilDue(now, due time.Time, ok bool) time.Duration {
	if next := e.opt.Warming.Next(now); !next.IsZero() && (!ok || next.Before(due)) {
		due, ok = next, true
	}
	if !ok {
		return -1
	}
	return min(due.Sub(now), longestLook)
}

// awaitChange waits for the given time, a change of the queue, or a settlement that
// makes a recipient due again, whichever comes first.
func (e *Engine) awaitChange(ctx context.Context, wait time.Duration) {
	e.watchdog.waiting("waiting for something to do", wait)
	await(ctx, wait, e.wake(), e.dueSooner, e.watchdog.probe)
}

// wake has a value when something may have become due. The queue's own has one reader,
// which in a Group is not the Engine.
func (e *Engine) wake() <-chan struct{} {
	if e.woken != nil {
		return e.woken
	}
	return e.opt.Queue.Wake()
}

// rest waits for the whole time.
func (e *Engine) rest(ctx context.Context, why string, d time.Duration) {
	end := time.Now().Add(d)
	for left := max(d, 0); left > 0 && ctx.Err() == nil; left = time.Until(end) {
		e.watchdog.waiting(why, left)
		await(ctx, left, e.watchdog.probe, nil, nil)
	}
}

// await waits for one of three signals, each of which may be nil, or for the given
// time unless it is negative.
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

// jitter returns a random number from 0 to below 1.
func jitter() float64 { return rand.Float64() }

const (
	purgeEvery = 10 * time.Minute
	purgeStep  = 1000 // recipients that were sent
	failedStep = 100  // mails that failed, which have their content still
)

// purge removes sent mail that was listed for KeepSent, and failed mail that was kept
// for KeepFailed.
func (e *Engine) purge(ctx context.Context) {
	for ; ctx.Err() == nil; pause(ctx, purgeEvery) {
		now, set := e.opt.Now(), e.set.Load()
		_, err := inSteps(ctx, func() (int, error) { return e.opt.Queue.Purge(ctx, now.Add(-set.KeepSent), purgeStep) })
		if err != nil && ctx.Err() == nil {
			e.opt.Log.Error("sent mail cannot be removed from the queue", "cause", err)
		}
		if set.KeepFailed == 0 {
			continue
		}
		n, err := inSteps(ctx, func() (int, error) { return e.opt.Queue.PurgeFailed(ctx, now.Add(-set.KeepFailed), failedStep) })
		if err != nil && ctx.Err() == nil {
			e.opt.Log.Error("failed mail cannot be removed from the queue", "cause", err)
		}
		if n > 0 {
			e.opt.Log.Info("removed mail that failed long ago", "mails", n, "kept_for", set.KeepFailed)
		}
	}
}

// inSteps repeats a step until there is nothing left for it, and adds up what it says.
func inSteps(ctx context.Context, step func() (int, error)) (total int, err error) {
	for n := 1; n > 0 && err == nil && ctx.Err() == nil; total += n {
		n, err = step()
	}
	return total, err
}

// Settings are the options that a reload can change.
type Settings struct {
	Mapping  provider.Mapping
	Schedule retry.Schedule

	Workers  int           // concurrent attempts of queued mail; at least 1
	KeepSent time.Duration // how long sent mail stays listed

	KeepFailed time.Duration // how long failed mail is kept after its end; 0: until an operator drops it

	Bounce bounce.Options
	Bounces
}

// Bounces says when senders are told. internal/settings explains the tags.
type Bounces struct {
	PerHour int           `toml:"per_hour" default:"20" range:"0..1000000" doc:"The most bounces to one address in an hour. 0: no limit."`
	Grace   time.Duration `toml:"grace" default:"4h" range:"0s..7d" doc:"The failed recipients of a mail are reported together, when no recipient is waiting any more, but at the latest after this time."`
	LateBounces
}

// Prepare returns a function that puts s into force and looks at the queue again, in
// case something can be done now. Attempts under way end by the old settings. Due times
// that were decided before stay. Prepare never fails.
func (e *Engine) Prepare(s Settings) (apply func(), err error) { return func() { e.use(s) }, nil }

func (e *Engine) use(s Settings) {
	e.set.Store(&s)
	e.slots.Resize(s.Workers)
	e.bodies.configure(s.Mapping)
	signal(e.dueSooner)
	e.pendingBounces.checkAll()
	signal(e.apiChanged)
}
