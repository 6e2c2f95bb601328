package sqlite

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	lib "modernc.org/sqlite/lib"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// op is one call that changes something. run must either change nothing and
// return a refusal (an error that is not the storage's), or do all of it.
//
// An op that enqueues has parcels instead, so that many can be stored together.
type op struct {
	run      func(t *tx) error
	enqueues bool
	parcels  []parcel
	done     chan result
}

// result is what became of an op.
type result struct {
	err    error
	stored bool     // its parcels, although an error may have come after
	logged bool     // the parcels are the writer's now; see log.go
	files  []string // of the spool, that no row tells of any more
}

// tx is what an op works on: one transaction, shared with the other ops that
// happened to wait at the same time.
type tx struct {
	*conn
	s        *Store
	counts   counts
	turn     turn     // whose lane was served last
	writes   int      // statements that changed something
	files    []string // of the op that runs; see result
	wakes    bool     // something may have become due
	reopens  bool     // mail that was failed waits again
	segments segmentChanges
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
	s           *Store
	ops         chan op
	stop        chan struct{}
	ended       chan struct{}
	conn        *conn
	counts      counts
	turn        turn // whose lane was served last
	commits     int  // how many there were
	tidiedAt    int  // commits when tidy looked last
	truncated   bool // the log is cut to nothing
	inserters   inserters
	segment     *segment // where big groups go; nil before the first
	lastSegment int64    // the latest segment's number
	next        []op     // that came while others were committed, and wait
	passed      int64    // no replay begins before this place; still to be stored
	owed        *portion // was answered for, and its rows could not be stored
	unsynced    int      // logged mails since the latest commit that synced the log
	unsyncing   bool     // commits do not sync it
	// broken is the error after which the connection must be opened anew.
	broken error
}

// do runs f in a transaction and returns when that is durable. A context that
// ends after the writer took the op is not looked at any more.
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
	defer w.end()
	tidy := time.NewTimer(w.s.opts.tidyEvery)
	defer tidy.Stop()
	ticks := true
	var g group
	for {
		select {
		case o := <-w.ops:
			g.add(o)
			for len(g.ops) > 0 {
				w.commit(&g)
			}
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

// gatherAll lets callers that can run already join, as long as any does; alone,
// that costs next to nothing.
func (w *writer) gatherAll(g *group) {
	for n := 0; n < len(g.ops); {
		n = len(g.ops)
		runtime.Gosched()
		w.gather(g)
	}
}

// gather adds the ops that are waiting already. The channel has no buffer, so
// that an op that nobody took is still its caller's to withdraw.
func (w *writer) gather(g *group) {
	for len(g.ops) < batch {
		select {
		case o := <-w.ops:
			g.add(o)
		default:
			return
		}
	}
}

// commit makes a group durable and answers it. Many new mails are logged, all
// else runs in one transaction. What it leaves in g is to be committed next.
func (w *writer) commit(g *group) {
	w.s.began.Store(time.Now().UnixNano())
	defer w.s.began.Store(0)
	w.gatherAll(g)
	w.log(g)
	if len(g.ops) > 0 {
		w.commitRest(g)
	}
	for i := range g.ops {
		g.ops[i].done <- g.results[i]
		g.ops[i], g.results[i] = op{}, result{}
	}
	g.ops, g.results = g.ops[:0], g.results[:0]
	for _, o := range w.next {
		g.add(o)
	}
	clear(w.next)
	w.next = w.next[:0]
}

// commitRest runs a group in one transaction and, if the storage refused that,
// each op in one of its own, so that one cannot fail another. Whoever comes
// while it runs joins it.
func (w *writer) commitRest(g *group) {
	if err := w.payOwed(); err != nil {
		for i := range g.results {
			g.results[i] = result{err: err}
		}
		return
	}
	if w.s.opts.before != nil {
		w.s.opts.before(w, g)
	}
	err := w.transact(g, false)
	if err == nil {
		return
	}
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

// transact runs a group in one transaction; with alone, nobody joins it.
// Refusals go to the results; an error is the storage's, and then nothing was
// changed.
func (w *writer) transact(g *group, alone bool) error {
	begun := time.Now()
	t, err := w.begin(true)
	if err != nil {
		return err
	}
	err = w.runAll(t, g, alone)
	if err == nil && t.writes > 0 {
		err = w.save(t, &g.results[0])
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
	w.s.metrics.committed(len(g.ops), time.Since(begun))
	w.unsynced = 0
	w.committed(t)
	return nil
}

// begin begins a transaction whose commit syncs the database's log, or does not.
func (w *writer) begin(synced bool) (*tx, error) {
	if err := w.repair(); err != nil {
		w.s.metrics.errors.Inc()
		return nil, err
	}
	if err := w.syncs(synced); err != nil {
		return nil, w.failed(err)
	}
	t := &tx{conn: w.conn, s: w.s, counts: w.counts, turn: w.turn}
	if _, err := t.Exec("BEGIN IMMEDIATE"); err != nil {
		return nil, w.failed(err)
	}
	return t, nil
}

// committed notes what a transaction changed.
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
		if begun = len(g.ops); alone {
			continue
		}
		w.gatherAll(g)
		if countMails(g.ops[begun:]) >= w.s.opts.logGroup { // better logged, and soon
			w.next = append(w.next, g.ops[begun:]...)
			clear(g.ops[begun:])
			g.ops, g.results = g.ops[:begun], g.results[:begun]
		}
	}
	return nil
}

// run runs the ops.
func (t *tx) run(group []op, results []result, noSpace error) error {
	for i := 0; i < len(group); {
		n, err := 1, error(nil)
		switch o := group[i]; {
		case !o.enqueues:
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

// save stores what is kept about all of a transaction. Files that are not
// needed after it are left to any of its callers.
func (w *writer) save(t *tx, any *result) error {
	files, err := t.saveSegments(w.current())
	if err != nil {
		return err
	}
	any.files = append(any.files, files...)
	t.counts.place = max(t.counts.place, w.passed)
	if t.counts == w.counts {
		return nil
	}
	return t.counts.save(t.conn)
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

// spaceFor refuses enqueues while too little space is left, so that what is
// stored can still be claimed, settled and removed.
func (w *writer) spaceFor(group []op) error {
	size, enqueues := int64(0), false
	for _, o := range group {
		enqueues = enqueues || o.enqueues
		size += unspooled(o.parcels)
	}
	if !enqueues {
		return nil
	}
	return w.s.checkFree(size, false)
}

// spaceForBounces says whether mails are bounces that there is space for.
func (s *Store) spaceForBounces(parcels []parcel) bool {
	return onlyBounces(parcels) && s.checkFree(unspooled(parcels), true) == nil
}

// unspooled is how much of the mails is still to be written.
func unspooled(parcels []parcel) int64 {
	size := int64(0)
	for _, p := range parcels {
		if p.spool == "" {
			size += p.Size
		}
	}
	return size
}

// checkFree refuses what would leave less than MinFree on the disk, and of
// bounces only what would leave less than the store itself needs.
func (s *Store) checkFree(size int64, bounces bool) error {
	least := max(s.bounds.Load().MinFree, db.LeastFree)
	if bounces {
		least = db.LeastFree
	}
	free, err := db.FreeBytes(s.opts.Dir)
	if err == nil && free-size < least {
		return fmt.Errorf("%w: %d bytes are free on the disk, %d are kept free", queue.ErrFull, free, least)
	}
	return err
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
