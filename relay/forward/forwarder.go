package forward

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay/internal/signedpost"
	"github.com/smtp2rest/smtp2rest/relay/retry"
)

// To is an endpoint with its secret.
type To struct {
	Endpoint
	Secret string
}

// Options are what a Forwarder is made from.
type Options struct {
	To      []To
	Store   Store
	Version string
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Dial    func(ctx context.Context, network, address string) (net.Conn, error) // for tests
}

const (
	// batch is how many items are taken at once, and atOnce how many of them are posted
	// at the same time.
	batch  = 50
	atOnce = 4
	// mostTries is how often an item is posted that the endpoint refuses.
	mostTries = 6
	// aside is how long others go before an item that was answered 5xx.
	aside = time.Minute
	// grace is how long calls that are under way have to end when the worker is to end.
	grace = 5 * time.Second
	// storeRetry is how long a store that failed is left alone.
	storeRetry = 10 * time.Second
)

// schedule is when an item that was refused, or an endpoint that is down, is tried
// again.
func schedule() retry.Schedule {
	return retry.Schedule{First: 5 * time.Second, Max: 15 * time.Minute}
}

// Forwarder posts what is stored. Outbox stores. Start and Stop bound its life.
type Forwarder struct {
	opt     Options
	outbox  *Outbox
	post    *signedpost.Client
	events  *prometheus.CounterVec
	pending *prometheus.GaugeVec

	change  sync.Mutex // for who starts and ends workers, which may take the time of a call
	running bool

	mu      sync.Mutex // never held for long: the provider's events wait for it
	workers map[string]*worker
	lost    map[string]lost // by endpoint
}

// worker posts to one endpoint.
type worker struct {
	f      *Forwarder
	to     To
	wake   chan struct{} // something came
	now    chan struct{} // an operator says so, whatever there is to wait for
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	fails int // in a row
	since time.Time
	last  error
}

// lost counts the events that an endpoint lost since the start.
type lost struct {
	n      int
	latest time.Time
}

// The results that smtp2rest_forward_events_total counts.
func results() []string { return []string{"sent", "failed", "dead", "lost"} }

// New returns a Forwarder that posts nothing yet.
func New(o Options) *Forwarder {
	f := &Forwarder{
		opt: o, workers: map[string]*worker{}, lost: map[string]lost{},
		post: signedpost.New(signedpost.Options{UserAgent: "smtp2rest/" + o.Version, Dial: o.Dial}),
		events: promauto.With(o.Metrics).NewCounterVec(prometheus.CounterOpts{
			Name: "smtp2rest_forward_events_total",
			Help: "Events that were posted to the endpoints of [[forward]], by result. failed: it is tried again; dead: the endpoint refuses it; lost: max_pending events waited.",
		}, []string{"endpoint", "result"}),
		pending: promauto.With(o.Metrics).NewGaugeVec(prometheus.GaugeOpts{
			Name: "smtp2rest_forward_pending",
			Help: "Events that wait for an endpoint of [[forward]], or are dead letters.",
		}, []string{"endpoint"}),
	}
	f.outbox = newOutbox(o.Store, f.wakeAll, f.losing)
	f.take(o.To)
	return f
}

// Outbox is where events are stored for the endpoints.
func (f *Forwarder) Outbox() *Outbox { return f.outbox }

// Start begins to post. mails is where the outbox looks up what an event is about.
func (f *Forwarder) Start(mails Mails) {
	f.change.Lock()
	defer f.change.Unlock()
	f.outbox.mails, f.running = mails, true
	for _, w := range f.workers {
		w.start()
	}
}

// Stop ends it. Calls that are under way have a moment to end. The events of those that
// do not are posted again by the next process.
func (f *Forwarder) Stop() {
	f.change.Lock()
	defer f.change.Unlock()
	f.running = false
	end(slices.Collect(maps.Values(f.workers)))
	f.post.Close()
}

// Prepare makes ready to post to other endpoints. What waits for one that is gone stays,
// until it is back or an operator drops it.
func (f *Forwarder) Prepare(to []To) (apply func(), err error) {
	return func() {
		f.change.Lock()
		defer f.change.Unlock()
		f.take(to)
	}, nil
}

// take replaces the endpoints that changed. f.change is held, but for New. A worker begins
// when the one before it has ended, so that no two post the events of a mail.
func (f *Forwarder) take(to []To) {
	var endpoints []Endpoint
	next := map[string]*worker{}
	for _, one := range to {
		endpoints = append(endpoints, one.Endpoint)
		for _, r := range results() {
			f.events.WithLabelValues(one.Name, r)
		}
		f.pending.WithLabelValues(one.Name)
		if w := f.workers[one.Name]; w != nil && reflect.DeepEqual(w.to, one) {
			next[one.Name] = w
			continue
		}
		next[one.Name] = &worker{f: f, to: one, wake: make(chan struct{}, 1), now: make(chan struct{}, 1)}
	}
	var old []*worker
	for name, w := range f.workers {
		if next[name] != w {
			old = append(old, w)
		}
		if next[name] == nil {
			f.pending.DeleteLabelValues(name)
		}
	}
	f.mu.Lock()
	f.workers = next
	f.mu.Unlock()
	f.outbox.endpoints.Store(&endpoints)
	end(old)
	if f.running {
		for _, w := range next {
			w.start()
		}
	}
}

func (f *Forwarder) signal(which func(w *worker) chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.workers {
		select {
		case which(w) <- struct{}{}:
		default:
		}
	}
}

func (f *Forwarder) wakeAll() { f.signal(func(w *worker) chan struct{} { return w.wake }) }

// Wake has what became due posted now, as after a retry, also to an endpoint that was down.
func (f *Forwarder) Wake() { f.signal(func(w *worker) chan struct{} { return w.now }) }

func (f *Forwarder) losing(endpoint string, n int) {
	f.mu.Lock()
	before := f.lost[endpoint]
	f.lost[endpoint] = lost{before.n + n, time.Now()}
	f.mu.Unlock()
	f.events.WithLabelValues(endpoint, "lost").Add(float64(n))
	if before.n == 0 {
		f.opt.Log.Error("events for an endpoint are lost, because max_pending of them wait", "forward", endpoint, "lost", n)
	}
}

// Trouble is what an operator should know of an endpoint.
type Trouble struct {
	Name  string
	Since time.Time // since when it takes nothing; zero: it does
	Err   error
	Lost  int // events, since the start

	LostAt time.Time // the latest of them
}

// Trouble returns the endpoints with any.
func (f *Forwarder) Trouble() []Trouble {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []Trouble
	for name, w := range f.workers {
		w.mu.Lock()
		t := Trouble{Name: name, Since: w.since, Err: w.last, Lost: f.lost[name].n, LostAt: f.lost[name].latest}
		w.mu.Unlock()
		if t.Err != nil || t.Lost > 0 {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(a, b Trouble) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// start begins to post, unless that has begun.
func (w *worker) start() {
	if w.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.done = cancel, make(chan struct{})
	go func() {
		defer close(w.done)
		w.run(ctx)
	}()
}

// end ends workers, all at once, and waits for them.
func end(workers []*worker) {
	for _, w := range workers {
		if w.cancel != nil {
			w.cancel()
		}
	}
	for _, w := range workers {
		if w.cancel != nil {
			<-w.done
		}
	}
}

// run posts what is due, until ctx ends.
func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		items, next, err := w.f.opt.Store.DueForwards(ctx, w.to.Name, time.Now(), batch)
		var wait time.Duration // 0: until something comes
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			w.f.opt.Log.Error("the events for an endpoint cannot be read", "forward", w.to.Name, "cause", err)
			wait = storeRetry
		case len(items) > 0:
			if wait = w.postAll(ctx, items); wait == 0 {
				continue
			}
			w.count(ctx)
			// The endpoint, or the store, is left alone: what comes meanwhile is no news.
			if !w.sleep(ctx, wait, nil) {
				return
			}
			continue
		case !next.IsZero():
			wait = max(time.Until(next), time.Millisecond)
		}
		w.count(ctx)
		if !w.sleep(ctx, wait, w.wake) {
			return
		}
	}
}

// sleep waits for a time (0: for ever), or until wake has a value or an operator says so. It
// is false when ctx has ended.
func (w *worker) sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	var timeout <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-timeout:
	case <-wake:
	case <-w.now:
	case <-ctx.Done():
		return false
	}
	return true
}

// count sets the gauge.
func (w *worker) count(ctx context.Context) {
	if counts, err := w.f.opt.Store.CountForwards(ctx); err == nil {
		c := counts[w.to.Name]
		w.f.pending.WithLabelValues(w.to.Name).Set(float64(c.Pending + c.Dead))
	}
}

// postAll posts items, a few at a time. It returns how long the endpoint is to be left
// alone. Items that were not tried stay as they are.
func (w *worker) postAll(ctx context.Context, items []Item) (pause time.Duration) {
	calls, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, cut) })()
	var settled []Settled
	var down error
	for part := range slices.Chunk(items, atOnce) {
		answers := make([]error, len(part))
		var wg sync.WaitGroup
		for i, item := range part {
			wg.Go(func() {
				answers[i] = w.f.post.Post(calls, signedpost.Target{URL: w.to.URL, Secret: w.to.Secret, Timeout: w.to.Timeout}, item.Body)
			})
		}
		wg.Wait()
		some := slices.Contains(answers, nil)
		for i, item := range part {
			if answers[i] != nil && ctx.Err() != nil {
				continue // it may have been cut off; the next process posts it
			}
			s, isDown := w.settle(item, answers[i], some, time.Now())
			settled = append(settled, s)
			if isDown {
				down = answers[i]
			}
		}
		if down != nil || ctx.Err() != nil {
			break
		}
	}
	if len(settled) == 0 {
		return 0
	}
	// What was posted is not posted again because the process ends now.
	if err := w.f.opt.Store.SettleForwards(context.WithoutCancel(ctx), settled); err != nil {
		w.f.opt.Log.Error("what was posted to an endpoint cannot be written down; it is posted again", "forward", w.to.Name, "cause", err)
		return storeRetry
	}
	return w.ended(down, time.Now())
}

// settle is what a try comes to for the item, and whether the endpoint is down: then it
// is nothing about the item. some says that the endpoint took another at the same time.
func (w *worker) settle(item Item, answer error, some bool, now time.Time) (s Settled, down bool) {
	s = Settled{Item: item}
	count := func(result string) { w.f.events.WithLabelValues(w.to.Name, result).Inc() }
	if answer == nil {
		count("sent")
		s.Done = true
		return s, false
	}
	s.Why = answer.Error()
	status, _ := errors.AsType[*signedpost.StatusError](answer)
	broken := status != nil && status.Status >= 500
	if status == nil || !aboutTheItem(status.Status) && !(broken && some) {
		if broken { // perhaps by this item: others have their turn before it
			s.Due = now.Add(aside)
		}
		count("failed")
		return s, true
	}
	s.Tries++
	if s.Tries >= mostTries || status.Status == http.StatusGone {
		s.Dead = true
		count("dead")
		w.f.opt.Log.Error("an endpoint refuses an event, which is a dead letter now", "forward", w.to.Name, "event", item.ID, "type", item.Type, "cause", answer)
		return s, false
	}
	s.Due = now.Add(schedule().Delay(s.Tries, 0))
	count("failed")
	return s, false
}

// aboutTheItem reports whether an answer is about what was posted and not about the
// endpoint: it would take another event.
func aboutTheItem(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
		http.StatusProxyAuthRequired, http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return status >= 400 && status < 500
}

// ended notes how the endpoint is, and returns how long it is left alone.
func (w *worker) ended(down error, now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if down == nil {
		if w.last != nil {
			w.f.opt.Log.Info("an endpoint takes events again", "forward", w.to.Name)
		}
		w.fails, w.since, w.last = 0, time.Time{}, nil
		return 0
	}
	if w.last == nil {
		w.since = now
		w.f.opt.Log.Warn("an endpoint takes no events; they wait", "forward", w.to.Name, "cause", down)
	}
	w.fails++
	w.last = down
	pause := schedule().Delay(w.fails, 0)
	if status, ok := errors.AsType[*signedpost.StatusError](down); ok {
		pause = max(pause, min(status.RetryAfter, schedule().Max))
	}
	return pause
}
