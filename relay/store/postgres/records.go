package postgres

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Records are what is known about mail besides the mail itself: who is suppressed, what
// the provider's events told, what became of every mail. Relays share them.
type Records struct {
	d *DB

	// The list of this relay, which follows the changes of all. It is held while
	// they are read and told, so that they are told in order.
	watching sync.Mutex
	watcher  suppress.Watcher
	latest   int64     // the seq of the latest change that was told
	current  time.Time // when that was

	flushing sync.Mutex // held by the one who writes what is soon to be written
	soonMu   sync.Mutex
	soon     []suppress.Entry // see LearnSoon
	dropped  prometheus.Counter
	errors   prometheus.Counter // writes that failed

	troubleMu sync.Mutex
	since     time.Time
	trouble   error

	changed chan struct{} // somebody changed the list, or may have
	flush   chan struct{} // there is something to write
	life    context.Context
	stop    context.CancelFunc
	runs    sync.WaitGroup
	closed  atomic.Bool
}

var (
	_ suppress.Store = (*Records)(nil)
	_ history.Store  = (*Records)(nil)
)

const (
	// topic is what is said when the list of suppressions changes.
	topic = "suppressions"
	// lookEvery is when the changes of others are looked for though nothing was said:
	// what is said may be lost, and does not come through every PgBouncer.
	lookEvery = 5 * time.Second
	// goneKept is how long it is known what was taken off the list.
	goneKept = 24 * time.Hour
)

var errRecordsClosed = errors.New("the records are closed")

// NewRecords returns the records of a database, which is closed after them.
func NewRecords(d *DB) *Records {
	s := &Records{d: d, changed: make(chan struct{}, 1), flush: make(chan struct{}, 1), latest: -1}
	auto := promauto.With(d.opts.Metrics)
	s.dropped, s.errors = auto.NewCounter(stored.Dropped()), auto.NewCounter(stored.RecordErrors())
	s.life, s.stop = context.WithCancel(context.Background())
	d.Listen(topic, func(string) { poke(s.changed) }, func() { poke(s.changed) })
	s.runs.Go(s.follow)
	s.runs.Go(s.writeSoon)
	return s
}

func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// follow tells the list what other relays changed.
func (s *Records) follow() {
	for {
		look := time.NewTimer(lookEvery/2 + rand.N(lookEvery))
		select {
		case <-s.changed:
		case <-look.C:
		case <-s.life.Done():
			look.Stop()
			return
		}
		look.Stop()
		_ = s.catchUp(s.life) // again at the next look
	}
}

// writeSoon writes what LearnSoon was given. What cannot be written is tried again.
func (s *Records) writeSoon() {
	for {
		select {
		case <-s.flush:
		case <-s.life.Done():
			return
		}
		wait(s.life, stored.Lateness)
		if s.flushNow(s.life) != nil {
			poke(s.flush)
		}
	}
}

// Prepare has nothing to take over: the bounds of queue.Options are the queue's.
func (s *Records) Prepare(queue.Options) (apply func(), err error) { return func() {}, nil }

// Close writes what was soon to be written, and ends what runs by itself.
func (s *Records) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.stop()
	s.runs.Wait()
	return s.flushNow(context.Background())
}

// Trouble is why the records are not kept, and since when; nil when they are. It never
// ends with a restart alone.
func (s *Records) Trouble() (since time.Time, damaged bool, err error) {
	if since, err := s.d.down.trouble(); err != nil {
		return since, false, err
	}
	s.troubleMu.Lock()
	defer s.troubleMu.Unlock()
	return s.since, false, s.trouble
}

// wrote notes what came of a write.
func (s *Records) wrote(err error) error {
	s.troubleMu.Lock()
	defer s.troubleMu.Unlock()
	if err == nil {
		s.trouble, s.since = nil, time.Time{}
		return nil
	}
	e, ok := errors.AsType[*Error](err)
	if !ok { // of the caller
		return err
	}
	s.errors.Inc()
	if s.trouble == nil {
		s.since = time.Now()
	}
	s.trouble = e
	return err
}

// LearnSoon implements suppress.Store. When too many entries wait already, e is given
// up, and counted.
func (s *Records) LearnSoon(e suppress.Entry) {
	s.soonMu.Lock()
	defer s.soonMu.Unlock()
	if s.closed.Load() || len(s.soon) >= stored.SoonMax {
		s.dropped.Inc()
		return
	}
	s.soon = append(s.soon, e)
	poke(s.flush)
}

// flushNow writes what LearnSoon was given. What cannot be written waits on.
func (s *Records) flushNow(ctx context.Context) error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	for {
		s.soonMu.Lock()
		soon := s.soon[:min(len(s.soon), learnStep)]
		s.soonMu.Unlock()
		if len(soon) == 0 {
			return nil
		}
		if err := s.changeList(ctx, func(_ context.Context, t *listTx) error {
			return t.learn(soon, func(e suppress.Entry) time.Time { return e.Since })
		}); err != nil {
			return err
		}
		s.soonMu.Lock()
		s.soon = append([]suppress.Entry(nil), s.soon[len(soon):]...)
		s.soonMu.Unlock()
	}
}

// learnStep is how many entries are learnt in one transaction, for which all others that
// change the list wait.
const learnStep = 500

// enter fails when the records are closed. It writes what was learnt before, so that
// who asks is told the same as who sends; what cannot be written is no reason not to
// show the rest.
func (s *Records) enter(ctx context.Context) error {
	if s.closed.Load() {
		return errRecordsClosed
	}
	_ = s.flushNow(ctx)
	return ctx.Err()
}

// clean makes text one that PostgreSQL takes: without NUL, and valid UTF-8.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "�"), "\x00", "�")
}

// rows calls f for each row of a query.
func (s *Records) rows(ctx context.Context, f func(pgx.Rows) error, sql string, args ...any) error {
	return s.d.do(ctx, func(ctx context.Context, c *pgx.Conn) error { return eachRow(ctx, c, f, sql, args...) })
}

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func eachRow(ctx context.Context, c querier, f func(pgx.Rows) error, sql string, args ...any) error {
	rows, err := c.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// texts is the first column of all rows.
func texts(ctx context.Context, c querier, sql string, args ...any) (all []string, err error) {
	err = eachRow(ctx, c, func(r pgx.Rows) error {
		var one string
		err := r.Scan(&one)
		all = append(all, one)
		return err
	}, sql, args...)
	return all, err
}

// exec runs one statement that changes something.
func (s *Records) exec(ctx context.Context, sql string, args ...any) (n int64, err error) {
	err = s.d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		tag, err := c.Exec(ctx, sql, args...)
		n = tag.RowsAffected()
		return err
	})
	return n, s.wrote(err)
}
