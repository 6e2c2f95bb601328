package sqlite

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	lib "modernc.org/sqlite/lib"

	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// op is one call that changes something. run must either change nothing and
// return a refusal (an error that is not the storage's), or do all of it.
//
// An op that enqueues has parcels instead, so that many can be stored together.
type op struct {
	run     func(t *tx) error
	parcels []parcel
	done    chan result
}

// result is what became of an op.
type result struct {
	err    error
	stored bool     // its parcels, although an error may have come after
	files  []string // of the spool, that no row refers to any more
}

// tx is what an op works on: one transaction, shared with the other ops that
// happened to wait at the same time.
type tx struct {
	*conn
	s       *Store
	counts  counts
	turn    turn     // whose lane was served last
	writes  int      // statements that changed something
	files   []string // of the op that runs; see result
	wakes   bool     // something may have become due
	reopens bool     // mail that was failed waits again
}

// change runs a statement that changes something.
func (t *tx) change(q string, args ...any) (int64, error) {
	t.writes++
	return t.Exec(q, args...)
}

// batch bounds how many ops share a transaction, so that the first of them
// does not wait long for the last.
const batch = 256

// writer is the one goroutine that changes the database. Ops that wait while
// it commits go into the next transaction together: that is the whole group
// commit, and a lone op never waits for company.
type writer struct {
	s         *Store
	ops       chan op
	stop      chan struct{}
	ended     chan struct{}
	conn      *conn
	counts    counts
	turn      turn // whose lane was served last
	commits   int  // how many there were
	tidiedAt  int  // commits when tidy looked last
	truncated bool // the WAL is cut to nothing
	crowded   bool // the latest group had more than one op
	inserters inserters
	// broken is the error after which the connection must be opened anew.
	broken error
}

// do runs f in a transaction and returns when that is durable. A context that
// ends after the writer took the op is not looked at any more. f may run more
// than once: what it leaves outside of the transaction must not add up.
func (s *Store) do(ctx context.Context, f func(t *tx) error) error {
	return s.submit(ctx, op{run: f}).err
}

func (s *Store) submit(ctx context.Context, o op) result {
	o.done = make(chan result, 1)
	if err := ctx.Err(); err != nil {
		return result{err: err}
	}
	select {
	case s.writer.ops <- o:
		r := <-o.done
		s.discard(r.files)
		r.err = s.describe(r.err)
		return r
	case <-ctx.Done():
		return result{err: ctx.Err()}
	}
}

func (w *writer) loop() {
	defer close(w.ended)
	tidy := time.NewTimer(w.s.opts.tidyEvery)
	defer tidy.Stop()
	ticks := true
	var g group
	for {
		select {
		case o := <-w.ops:
			g.add(o)
			w.commit(&g)
			if !ticks {
				tidy.Reset(w.s.opts.tidyEvery)
				ticks = true
			}
		case <-tidy.C:
			next := w.tidy()
			if ticks = next >= 0; ticks {
				tidy.Reset(next)
			}
		case <-w.stop:
			return
		}
	}
}

// group is ops that share a transaction, and what became of each.
type group struct {
	ops     []op
	results []result
}

func (g *group) add(o op) {
	g.ops = append(g.ops, o)
	g.results = append(g.results, result{})
}

// one is a group of a single op of g.
func (g *group) one(i int) *group {
	return &group{ops: g.ops[i : i+1 : i+1], results: g.results[i : i+1 : i+1]}
}

// gather adds the ops that wait already. Where the group before had more than
// one, callers that can run already may join, as long as any does. The channel
// has no buffer, so that an op that nobody took is still its caller's to
// withdraw.
func (w *writer) gather(g *group) {
	for n := 0; n < len(g.ops); {
		n = len(g.ops)
		if w.crowded {
			runtime.Gosched()
		}
		for more := true; more && len(g.ops) < batch; {
			select {
			case o := <-w.ops:
				g.add(o)
			default:
				more = false
			}
		}
	}
}

// commit makes a group durable and answers it. If the storage refused the
// transaction, each op runs in one of its own, so that one cannot fail another.
func (w *writer) commit(g *group) {
	w.s.began.Store(time.Now().UnixNano())
	defer w.s.began.Store(0)
	w.gather(g)
	if w.s.opts.before != nil {
		w.s.opts.before(w, g)
	}
	if err := w.transact(g, false); err != nil {
		again := len(g.ops) > 1
		for i := range g.ops {
			if again {
				err = w.transact(g.one(i), true)
			}
			if err != nil {
				g.results[i].err, g.results[i].files = err, nil
			}
		}
	}
	w.crowded = len(g.ops) > 1
	for i := range g.ops {
		g.ops[i].done <- g.results[i]
		g.ops[i], g.results[i] = op{}, result{}
	}
	g.ops, g.results = g.ops[:0], g.results[:0]
}

// transact runs a group in one transaction; with alone, nobody joins it.
// Refusals go to the results; an error is the storage's, and then nothing was
// changed.
func (w *writer) transact(g *group, alone bool) error {
	begun := time.Now()
	t, err := w.begin()
	if err != nil {
		return err
	}
	err = w.runAll(t, g, alone)
	if err == nil && t.writes > 0 && t.counts != w.counts {
		err = t.counts.save(t.conn)
	}
	if err != nil {
		return w.failed(w.rollback(err))
	}
	if t.writes == 0 {
		_, err := t.Exec("ROLLBACK") // nothing to make durable
		return w.failed(err)
	}
	if _, err := t.Exec("COMMIT"); err != nil {
		return w.failed(w.rollback(err))
	}
	if g.ops[0].done != nil { // not the start's own
		w.s.metrics.committed(len(g.ops), time.Since(begun))
	}
	w.committed(t)
	return nil
}

func (w *writer) begin() (*tx, error) {
	if err := w.repair(); err != nil {
		w.s.metrics.errors.Inc()
		return nil, err
	}
	t := &tx{conn: w.conn, s: w.s, counts: w.counts, turn: w.turn}
	if _, err := t.Exec("BEGIN IMMEDIATE"); err != nil {
		return nil, w.failed(err)
	}
	return t, nil
}

// committed takes over what a transaction changed.
func (w *writer) committed(t *tx) {
	w.commits++
	w.truncated = false
	w.counts, w.turn = t.counts, t.turn
	w.s.published.Store(&t.counts)
	if t.reopens {
		w.s.oldest.Store(&oldest{})
	}
	if t.wakes {
		w.s.wakeUp()
	}
}

// runAll runs the ops of a group, and those that come meanwhile: the sync at
// the end then serves more of them, and nobody waits for company, because
// only who is there already is taken.
func (w *writer) runAll(t *tx, g *group, alone bool) error {
	for begun := 0; begun < len(g.ops); {
		ops, results := g.ops[begun:], g.results[begun:]
		if err := t.run(ops, results, w.spaceFor(ops)); err != nil {
			return err
		}
		if begun = len(g.ops); !alone {
			w.gather(g)
		}
	}
	return nil
}

// run runs the ops.
func (t *tx) run(group []op, results []result, noSpace error) error {
	for i := 0; i < len(group); {
		n, err := 1, error(nil)
		switch o := group[i]; {
		case o.run != nil:
			err = t.runOne(o, &results[i])
		case noSpace != nil && !t.s.spaceForBounces(o.parcels):
			results[i] = result{err: noSpace}
		default:
			n, err = t.enqueue(group[i:], results[i:])
		}
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// runOne runs one op. A refusal goes to result; any other error is returned,
// and so is one that came too late to have changed nothing.
func (t *tx) runOne(o op, res *result) error {
	before, turn, writes := t.counts, t.turn, t.writes
	t.files = nil
	err := o.run(t)
	if err != nil && (db.Code(err) != 0 || t.writes != writes) {
		return err
	}
	if err != nil {
		t.counts, t.turn, t.files = before, turn, nil
	}
	*res = result{err: err, files: t.files}
	return nil
}

// rollback ends the transaction after err. After some errors SQLite has done
// so already and says SQLITE_ERROR; after any other the connection is given up.
func (w *writer) rollback(err error) error {
	if _, rerr := w.conn.Exec("ROLLBACK"); rerr != nil && db.Code(rerr) != lib.SQLITE_ERROR {
		w.broken = errors.Join(err, rerr)
	}
	return err
}

func (w *writer) failed(err error) error {
	if db.IsIO(err) {
		w.broken = err
	}
	if err != nil {
		w.s.metrics.failed(w.broken != nil)
	}
	return err
}

// published is the counts as of the latest commit, for readers.
type published = atomic.Pointer[counts]

// repair opens the connection anew after an I/O error, and copies the WAL into
// the database, which cuts off what a failed commit left at its end. A failed
// sync says nothing of what was synced before it, and SQLite writes again what
// it then needs.
func (w *writer) repair() error {
	if w.broken == nil {
		return nil
	}
	w.s.log.Error("queue storage failed; opening it anew", "err", w.broken)
	if w.conn != nil {
		_ = w.conn.Close() // of a connection that is given up
		w.conn = nil
	}
	c, err := w.s.connectWriter()
	if err != nil {
		return err
	}
	w.conn = c
	if err := db.Checkpoint(c); err != nil {
		return err
	}
	if w.counts, err = loadCounts(c); err != nil {
		return err
	}
	n := w.counts
	w.s.published.Store(&n)
	w.s.oldest.Store(&oldest{}) // what failed in its sync may have been stored after all
	w.broken = nil
	w.s.metrics.broken.Set(0)
	w.s.log.Info("queue storage works again")
	return nil
}

const (
	// tidyPages is one step of giving back, about 2 ms: what an op may wait for it.
	tidyPages = 256
	// keepPages stay in the file for the next mails, so that it does not grow
	// and shrink all the time.
	keepPages = 256
)

// tidy takes one step towards a small file and says when to take the next: at
// once while there is more to give back and nothing else was committed since
// the last step, else in a while, so that a busy queue is hardly slowed down.
// Negative is not before something was committed: an idle queue has no clock.
func (w *writer) tidy() time.Duration {
	if w.repair() != nil {
		return w.s.opts.tidyEvery
	}
	quiet := w.commits == w.tidiedAt
	w.tidiedAt = w.commits
	free, err := w.conn.Number("PRAGMA freelist_count")
	if err == nil && free > keepPages {
		err = w.conn.Each(func(row) error { return nil }, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", tidyPages))
		w.truncated = false
		if err == nil && quiet {
			return 0
		}
	}
	if err == nil && quiet && !w.truncated {
		w.truncated, err = w.truncate()
	}
	if w.failed(err) != nil {
		w.s.log.Warn("giving back space failed", "err", err)
	} else if quiet && w.truncated {
		w.rest()
		return -1
	}
	return w.s.opts.tidyEvery
}

// rest gives back the memory that a queue needs only while it is busy.
func (w *writer) rest() {
	if err := errors.Join(w.conn.Rest(), w.s.readers.Rest()); err != nil {
		w.s.log.Warn("giving back memory failed", "err", err)
	}
}

// truncate cuts the WAL if no reader is in the way. It does not wait for one:
// that would hold up every writer.
func (w *writer) truncate() (bool, error) {
	if err := w.conn.Script("PRAGMA busy_timeout=0"); err != nil {
		return false, err
	}
	r, err := w.conn.One("PRAGMA wal_checkpoint(TRUNCATE)")
	done := err == nil && r.Int(0) == 0
	return done, errors.Join(err, w.conn.Script("PRAGMA busy_timeout=5000"))
}
