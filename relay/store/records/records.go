// Package records keeps what is known about mail besides the mail itself, in
// one SQLite file beside the queue's: who is suppressed, what the provider's
// events told, what became of every mail. It holds no mail. So it may be late,
// and a damaged file is set aside for a new one, but nothing here can hold up
// or lose a mail.
//
// One goroutine changes the file (writer.go). What must be kept before its
// caller goes on is a durable write; what may be lost with the last second
// before a crash is written later, in groups, and costs its caller nothing.
// It implements relay/suppress's contract, and relay/history's.
package records

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// FileName is the database's name in the data directory.
const FileName = "records.db"

// readers is how many connections read at the same time.
const readers = 2

// lateness is the longest a write that nobody waits for is left in memory.
const lateness = 500 * time.Millisecond

// laterMax is how many of them wait at most, laterSoon how many are reason not
// to wait any longer.
const (
	laterMax  = 8192
	laterSoon = 1024
)

// Options say where the records are.
type Options struct {
	// Dir is the data directory; made with mode 0700 if it is not there.
	Dir string
	// Existing is for whoever comes in another's place, as an operator with the
	// rights of root does while the daemon is stopped: nothing is made, converted
	// or set aside, because the files would be theirs. Open then fails with
	// fs.ErrNotExist, ErrOlder or ErrDamaged.
	Existing bool
	// MinFree is how many bytes to keep free on the disk: with less, what
	// nobody waits for is dropped, because the queue needs the room. At least
	// db.LeastFree is kept.
	MinFree int64
	Log     *slog.Logger          // slog.Default() when nil
	Metrics prometheus.Registerer // may be nil

	laterMax int // the constant when 0
}

// Store is the open records.
type Store struct {
	minFree atomic.Int64 // Options.MinFree, which KeepFree can change
	opts    Options
	log     *slog.Logger
	metrics *metrics
	lock    *os.File
	writer  *writer
	readers db.Readers
	watcher suppress.Watcher // of the list's changes; the writer's

	dropped atomic.Int64
	commits atomic.Int64

	standingMu sync.Mutex
	standing   trouble

	calls db.Calls
}

// Errors of Open and of calls.
var (
	ErrClosed = errors.New("the records are closed")
	ErrNewer  = fmt.Errorf("the records were %w", queue.ErrNewer)
	// The daemon mends these two when it starts.
	ErrOlder   = fmt.Errorf("the records were %w", queue.ErrOlder)
	ErrDamaged = errors.New("the records are damaged; the daemon sets them aside when it starts and begins new ones")
)

// Open opens or makes the records in a data directory. A damaged file is set
// aside, loudly, and a new one begun. It fails with ErrLocked when another
// process uses it and with ErrNewer when a later version wrote it.
func Open(o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.laterMax = cmp.Or(o.laterMax, laterMax)
	if err := db.CheapSync(); err != nil {
		return nil, err
	}
	lock, err := o.lock()
	if err != nil {
		return nil, err
	}
	s := &Store{opts: o, log: o.Log, metrics: newMetrics(o.Metrics), lock: lock, readers: make(db.Readers, readers)}
	s.minFree.Store(o.MinFree)
	s.writer = newWriter(s)
	err = s.open()
	switch {
	case !damaged(err):
	case o.Existing:
		err = fmt.Errorf("%w: %s: %w", ErrDamaged, s.path(), err)
	default:
		err = errors.Join(s.closeConns(), s.setAside(err))
		if err == nil {
			err = s.open()
		}
	}
	if err != nil {
		return nil, errors.Join(db.NoSpace(err), s.release())
	}
	go s.writer.loop()
	return s, nil
}

// lock takes the records for this process.
func (o Options) lock() (f *os.File, err error) {
	name := filepath.Join(o.Dir, FileName+".lock")
	if o.Existing {
		f, err = db.LockExisting(name)
	} else if err = os.MkdirAll(o.Dir, 0o700); err == nil {
		f, err = db.Lock(name)
	}
	if errors.Is(err, db.ErrLocked) {
		err = fmt.Errorf("%w: %w", queue.ErrLocked, err)
	}
	return f, err
}

// Prepare makes ready to keep another number of bytes free on the disk. It never
// fails.
func (s *Store) Prepare(o queue.Options) (apply func(), err error) {
	return func() { s.minFree.Store(o.MinFree) }, nil
}

func (s *Store) path() string { return filepath.Join(s.opts.Dir, FileName) }

func (s *Store) dsn() string { return db.Name(s.path(), "") }

// open does the part of Open that a damaged file fails.
func (s *Store) open() error {
	if _, err := os.Lstat(s.marker()); err == nil {
		return &db.DamagedError{Reason: "it was found damaged before"}
	}
	if err := s.prepare(); err != nil {
		return err
	}
	if err := s.writer.connect(); err != nil {
		return err
	}
	if err := schema().Migrate(s.writer.conn); err != nil {
		return err
	}
	if err := check(s.writer.conn); err != nil {
		return err
	}
	return s.readers.Open(s.dsn(), 500)
}

// prepare sees to the file before it is opened as a database, and makes it if
// it is to.
func (s *Store) prepare() error {
	if err := db.CheckFiles(s.path()); err != nil {
		return err
	}
	if s.opts.Existing {
		return schema().CheckCurrent(s.path())
	}
	if err := schema().CheckHeader(s.path()); err != nil {
		return err
	}
	if err := db.CreatePrivate(s.path()); err != nil {
		return err
	}
	return db.Prepare(s.dsn(), s.path())
}

// enter begins a call; the caller must leave. Close waits for it.
func (s *Store) enter() error {
	if !s.calls.Enter() {
		return ErrClosed
	}
	return nil
}

func (s *Store) leave() { s.calls.Leave() }

// durable runs f in the writer, in a transaction it may share with others, and
// returns when that is on the disk. f may be run twice, and must leave nothing
// behind but what it does to the database and what it hands to tx.after.
func (s *Store) durable(ctx context.Context, f func(t *tx) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.writer.wait(f)
}

// later runs f in the writer within a second. It never waits: when too much is
// waiting already, f is dropped, and counted. Writes that are made later are
// made in the order of the calls, and before any durable one that is asked for
// after them. See durable for what f may do.
func (s *Store) later(f func(t *tx) error) {
	if !s.calls.Enter() {
		s.lose(1)
		return
	}
	defer s.calls.Leave()
	if !s.writer.postpone(f) {
		s.lose(1)
	}
}

// Flush returns when all that was to be written later before it was called is
// on the disk.
func (s *Store) Flush(ctx context.Context) error {
	return s.durable(ctx, func(*tx) error { return nil })
}

// lose counts what is given up.
func (s *Store) lose(n int) {
	s.dropped.Add(int64(n))
	s.metrics.dropped.Add(float64(n))
}

// Dropped is how many writes that nobody waited for were given up.
func (s *Store) Dropped() int64 { return s.dropped.Load() }

// read runs f with a connection for reading, so that all it reads is of one moment.
func (s *Store) read(ctx context.Context, f func(c *db.Conn) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.describe(s.readers.Read(ctx, f))
}

// Close writes what was to be written later and ends. Calls that come after it
// fail with ErrClosed.
func (s *Store) Close() error {
	first := s.calls.Close()
	if first {
		close(s.writer.stop)
	}
	<-s.writer.ended
	if first {
		return s.release()
	}
	return nil
}

func (s *Store) closeConns() error {
	return errors.Join(s.readers.Close(), s.writer.disconnect())
}

// release gives back what Open took.
func (s *Store) release() error { return errors.Join(s.closeConns(), s.lock.Close()) }
