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

// The defaults of Options.
const (
	tendEvery = 10 * time.Minute
)

// Options are the options of New.
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

// List is the list of suppressed addresses. It is safe for concurrent use.
type List struct {
	opt     Options
	set     atomic.Pointer[Settings]
	index   *index
	metrics *metrics

	stop  context.CancelFunc
	tends sync.WaitGroup
}

// New returns a List. With a Store it is empty until Start.
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

// Prepare makes ready to apply other settings. Entries keep the expiry that they have.
// It never fails.
func (l *List) Prepare(s Settings) (apply func(), err error) { return func() { l.use(s) }, nil }

func (l *List) use(s Settings) {
	l.set.Store(&s)
}

// Start reads the Store, and removes expired entries from then on, until Stop. ctx
// bounds only Start itself.
func (l *List) Start(ctx context.Context) error {
	if err := l.opt.Store.Attach(ctx, l.index); err != nil {
		return err
	}
	life, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.tends.Go(func() { l.tend(life) })
	return nil
}

// Stop ends the work of Start. Stop without Start, or twice, is harmless.
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
				l.opt.Log.Error("expired suppressions cannot be removed from the store; they are ignored", "cause", err)
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

// Lookup returns the entry of a suppressed address, without Event, Detail and Note.
func (l *List) Lookup(address string, now time.Time) (Entry, bool) {
	e, ok := l.index.find(Normalise(address))
	if !ok || e.Expired(now) || !l.suppresses(e) {
		return Entry{}, false
	}
	return e, true
}

// Refused counts a recipient that was refused because of an entry.
func (l *List) Refused(e Entry) { l.metrics.refused[e.Reason.valid()].Inc() }

// suppresses reports whether an entry is more than a mark.
func (l *List) suppresses(e Entry) bool {
	return !e.mark() || l.set.Load().Unsubscribed
}

// Learn remembers what the API said about an address at now. It never waits.
func (l *List) Learn(address string, r Reason, detail string, now time.Time) {
	e := Entry{Address: Normalise(address), Reason: r, Source: API, Since: now, Expires: now.Add(l.set.Load().Expire), Detail: detail}
	l.index.learn(e, now)
	l.opt.Store.LearnSoon(e)
}

// forgetMargin is how long the id of an event is remembered after the event has become
// too old, because the provider's clock may differ from ours.
const forgetMargin = time.Hour

// Take stores an event of the provider with the entry that it causes, and returns when
// both are durable. The same event again changes nothing and is not fresh. Nor does an
// event change anything when it is so old that its id may be forgotten: somebody who saw
// it could send it again. The provider has signed its age.
func (l *List) Take(ctx context.Context, e relay.Event) (fresh bool, err error) {
	if age := e.Received.Sub(made(e)); age > l.set.Load().Forget-forgetMargin {
		l.opt.Log.Info("an event of the provider is too old to suppress anybody: it may have come before", "event", e.ID, "type", e.Type, "made", made(e))
		return false, nil
	}
	address := Normalise(e.Email)
	return l.opt.Store.TakeEvent(ctx, e, address, l.taught(e, address))
}

// taught returns the entry that an event causes, or nil.
func (l *List) taught(e relay.Event, address string) *Entry {
	learnt := Entry{
		Address: address, Source: Webhook, Since: happened(e), Event: e.ID,
		// From the time at which the event was made, so that a late one lasts no longer.
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

// made returns when the provider made an event, or when it came if that time is missing
// or in the future.
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

// happened returns when the bounce, complaint or the like happened, as the provider
// says, but no time in the future.
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
