package suppress

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay"
)

// What a List does where its Options say nothing.
const (
	tendEvery = 10 * time.Minute
)

// Options are what a List is made from.
type Options struct {
	Settings
	Store   Store                 // nil: a Memory of its own
	Log     *slog.Logger          // nil: none
	Metrics prometheus.Registerer // may be nil
}

// Settings can be changed by Prepare. internal/settings explains the tags.
type Settings struct {
	Expire time.Duration `toml:"expire" default:"30d" range:"1m..3650d" doc:"How long an address stays suppressed after the provider said so. Then the API is asked again, because the provider's list is the one that counts. What an operator adds stays."`
	// Forget is how long the ids of events and what was removed are remembered. An
	// event that is older is not taken. It depends on how long the history is kept.
	Forget time.Duration `default:"30d"`
	// Unsubscribed suppresses addresses that are otherwise only marked.
	Unsubscribed bool
}

// List is who must not be sent to. It is safe for concurrent use.
type List struct {
	opt     Options
	set     atomic.Pointer[Settings]
	index   *index
	metrics *metrics

	stop  context.CancelFunc
	tends sync.WaitGroup
}

// New returns a List. With a Store it knows nothing before Start.
func New(o Options) *List {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l := &List{opt: o, index: newIndex()}
	l.use(o.Settings)
	l.metrics = newMetrics(o.Metrics, l.index)
	if o.Store == nil {
		m := NewMemory(0)
		m.watch(l.index)
		l.opt.Store = m
	}
	return l
}

// Prepare makes ready to go on with other settings. What was learnt before
// expires when it would have. It never fails.
func (l *List) Prepare(s Settings) (apply func(), err error) { return func() { l.use(s) }, nil }

func (l *List) use(s Settings) {
	l.set.Store(&s)
}

// Start reads what the Store has, and from then on sees to it that what has
// had its time is removed, until Stop. ctx bounds the start, not the life.
func (l *List) Start(ctx context.Context) error {
	if err := l.opt.Store.Attach(ctx, l.index); err != nil {
		return err
	}
	life, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.tends.Go(func() { l.tend(life) })
	return nil
}

// Stop ends what Start began. Stop without Start, or twice, is harmless.
func (l *List) Stop() {
	if l.stop != nil {
		l.stop()
		l.tends.Wait()
	}
}

func (l *List) tend(ctx context.Context) {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		for more := true; more; {
			now := time.Now()
			var err error
			more, err = l.opt.Store.Tend(ctx, now, now.Add(-l.set.Load().Forget))
			if err != nil && ctx.Err() == nil {
				l.opt.Log.Error("suppressions that have expired cannot be removed; they count no more all the same", "cause", err)
			}
			more = more && err == nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Lookup returns the entry of an address that must not be sent to now, in
// short: without what only a person asks for.
func (l *List) Lookup(address string, now time.Time) (Entry, bool) {
	e, ok := l.index.find(Normalise(address))
	if !ok || e.Expired(now) || !l.suppresses(e) {
		return Entry{}, false
	}
	return e, true
}

// Refused counts a recipient that was refused for an entry.
func (l *List) Refused(e Entry) { l.metrics.refused[e.Reason.valid()].Inc() }

// suppresses tells an entry from a mark.
func (l *List) suppresses(e Entry) bool {
	return !e.mark() || l.set.Load().Unsubscribed
}

// Learn remembers what the API said of an address at now. It never waits.
func (l *List) Learn(address string, r Reason, detail string, now time.Time) {
	e := Entry{Address: Normalise(address), Reason: r, Source: API, Since: now, Expires: now.Add(l.set.Load().Expire), Detail: detail}
	l.index.learn(e, now)
	l.opt.Store.LearnSoon(e)
}

// forgetMargin is how much earlier an event is too old than its id is forgotten:
// the provider's clock is not ours.
const forgetMargin = time.Hour

// Take takes an event that the provider sent, with what it teaches, and returns
// when both are durable. The same event again changes nothing, and is not fresh;
// nor does one that is so old that its id may be forgotten, since whoever saw it
// once could send it again. How old it is stands in what the provider signed.
func (l *List) Take(ctx context.Context, e relay.Event) (fresh bool, err error) {
	if age := e.Received.Sub(made(e)); age > l.set.Load().Forget-forgetMargin {
		l.opt.Log.Info("an event of the provider is too old to tell whether it came before; it changes nothing", "event", e.ID, "type", e.Type, "made", made(e))
		return false, nil
	}
	address := Normalise(e.Email)
	return l.opt.Store.TakeEvent(ctx, e, address, l.taught(e, address))
}

// taught is the entry that an event makes, or nil.
func (l *List) taught(e relay.Event, address string) *Entry {
	learnt := Entry{
		Address: address, Source: Webhook, Since: happened(e), Event: e.ID,
		// From when the event was made, so that one that comes again, or late, lasts
		// no longer than one that came in time.
		Expires: made(e).Add(l.set.Load().Expire),
	}
	switch e.Type {
	case relay.EventHardBounce:
		learnt.Reason = HardBounce
		learnt.Detail = joined(e.BounceCode, e.BounceReason)
	case relay.EventComplaint:
		learnt.Reason = Complaint
	case relay.EventUnsubscribe:
		learnt.Reason = Unsubscribe
	default:
		return nil
	}
	if address == "" || learnt.Expired(e.Received) {
		return nil
	}
	return &learnt
}

// made is when the provider made an event, or when we heard of it if it does not
// say or names a time in our future.
func made(e relay.Event) time.Time {
	at := e.Created
	if at.IsZero() {
		at = e.Occurred
	}
	if at.IsZero() || at.After(e.Received) {
		return e.Received
	}
	return at
}

// happened is when what an event tells of was: as the provider says, but not
// in our future.
func happened(e relay.Event) time.Time {
	at := e.Occurred
	if at.IsZero() {
		at = e.Created
	}
	if at.IsZero() || at.After(e.Received) {
		at = e.Received
	}
	return at
}

func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + " " + b
}

type metrics struct {
	refused [reasonCount]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, x *index) *metrics {
	auto := promauto.With(reg)
	refused := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "smtp2rest_suppression_refusals_total",
		Help: "Recipients that were refused because they are known to be suppressed, by the reason.",
	}, []string{"reason"})
	m := &metrics{}
	for i := range m.refused { // 0 is for what this version does not know
		m.refused[i] = refused.WithLabelValues(Reason(i).String())
	}
	for _, r := range Reasons() {
		for _, s := range Sources() {
			auto.NewGaugeFunc(prometheus.GaugeOpts{
				Name:        "smtp2rest_suppression_entries",
				Help:        "Addresses on the list, by reason and by who told us. Unsubscribed ones are only marked, unless webhook.suppress_unsubscribed is on.",
				ConstLabels: prometheus.Labels{"reason": r.String(), "source": s.String()},
			}, func() float64 { return float64(x.count(r, s)) })
		}
	}
	return m
}
