package records

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// tx is what a write works on: one transaction, shared with the other writes
// that happened to wait at the same time.
type tx struct {
	*db.Conn
	hooks []func()
}

// after has f run once the transaction is on the disk, before its caller goes
// on, and in the order of the writes. It must be quick: the writer waits.
func (t *tx) after(f func()) { t.hooks = append(t.hooks, f) }

// op is a write that somebody waits for.
type op struct {
	run   func(t *tx) error
	alone func(c *db.Conn) error // instead of run: outside of a transaction
	done  chan error
}

// writer is the one goroutine that changes the database. All that waits while
// it commits goes into the next transaction together; a lone durable write
// never waits for company, what nobody waits for does.
type writer struct {
	s     *Store
	stop  chan struct{}
	ended chan struct{}
	urge  chan struct{} // one slot: write now
	begun chan struct{} // one slot: write soon

	mu    sync.Mutex
	ops   []op
	lates []func(t *tx) error

	conn   *db.Conn
	broken error // after which the connection must be opened anew
	lost   bool  // what nobody waits for is being dropped, and that was said
}

func newWriter(s *Store) *writer {
	return &writer{s: s, stop: make(chan struct{}), ended: make(chan struct{}),
		urge: make(chan struct{}, 1), begun: make(chan struct{}, 1)}
}

// connect opens the connection that changes the database.
func (w *writer) connect() (err error) {
	w.conn, err = db.Connect(w.s.dsn(),
		"PRAGMA busy_timeout=5000",
		"PRAGMA journal_mode=WAL",
		"PRAGMA synchronous=FULL",
		"PRAGMA journal_size_limit=16777216",
		"PRAGMA cache_size=-4000",
		"PRAGMA temp_store=MEMORY")
	return err
}

func (w *writer) disconnect() error {
	if w.conn == nil {
		return nil
	}
	c := w.conn
	w.conn = nil
	return c.Close()
}

// wait hands over a durable write and waits for what became of it.
func (w *writer) wait(f func(t *tx) error) error {
	return w.hand(op{run: f, done: make(chan error, 1)})
}

func (w *writer) hand(o op) error {
	w.mu.Lock()
	w.ops = append(w.ops, o)
	w.mu.Unlock()
	signal(w.urge)
	return w.s.describe(<-o.done)
}

// postpone hands over a write that nobody waits for, if there is room.
func (w *writer) postpone(f func(t *tx) error) bool {
	w.mu.Lock()
	n := len(w.lates)
	if n < w.s.opts.laterMax {
		w.lates = append(w.lates, f)
	}
	w.mu.Unlock()
	switch {
	case n == 0:
		signal(w.begun)
	case n >= min(laterSoon, w.s.opts.laterMax-1):
		signal(w.urge)
	}
	return n < w.s.opts.laterMax
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (w *writer) loop() {
	defer close(w.ended)
	soon := time.NewTimer(time.Hour)
	soon.Stop()
	defer soon.Stop()
	rest := time.NewTimer(restAfter)
	defer rest.Stop()
	for {
		select {
		case <-w.begun:
			soon.Reset(lateness)
			continue
		case <-rest.C:
			w.rest()
			continue
		case <-soon.C:
		case <-w.urge:
			runtime.Gosched() // lets callers that can run already join; alone, it costs nothing
		case <-w.stop:
			w.commit(w.take())
			return
		}
		w.commit(w.take())
		rest.Reset(restAfter)
	}
}

// restAfter is how long nothing must have been written for the memory to be
// given back that only a busy store needs.
const restAfter = 5 * time.Second

func (w *writer) rest() {
	if w.conn == nil { // it is broken, and opened anew by the next write
		return
	}
	if err := errors.Join(w.conn.Rest(), w.s.readers.Rest()); err != nil {
		w.s.log.Warn("giving back memory failed", "cause", err)
	}
}

func (w *writer) take() ([]op, []func(t *tx) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ops, lates := w.ops, w.lates
	w.ops, w.lates = nil, nil
	return ops, lates
}

// commit runs a group in one transaction and, if that failed, each durable
// write in one of its own, so that one cannot fail another.
func (w *writer) commit(ops []op, lates []func(t *tx) error) {
	if !w.room() {
		w.drop(len(lates), errors.New("the disk is almost full"))
		lates = nil
	}
	ops, alone := apart(ops)
	defer func() {
		for _, o := range alone {
			o.done <- w.repairedThen(o.alone)
		}
	}()
	if len(ops) == 0 && len(lates) == 0 {
		return
	}
	err := w.transact(func(t *tx) error {
		if err := all(t, lates); err != nil {
			return err
		}
		for _, o := range ops {
			if err := o.run(t); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.commitLates(lates)
	}
	for _, o := range ops {
		one := err
		if one != nil {
			one = w.transact(o.run)
		}
		o.done <- one
	}
	if err == nil && len(lates) > 0 {
		w.lost = false
	}
}

// commitLates writes what nobody waits for after a group failed.
func (w *writer) commitLates(lates []func(t *tx) error) {
	if len(lates) == 0 || w.transact(func(t *tx) error { return all(t, lates) }) == nil {
		return
	}
	for i, f := range lates {
		err := w.transact(f)
		switch {
		case err == nil:
		case db.Code(err) != 0: // the storage's: the next would fare no better
			w.drop(len(lates)-i, err)
			return
		default:
			w.drop(1, err)
		}
	}
}

func all(t *tx, fs []func(t *tx) error) error {
	for _, f := range fs {
		if err := f(t); err != nil {
			return err
		}
	}
	return nil
}

// drop counts what is given up, and says so once until it works again.
func (w *writer) drop(n int, cause error) {
	if n == 0 {
		return
	}
	w.s.lose(n)
	cause = w.s.describe(cause)
	w.s.failing(cause, false)
	if !w.lost {
		w.s.log.Error("records cannot be written and are lost; mail is not touched", "lost", n, "cause", cause)
	}
	w.lost = true
}

// room reports whether there is space for more than what must be.
func (w *writer) room() bool {
	free, err := db.FreeBytes(w.s.opts.Dir)
	return err != nil || free >= max(w.s.minFree.Load(), db.LeastFree)
}

// transact runs f in a transaction and what f wants done after it.
func (w *writer) transact(f func(t *tx) error) error {
	if err := w.repair(); err != nil {
		return err
	}
	t, began := &tx{Conn: w.conn}, time.Now()
	if _, err := t.Exec("BEGIN IMMEDIATE"); err != nil {
		return w.failed(err)
	}
	if err := f(t); err != nil {
		return w.rollback(err)
	}
	if _, err := t.Exec("COMMIT"); err != nil {
		return w.rollback(err)
	}
	w.s.commits.Add(1)
	w.s.working()
	w.s.metrics.committed(time.Since(began))
	for _, hook := range t.hooks {
		hook()
	}
	return nil
}

// rollback ends the transaction after err. If that fails, SQLite has done so
// already, or the connection is of no more use: it is opened anew either way.
func (w *writer) rollback(err error) error {
	if _, rerr := w.conn.Exec("ROLLBACK"); rerr != nil {
		w.broken = errors.Join(err, rerr)
	}
	return w.failed(err)
}

func (w *writer) failed(err error) error {
	if db.Code(err) != 0 {
		w.s.metrics.errors.Inc()
		w.s.failing(w.s.describe(err), false)
	}
	if db.IsIO(err) {
		w.broken = err
	}
	return err
}

// repair opens the connection anew after an I/O error. A write or sync that
// failed leaves pages of which nobody knows whether they are on the disk, and
// the kernel says so only once: the log is written back and cut to nothing
// before anything is added to it.
func (w *writer) repair() error {
	if w.broken == nil {
		return nil
	}
	w.s.log.Error("the records' storage failed; opening it anew", "cause", w.broken)
	_ = w.disconnect() // of a connection that is given up
	if err := w.connect(); err != nil {
		return fmt.Errorf("records: %w", err)
	}
	if err := db.Checkpoint(w.conn); err != nil {
		return err
	}
	w.broken = nil
	return nil
}
