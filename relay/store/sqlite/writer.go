package sqlite

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	lib "modernc.org/sqlite/lib"

	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// op is one call that changes something.
type op struct {
	// run must either change nothing and return a refusal (an error that is not
	// the storage's), or do all of it.
	run   func(t *tx) error
	alone func(c *conn) error // instead of run: outside of a transaction
	done  chan error
}

// tx is what an op works on: one transaction, shared with the other ops that
// happened to wait at the same time.
type tx struct {
	conn *conn // for what only reads and returns its errors
	queueState
	writes int      // statements that may have changed something
	hooks  []func() // see after
	// err is the first error of exec, one, number and each. After it they do
	// nothing and find nothing, and the transaction is not committed, so that their
	// callers need not look.
	err error
}

// exec runs a statement that changes something, and says how many rows it did.
func (t *tx) exec(q string, args ...any) (n int64) {
	t.writes++
	if t.err == nil {
		n, t.err = t.conn.Exec(q, args...)
	}
	return n
}

// one is the first row, nil when there is none.
func (t *tx) one(q string, args ...any) (r row) {
	if t.err == nil {
		r, t.err = t.conn.One(q, args...)
	}
	return r
}

// number is the first column of the first row, 0 when there is none.
func (t *tx) number(q string, args ...any) (n int64) {
	if t.err == nil {
		n, t.err = t.conn.Number(q, args...)
	}
	return n
}

// each calls f for every row; see conn.Each.
func (t *tx) each(f func(r row), q string, args ...any) {
	if t.err == nil {
		t.err = t.conn.Each(func(r row) error { f(r); return nil }, q, args...)
	}
}

// after has f run once the transaction is on the disk, before its caller goes
// on, and in the order of the writes. It must be quick: the writer waits.
func (t *tx) after(f func()) { t.hooks = append(t.hooks, f) }

// batch bounds how many ops share a transaction, so that the first of them
// does not wait long for the last.
const batch = 256

// do runs f in a transaction and returns when that is durable. A context that
// ends after the writer took the op is not looked at any more. f may run more
// than once: what it leaves outside of the transaction must not add up.
func (d *database) do(ctx context.Context, f func(t *tx) error) error {
	return d.submit(ctx, op{run: f})
}

func (d *database) submit(ctx context.Context, o op) error {
	o.done = make(chan error, 1)
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case d.ops <- o:
		return d.owner.describe(<-o.done)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// loop is the one goroutine that changes the database. Ops that wait while it
// commits go into the next transaction together: that is the whole group commit,
// and a lone op never waits for company.
func (d *database) loop() {
	defer close(d.ended)
	tidy := time.NewTimer(d.opts.tidyEvery)
	defer tidy.Stop()
	ticks := true
	for {
		select {
		case o := <-d.ops:
			d.commit(o)
		case <-tidy.C:
			next := d.tidy()
			if ticks = next >= 0; ticks {
				tidy.Reset(next)
			}
			continue
		case <-d.stop:
			return
		}
		if !ticks {
			tidy.Reset(d.opts.tidyEvery)
			ticks = true
		}
	}
}

// gather adds the ops that wait already. Where the group before had more than
// one, callers that can run already may join, as long as any does. The channel
// has no buffer, so that an op that nobody took is still its caller's to
// withdraw.
func (d *database) gather(ops []op) []op {
	for n := 0; n < len(ops); {
		n = len(ops)
		if d.crowded {
			runtime.Gosched()
		}
		for more := true; more && len(ops) < batch; {
			select {
			case o := <-d.ops:
				ops = append(ops, o)
			default:
				more = false
			}
		}
	}
	return ops
}

// commit makes ops durable and answers them. If the storage refused the
// transaction, each op runs in one of its own, so that one cannot fail another.
func (d *database) commit(ops ...op) {
	d.began.Store(time.Now().UnixNano())
	defer d.began.Store(0)
	ops = d.gather(ops)
	if d.opts.before != nil {
		d.opts.before(d, ops)
	}
	ops, errs, err := d.transact(ops, true)
	d.crowded = len(ops) > 1
	for i, o := range ops {
		one := err
		switch {
		case o.alone != nil:
			if one = d.repair(); one == nil {
				one = d.failed(o.alone(d.conn))
			}
		case err == nil:
			one = errs[i]
		case d.crowded:
			one = d.single(o)
		}
		o.done <- one
	}
}

// transact runs ops in one transaction and, with join, those that come meanwhile:
// the sync at the end then serves more of them. It returns all of them, with the
// refusal of each. An error is the storage's, and then nothing was changed.
func (d *database) transact(ops []op, join bool) ([]op, []error, error) {
	begun := time.Now()
	t, err := d.begin()
	if err != nil {
		return ops, nil, err
	}
	var refused []error
	for err == nil && len(refused) < len(ops) {
		for i := len(refused); err == nil && i < len(ops); i++ {
			var r error
			r, err = t.run(ops[i])
			refused = append(refused, r)
		}
		if err == nil && join {
			ops = d.gather(ops)
		}
	}
	if err == nil && t.writes > 0 {
		err = d.owner.save(t)
	}
	if err == nil && t.writes > 0 {
		_, err = t.conn.Exec("COMMIT")
	} else if err == nil {
		_, err = t.conn.Exec("ROLLBACK") // nothing to make durable
	}
	if err != nil {
		return ops, nil, d.failed(d.rollback(err))
	}
	if t.writes > 0 {
		if ops[0].done != nil { // not the start's own
			d.metrics.commits.Observe(time.Since(begun).Seconds())
			d.metrics.group.Observe(float64(len(ops)))
		}
		d.commits.Add(1)
		d.truncated = false
		d.owner.committed(t)
	}
	for _, hook := range t.hooks {
		hook()
	}
	return ops, refused, nil
}

// first is a transaction before the writer runs.
func (d *database) first(f func(t *tx) error) error { return d.single(op{run: f}) }

// single runs an op in a transaction of its own.
func (d *database) single(o op) error {
	_, refused, err := d.transact([]op{o}, false)
	if err == nil {
		err = refused[0]
	}
	return err
}

func (d *database) begin() (*tx, error) {
	if err := d.repair(); err != nil {
		d.metrics.errors.Inc()
		return nil, err
	}
	if _, err := d.conn.Exec("BEGIN IMMEDIATE"); err != nil {
		return nil, d.failed(err)
	}
	t := &tx{conn: d.conn}
	d.owner.begin(t)
	return t, nil
}

// run runs one op. A refusal is returned as such; any other error is fatal to the
// transaction, and so is a refusal that came too late to have changed nothing.
func (t *tx) run(o op) (refused, fatal error) {
	if o.run == nil {
		return nil, nil
	}
	state, writes, hooks := t.queueState, t.writes, len(t.hooks)
	err := o.run(t)
	switch {
	case t.err != nil:
		return nil, t.err
	case err == nil:
		return nil, nil
	case db.Code(err) != 0 || t.writes != writes:
		return nil, err
	}
	t.queueState, t.hooks = state, t.hooks[:hooks]
	return err, nil
}

// rollback ends the transaction after err. After some errors SQLite has done so
// already and says SQLITE_ERROR; after any other the connection is given up.
func (d *database) rollback(err error) error {
	if _, rerr := d.conn.Exec("ROLLBACK"); rerr != nil && db.Code(rerr) != lib.SQLITE_ERROR {
		d.broken = errors.Join(err, rerr)
	}
	return err
}

// failed notes what the storage refused.
func (d *database) failed(err error) error {
	if db.Code(err) == 0 {
		return err
	}
	if db.IsIO(err) {
		d.broken = err
	}
	d.metrics.errors.Inc()
	if d.broken != nil {
		d.metrics.broken.Set(1)
	}
	d.owner.failed(err)
	return err
}

// repair opens the connection anew after an I/O error, and copies the WAL into
// the database, which cuts off what a failed commit left at its end. A failed
// sync says nothing of what was synced before it, and SQLite writes again what
// it then needs.
func (d *database) repair() error {
	if d.broken == nil {
		return nil
	}
	d.log.Error("the storage of the "+d.what+" failed; opening it anew", "err", d.broken)
	if d.conn != nil {
		_ = d.conn.Close() // of a connection that is given up
		d.conn = nil
	}
	if err := d.connect(); err != nil {
		return err
	}
	if err := db.Checkpoint(d.conn); err != nil {
		return err
	}
	if err := d.owner.reopened(); err != nil {
		return err
	}
	d.broken = nil
	d.metrics.broken.Set(0)
	d.log.Info("the storage of the " + d.what + " works again")
	return nil
}

const (
	// tidyPages is one step of giving back, about 2 ms: what an op may wait for it.
	tidyPages = 256
	// keepPages stay in the file for what comes next, so that it does not grow
	// and shrink all the time.
	keepPages = 256
)

// tidy takes one step towards a small file and says when to take the next: at
// once while there is more to give back and nothing else was committed since
// the last step, else in a while, so that a busy store is hardly slowed down.
// Negative is not before something was committed: an idle store has no clock.
func (d *database) tidy() time.Duration {
	if d.repair() != nil {
		return d.opts.tidyEvery
	}
	quiet := d.commits.Load() == d.tidiedAt
	d.tidiedAt = d.commits.Load()
	free, err := d.conn.Number("PRAGMA freelist_count")
	if err == nil && free > keepPages {
		err = d.conn.Each(func(row) error { return nil }, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", tidyPages))
		d.truncated = false
		if err == nil && quiet {
			return 0
		}
	}
	if err == nil && quiet && !d.truncated {
		d.truncated, err = d.truncate()
	}
	if d.failed(err) != nil {
		d.log.Warn("giving back space failed", "err", err)
	} else if quiet && d.truncated {
		d.rest()
		return -1
	}
	return d.opts.tidyEvery
}

// rest gives back the memory that is needed only while the store is busy.
func (d *database) rest() {
	errs := []error{d.conn.Rest()}
	for range cap(d.readers) {
		select {
		case c := <-d.readers: // the one that was not used for longest
			errs = append(errs, c.Rest())
			d.readers <- c
		default:
		}
	}
	if err := errors.Join(errs...); err != nil {
		d.log.Warn("giving back memory failed", "err", err)
	}
}

// truncate cuts the WAL if no reader is in the way. It does not wait for one:
// that would hold up every writer.
func (d *database) truncate() (bool, error) {
	if err := d.conn.Script("PRAGMA busy_timeout=0"); err != nil {
		return false, err
	}
	r, err := d.conn.One("PRAGMA wal_checkpoint(TRUNCATE)")
	done := err == nil && r.Int(0) == 0
	return done, errors.Join(err, d.conn.Script("PRAGMA busy_timeout=5000"))
}
