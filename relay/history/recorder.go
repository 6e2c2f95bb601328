package history

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Options are what a Recorder is made from.
type Options struct {
	Bounds
	Store Store
	// Before, if it is set, is given facts in their order, before they are written. They
	// are not written while it fails, and given to it again.
	Before  func(ctx context.Context, facts []Fact) error
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil: none

	// For tests; zero takes the default.
	every  time.Duration // how long a fact may wait for company
	retry  time.Duration // how long a store that failed is left alone
	most   int           // weight of the facts that may wait
	atOnce int           // weight of the facts of one write
	pruned time.Duration // between two looks for what is too old
}

const (
	defaultEvery  = 500 * time.Millisecond
	defaultRetry  = 5 * time.Second
	defaultPruned = 5 * time.Minute
	// mostWaiting bounds memory while the disk is slow: some 30 MB of facts.
	mostWaiting = 50_000
	// enough facts are written without waiting for more.
	enough = 5_000
	// atOnce bounds one write, which others that write must wait for.
	atOnce = 3_000
	// pruneStep is how many mails are removed at once.
	pruneStep = 200
)

// Recorder writes facts down, many at a time, without those who note them
// waiting. What cannot be written for long, or comes faster than it can be, is
// lost and counted: mail goes on. Start and Stop bound its life.
type Recorder struct {
	opt     Options
	bounds  atomic.Pointer[Bounds]
	metrics *metrics

	mu      sync.Mutex
	facts   []Fact // not written yet, oldest first; only the loop removes any
	waiting int    // their weight
	stopped bool

	some  chan struct{} // has a value when there are facts
	many  chan struct{} // has a value when there are enough
	flush chan chan error
	stop  chan struct{}
	loops sync.WaitGroup
}

var _ Noter = (*Recorder)(nil)

// NewRecorder returns a Recorder that takes facts and writes none yet.
func NewRecorder(o Options) *Recorder {
	setDefault(&o.every, defaultEvery)
	setDefault(&o.retry, defaultRetry)
	setDefault(&o.pruned, defaultPruned)
	setDefault(&o.most, mostWaiting)
	setDefault(&o.atOnce, atOnce)
	r := &Recorder{
		opt:     o,
		metrics: newMetrics(o.Metrics),
		some:    make(chan struct{}, 1),
		many:    make(chan struct{}, 1),
		flush:   make(chan chan error),
		stop:    make(chan struct{}),
	}
	r.bounds.Store(&o.Bounds)
	return r
}

// Bounds are the Options that Prepare can change. internal/settings explains the tags.
type Bounds struct {
	Keep    time.Duration `toml:"keep" default:"30d" range:"0s..3660d" doc:"How long the record of a mail is kept after it came. \"0s\" keeps none, and removes those that exist."`
	MaxSize int64         `toml:"max_size" default:"1GiB" range:"0..1048576GiB" doc:"The most that all records may take on the disk. The oldest are removed first. 0: no limit."`
}

// Prepare makes ready to keep more or less. What is too old by it goes when the
// next look is due. It never fails.
func (r *Recorder) Prepare(b Bounds) (apply func(), err error) {
	return func() { r.bounds.Store(&b) }, nil
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Note implements Noter.
func (r *Recorder) Note(f Fact) {
	if r.bounds.Load().Keep == 0 {
		return
	}
	w := f.weight()
	r.mu.Lock()
	if r.stopped || r.waiting+w > r.opt.most {
		r.mu.Unlock()
		r.metrics.lost.Add(float64(w))
		return
	}
	r.facts = append(r.facts, f)
	r.waiting += w
	waiting := r.waiting
	r.mu.Unlock()
	r.metrics.facts.Inc()
	signal(r.some)
	if waiting >= enough {
		signal(r.many)
	}
}

// signal leaves a value for who waits, if there is none yet.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Start begins to write and to prune. It returns at once.
func (r *Recorder) Start() {
	r.loops.Go(r.write)
	r.loops.Go(r.prune)
}

// Stop writes what was noted, if the store takes it, and ends. What is noted
// later is lost.
func (r *Recorder) Stop() {
	r.mu.Lock()
	again := r.stopped
	r.stopped = true
	r.mu.Unlock()
	if !again {
		close(r.stop)
	}
	r.loops.Wait()
}

// ErrStopped: the recorder was stopped.
var ErrStopped = errors.New("the history is not written any more")

// Flush returns when everything that was noted before it is written, or cannot
// be.
func (r *Recorder) Flush(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case r.flush <- done:
	case <-r.stop:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write is the loop that writes.
func (r *Recorder) write() {
	wait := r.opt.every
	for {
		var asked chan error
		select {
		case <-r.some:
			asked = r.company(wait)
		case asked = <-r.flush:
		case <-r.stop:
			if err := r.writeAll(); err != nil {
				r.metrics.lost.Add(float64(r.waiting)) // nothing is noted any more
			}
			return
		}
		err := r.writeAll()
		if asked != nil {
			asked <- err
		}
		wait = r.opt.every
		if err != nil {
			wait = r.opt.retry
			signal(r.some)
		}
	}
}

// company waits for more facts, until there are enough of them or somebody
// asks for what there is.
func (r *Recorder) company(wait time.Duration) (asked chan error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	many := r.many
	if wait != r.opt.every {
		many = nil // the store failed and is left alone
	}
	select {
	case asked = <-r.flush:
	case <-timer.C:
	case <-many:
	case <-r.stop:
	}
	return asked
}

// writeAll writes the facts that there are. What the store does not take stays
// for the next time, and counts against what may wait.
func (r *Recorder) writeAll() error {
	r.mu.Lock()
	left := len(r.facts)
	r.mu.Unlock()
	for left > 0 {
		r.mu.Lock()
		n, weight := portion(r.facts[:left], r.opt.atOnce)
		facts := r.facts[:n]
		r.mu.Unlock()
		if err := r.writeFacts(context.Background(), facts); err != nil {
			r.metrics.failed.Inc()
			r.opt.Log.Error("the history cannot be written", "facts", left, "cause", err)
			return err
		}
		r.mu.Lock()
		clear(facts) // the array may live on under what was noted since
		r.facts = r.facts[n:]
		r.waiting -= weight
		r.mu.Unlock()
		left -= n
	}
	return nil
}

func (r *Recorder) writeFacts(ctx context.Context, facts []Fact) error {
	if r.opt.Before != nil {
		if err := r.opt.Before(ctx, facts); err != nil {
			return err
		}
	}
	return r.opt.Store.Write(ctx, Changes(facts...))
}

// portion is how many facts fit into one write, at least one, and their weight.
func portion(facts []Fact, most int) (n, weight int) {
	for n < len(facts) {
		w := facts[n].weight()
		if n > 0 && weight+w > most {
			break
		}
		weight += w
		n++
	}
	return n, weight
}

// prune removes what is too old, or too much, in steps between which others
// write. The store's room is looked at only after what is too old is gone.
func (r *Recorder) prune() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for {
		more, err := r.pruneOnce(ctx)
		if err != nil {
			r.opt.Log.Error("the history cannot be pruned", "cause", err)
		}
		wait := r.opt.pruned
		if more {
			wait = pruneGap
		}
		if !r.rest(wait) {
			return
		}
	}
}

// pruneGap is left between two steps, so that pruning much is no load.
const pruneGap = 20 * time.Millisecond

func (r *Recorder) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.stop:
		return false
	}
}

// pruneOnce makes one step and says whether there may be more to remove.
func (r *Recorder) pruneOnce(ctx context.Context) (more bool, err error) {
	// A record of mail that still waits is kept: it is not complete.
	n, err := r.opt.Store.Prune(ctx, time.Now().Add(-r.bounds.Load().Keep), pruneStep, r.bounds.Load().Keep == 0)
	r.metrics.pruned.Add(float64(n))
	if err != nil || n == pruneStep {
		return err == nil, err
	}
	bytes, err := r.opt.Store.Bytes(ctx)
	if err != nil {
		return false, err
	}
	r.metrics.bytes.Set(float64(bytes))
	if r.bounds.Load().MaxSize == 0 || bytes <= r.bounds.Load().MaxSize {
		return false, nil
	}
	// The disk comes first: when the room is spent, even what waits may go.
	n, err = r.opt.Store.Prune(ctx, time.Now(), pruneStep, true)
	r.metrics.pruned.Add(float64(n))
	return n > 0, err
}

// Direct writes facts where no daemon runs that would: many at a time, because
// each write waits for the disk, and a person for all of them.
type Direct struct {
	Store Store
	Log   *slog.Logger

	mu    sync.Mutex
	facts []Fact
}

// Note implements Noter.
func (d *Direct) Note(f Fact) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.facts = append(d.facts, f)
	if len(d.facts) >= atOnce {
		d.write()
	}
}

// Flush writes what waits for company.
func (d *Direct) Flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.facts) > 0 {
		d.write()
	}
}

func (d *Direct) write() {
	if err := d.Store.Write(context.Background(), Changes(d.facts...)); err != nil {
		d.Log.Error("the history cannot be written", "cause", err)
	}
	d.facts = nil
}

type metrics struct {
	facts, lost, failed, pruned prometheus.Counter
	bytes                       prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	with := promauto.With(reg)
	return &metrics{
		facts: with.NewCounter(prometheus.CounterOpts{
			Name: "smtp2rest_history_facts_total",
			Help: "Facts about mail that were noted for the history.",
		}),
		lost: with.NewCounter(prometheus.CounterOpts{
			Name: "smtp2rest_history_lost_total",
			Help: "Facts that the history does not have because they came faster than they could be written. No mail is lost with them.",
		}),
		failed: with.NewCounter(prometheus.CounterOpts{
			Name: "smtp2rest_history_write_errors_total",
			Help: "Times the history could not be written; it is tried again while memory allows.",
		}),
		pruned: with.NewCounter(prometheus.CounterOpts{
			Name: "smtp2rest_history_pruned_mails_total",
			Help: "Mails removed from the history because of their age or because of its size.",
		}),
		bytes: with.NewGauge(prometheus.GaugeOpts{
			Name: "smtp2rest_history_bytes",
			Help: "How much room the history takes on the disk, as of the last look, once a minute.",
		}),
	}
}
