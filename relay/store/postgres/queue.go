package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/jackc/pgx/v5"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// The parts of the counts. What runs at the same time has one each, so that no
// transaction waits for another's.
const (
	partEnqueue = iota
	partLarge
	partSettle
	partOperator
	partLease
)

// Queue is a queue that several relays share. Each is an owner, with a lease.
type Queue struct {
	d       *DB
	metrics queueMetrics
	bounds  atomic.Pointer[queue.Options]
	wake    chan struct{}
	lease   lease
	skew    skew

	enqueues *group[*enqueue]
	settles  *group[*settle]
	large    chan struct{} // who stores large mail; see enqueueLarge

	calls stored.Calls

	stop   context.CancelFunc
	loops  sync.WaitGroup
	ended  chan struct{} // closed when Close is done
	oldest oldest
	latest atomic.Int64 // the latest time that a claim gave, as it is stored
}

var _ queue.Queue = (*Queue)(nil)

// NewQueue opens the queue of a database. With Options.Existing nothing can be
// claimed, because nobody is to wait for the end of a command's lease.
func NewQueue(ctx context.Context, d *DB) (*Queue, error) {
	q := &Queue{d: d, metrics: newQueueMetrics(d), wake: make(chan struct{}, 1), large: make(chan struct{}, 2), ended: make(chan struct{})}
	q.bounds.Store(&d.opts.Queue)
	q.lease.q, q.lease.stands = q, make(chan struct{}, 1)
	if !d.opts.Existing {
		if err := q.lease.begin(ctx); err != nil {
			return nil, err
		}
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	q.stop = stop
	q.enqueues = newGroup(maxGroup, q.storeGroup)
	q.settles = newGroup(maxGroup, q.settleGroup)
	q.loops.Go(func() { q.enqueues.run(background) })
	q.loops.Go(func() { q.settles.run(background) })
	if !d.opts.Existing {
		q.loops.Go(func() { q.lease.run(background) })
		q.loops.Go(func() { q.lease.runTidy(background) })
		q.loops.Go(func() { q.look(background) })
		d.Listen(topicQueue, func(from string) {
			if from != q.lease.name() {
				q.wakeUp()
			}
		}, q.wakeUp)
	}
	return q, nil
}

// topicQueue is told when something became due by a change.
const topicQueue = "queue"

// Wake implements queue.Queue.
func (q *Queue) Wake() <-chan struct{} { return q.wake }

func (q *Queue) wakeUp() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// wakeAll tells every relay that something may have become due.
func (q *Queue) wakeAll() {
	q.wakeUp()
	q.d.Notify(topicQueue, q.lease.name())
}

// look wakes the worker now and then if something is ready, because what other relays say
// may not reach this one.
func (q *Queue) look(ctx context.Context) {
	for ctx.Err() == nil {
		wait(ctx, jitter(4*time.Second))
		if some, err := q.someDue(ctx); err == nil && some {
			q.wakeUp()
		}
	}
}

// someDue reports whether something is ready, or would be as soon as somebody claims. A
// relay that is gone may have settled it for later, of which nobody else was told.
func (q *Queue) someDue(ctx context.Context) (some bool, err error) {
	err = q.d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM smtp2rest.recipients WHERE state = 0)
			OR EXISTS (SELECT 1 FROM smtp2rest.recipients WHERE state = 1 AND due <= (extract(epoch FROM now()) * 1000)::bigint)`).Scan(&some)
	})
	return some, err
}

// enter begins a call; the caller must leave. Close waits for it.
func (q *Queue) enter() error {
	if !q.calls.Enter() {
		return queue.ErrClosed
	}
	return nil
}

func (q *Queue) leave() { q.calls.Leave() }

// do is DB.do for a call that has not entered.
func (q *Queue) do(ctx context.Context, f func(ctx context.Context, c *pgx.Conn) error) error {
	if err := q.enter(); err != nil {
		return err
	}
	defer q.leave()
	return q.d.do(ctx, f)
}

// number runs a statement whose answer is one number.
func (q *Queue) number(ctx context.Context, sql string, args ...any) (n int, err error) {
	err = q.d.again(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, sql, args...).Scan(&n)
	})
	return n, err
}

// Prepare makes ready to go on with other Options.Queue. It never fails.
func (q *Queue) Prepare(o queue.Options) (apply func(), err error) {
	return func() { q.bounds.Store(&o) }, nil
}

// Space is not known: the disk is the server's.
func (q *Queue) Space() (free, kept int64, err error) {
	return 0, 0, fmt.Errorf("the disk of the database: %w", errors.ErrUnsupported)
}

// Writing is never: a write that hangs is the server's, and a restart of this process
// would not help it.
func (q *Queue) Writing() time.Time { return time.Time{} }

// Close implements queue.Queue. What is claimed waits again for the other relays.
func (q *Queue) Close() error {
	if !q.calls.Close() {
		<-q.ended
		return nil
	}
	q.stop()
	q.loops.Wait()
	defer close(q.ended)
	q.lease.end() // if it cannot be said, the lease ends by itself
	return nil
}

// group runs calls of many goroutines together: those that come while a
// transaction is under way share the next one.
type group[T any] struct {
	calls chan call[T]
	most  int
	run1  func(calls []call[T])
}

type call[T any] struct {
	what T
	done chan error
}

// maxGroup is how many calls share a transaction at most.
const maxGroup = 256

func newGroup[T any](most int, run func([]call[T])) *group[T] {
	return &group[T]{calls: make(chan call[T]), most: most, run1: run}
}

// do hands a call in and waits for its result. A context that ends before the
// call was taken ends it.
func (g *group[T]) do(ctx context.Context, what T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := call[T]{what, make(chan error, 1)}
	select {
	case g.calls <- c:
		return <-c.done
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run works until ctx ends. No call may come after that.
func (g *group[T]) run(ctx context.Context) {
	for {
		var calls []call[T]
		select {
		case <-ctx.Done():
			return
		case c := <-g.calls:
			calls = append(calls, c)
		}
		for more := true; more && len(calls) < g.most; {
			select {
			case c := <-g.calls:
				calls = append(calls, c)
			default:
				more = false
			}
		}
		g.run1(calls)
	}
}

// queueMetrics have the names of the embedded engine's, because they mean the same.
type queueMetrics struct{ stored.Metrics }

func newQueueMetrics(d *DB) queueMetrics {
	promauto.With(d.opts.Metrics).NewGaugeFunc(prometheus.GaugeOpts(stored.Broken()), func() float64 {
		if _, err := d.down.trouble(); err != nil {
			return 1
		}
		return 0
	})
	return queueMetrics{stored.NewMetrics(d.opts.Metrics, maxGroup)}
}

// time begins to measure a transaction that so many calls share.
func (m queueMetrics) time(calls int) (end func()) {
	begun := time.Now()
	m.Group.Observe(float64(calls))
	return func() { m.Commits.Observe(time.Since(begun).Seconds()) }
}

// failed counts an error that is the storage's.
func (m queueMetrics) failed(err error) {
	if err == nil || errors.Is(err, queue.ErrFull) || errors.Is(err, queue.ErrNotFound) {
		return
	}
	m.Errors.Inc()
}
