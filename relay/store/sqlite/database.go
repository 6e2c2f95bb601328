package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// database is an SQLite file that this process alone has open: Queue and Records
// are one each. One goroutine changes it (writer.go), readers have connections of
// their own.
type database struct {
	spec
	owner   owner
	opts    Options
	path    string
	log     *slog.Logger
	metrics *metrics
	bounds  atomic.Pointer[queue.Options]
	lock    *os.File
	readers chan *conn // those that nobody uses

	calls stored.Calls

	// The writer's; see there.
	conn      *conn
	broken    error // after which the connection must be opened anew
	ops       chan op
	stop      chan struct{}
	ended     chan struct{}
	commits   atomic.Int64 // how many there were
	tidiedAt  int64        // commits when tidy looked last
	truncated bool         // the WAL is cut to nothing
	crowded   bool         // the latest group had more than one op
	began     atomic.Int64 // when the writer began with what it writes, in nanoseconds since 1970; 0: it waits
}

// spec is what one of the files is.
type spec struct {
	what          string // in errors and in the log
	file          string
	lockFile      string
	applicationID uint32 // so that file(1) and we ourselves know it
	migrations    []string
	newer, older  error
	closedErr     error
	readers       int // connections that read at the same time
	cache         int // KiB of the file that the writer keeps in memory
}

// owner is what the writer asks of the one whose file it writes.
type owner interface {
	// describe says of a storage error what it means to a person.
	describe(err error) error
	// begin prepares a transaction, save completes it, committed is told that it
	// is on the disk.
	begin(t *tx)
	save(t *tx) error
	committed(t *tx)
	// failed is told of a transaction that the storage refused.
	failed(err error)
	// reopened is told that the storage works again.
	reopened() error
	// closing comes when no call is under way any more, before the writer ends.
	closing()
}

// start locks the file. What open does may be tried again; run must come next.
func (d *database) start() (err error) {
	if err := db.CheapSync(); err != nil {
		return err
	}
	d.path, d.log = filepath.Join(d.opts.Dir, d.file), d.opts.Log
	if d.log == nil {
		d.log = slog.Default()
	}
	d.bounds.Store(&d.opts.Queue)
	d.readers = make(chan *conn, d.spec.readers)
	d.ops, d.stop, d.ended = make(chan op), make(chan struct{}), make(chan struct{})
	d.lock, err = d.opts.takeLock(filepath.Join(d.opts.Dir, d.lockFile))
	return err
}

// takeLock takes a lock file for this process. With Existing it must be there.
func (o Options) takeLock(path string) (f *os.File, err error) {
	if o.Existing {
		f, err = db.LockExisting(path)
	} else if err = os.MkdirAll(o.Dir, 0o700); err == nil {
		f, err = db.Lock(path)
	}
	if errors.Is(err, db.ErrLocked) {
		return nil, fmt.Errorf("%w: %w", queue.ErrLocked, err)
	}
	return f, err
}

// open opens the file, and makes it if it is to.
func (d *database) open() error {
	err := db.CheckFiles(d.path)
	if err == nil && d.opts.Existing {
		err = d.schema().CheckCurrent(d.path)
	} else if err == nil {
		err = d.create()
	}
	if err != nil {
		return err
	}
	// The process before may have crashed after a sync of the WAL that failed. The
	// kernel says so only once, and takes for written what may not be on the disk:
	// SQLite would read a commit there and add others behind it, and a loss of
	// power would then take them all.
	rewrite := d.opts.rewrite
	if rewrite == nil {
		rewrite = db.Rewrite
	}
	if err := rewrite(d.path + "-wal"); err != nil {
		return fmt.Errorf("the WAL of the %s: %w", d.what, err)
	}
	return d.connect()
}

// create makes the file if it is not there.
func (d *database) create() error {
	if err := d.schema().CheckHeader(d.path); err != nil {
		return err
	}
	if err := db.CreatePrivate(d.path); err != nil {
		return err
	}
	return db.Prepare(d.dsn(), d.path)
}

// connect opens the connection that changes the database. The WAL is copied back
// every 4000 pages and keeps its file, because writing over is cheaper to sync
// than growing.
func (d *database) connect() (err error) {
	d.conn, err = db.Connect(d.dsn(),
		"PRAGMA busy_timeout=5000",
		"PRAGMA journal_mode=WAL",
		"PRAGMA synchronous=FULL",
		"PRAGMA wal_autocheckpoint=4000",
		"PRAGMA journal_size_limit=67108864",
		fmt.Sprintf("PRAGMA cache_size=-%d", d.cache),
		"PRAGMA temp_store=MEMORY")
	return err
}

func (d *database) dsn() string { return db.Name(d.path, d.opts.vfs) }

func (d *database) schema() db.Schema {
	return db.Schema{ApplicationID: d.applicationID, Migrations: d.migrations, Newer: d.newer, Older: d.older}
}

// check reads tables whole, and the list of tables.
func (d *database) check(tables ...string) error {
	for _, table := range append([]string{"sqlite_schema"}, tables...) {
		r, err := d.conn.One("PRAGMA quick_check('" + table + "')")
		if err != nil {
			return err
		}
		if r == nil || r.Text(0) != "ok" {
			return &db.DamagedError{Reason: table + ": " + r.Text(0)}
		}
	}
	return nil
}

// run opens the connections for reading and starts the writer.
func (d *database) run() error {
	for range cap(d.readers) {
		c, err := db.Connect(d.dsn(), "PRAGMA busy_timeout=5000", "PRAGMA query_only=1", "PRAGMA cache_size=-1000")
		if err != nil {
			return err
		}
		d.readers <- c
	}
	go d.loop()
	return nil
}

// damaged reports whether a file is not what SQLite wrote.
func damaged(err error) bool {
	_, ok := errors.AsType[*db.DamagedError](err)
	return ok || db.IsCorrupt(err)
}

// enter begins a call; the caller must leave. Close waits for it.
func (d *database) enter() error {
	if !d.calls.Enter() {
		return d.closedErr
	}
	return nil
}

func (d *database) leave() { d.calls.Leave() }

// read runs f with a connection for reading, so that all it reads is of one moment.
func (d *database) read(ctx context.Context, f func(c *conn) error) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.leave()
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case c := <-d.readers:
		defer func() { d.readers <- c }()
		return d.owner.describe(c.Transaction(f))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Writing is since when the writer is at one group of calls, the zero Time when
// it waits for some: one that takes very long hangs, or its disk does.
func (d *database) Writing() time.Time {
	if began := d.began.Load(); began != 0 {
		return time.Unix(0, began)
	}
	return time.Time{}
}

// leastFree is what is left free on the disk however little is asked to: the WALs
// have up to 24 MiB in normal use that are still to be copied into the databases,
// and what makes room is written to both first.
const leastFree = 32 << 20

// Prepare makes ready to go on with other Options.Queue. What is kept already
// stays, however much it is. It never fails.
func (d *database) Prepare(o queue.Options) (apply func(), err error) {
	return func() { d.bounds.Store(&o) }, nil
}

// Space is how many bytes are free on the disk, and how many are kept free.
func (d *database) Space() (free, kept int64, err error) {
	free, err = db.FreeBytes(d.opts.Dir)
	return free, max(d.bounds.Load().MinFree, leastFree), err
}

// Close waits for the calls that are under way, writes what was to be written
// later, and ends. Calls that come after it fail.
func (d *database) Close() error {
	first := d.calls.Close()
	if first {
		d.owner.closing()
		close(d.stop)
	}
	<-d.ended
	if first {
		return d.release()
	}
	return nil
}

// release gives back what start and open took.
func (d *database) release() error {
	var errs []error
	for len(d.readers) > 0 {
		errs = append(errs, (<-d.readers).Close())
	}
	if d.conn != nil {
		errs = append(errs, d.conn.Close())
		d.conn = nil
	}
	return errors.Join(append(errs, d.lock.Close())...)
}
