// Package sqlite keeps the queue in one SQLite database in the data
// directory, with large bodies as files beside it. It implements
// relay/queue's contract for one process on one machine; docs/internals/storage.md says
// what was measured and why it is built this way.
//
// One goroutine changes the database and lets callers that wait share a commit
// (writer.go). Readers have connections of their own. Earlier versions kept mail
// in a journal besides, which a start takes into the database (segments.go).
package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// FileName is the database's name in the data directory.
const FileName = "queue.db"

// These are used in every file, and nothing is added to them.
type (
	conn = db.Conn
	row  = db.Row
)

// readers is how many connections read at the same time.
const readers = 4

// Options says where the queue is.
type Options struct {
	// Dir is the data directory; made with mode 0700 if it is not there. Its
	// files get mode 0600.
	Dir   string
	Queue queue.Options
	// Existing is for whoever comes in another's place, as an operator with the
	// rights of root does while the daemon is stopped: nothing is made, converted
	// or tidied up, because the files would be theirs. Open then fails with
	// fs.ErrNotExist or ErrOlder.
	Existing bool
	Log      *slog.Logger          // slog.Default() when nil
	Metrics  prometheus.Registerer // nil: none

	spool     spoolFS       // of the operating system when nil
	vfs       string        // SQLite's own when ""
	tidyEvery time.Duration // a second when 0
	rewrite   func(name string) error
	before    func(w *writer, g *group) // of a test: sees what is about to share a transaction
}

// Store is an open queue.
type Store struct {
	opts    Options
	bounds  atomic.Pointer[queue.Options]
	log     *slog.Logger
	metrics *metrics
	lock    *os.File
	spool   spool

	writer    *writer
	published published
	readers   db.Readers
	wake      chan struct{}

	oldest atomic.Pointer[oldest]
	clock  atomic.Int64 // the latest time a caller gave, in milliseconds
	began  atomic.Int64 // when the writer began with what it writes, in nanoseconds since 1970; 0: it waits

	calls db.Calls
}

var _ queue.Queue = (*Store)(nil)

// Writing is since when the writer is at one group of calls, the zero Time when
// it waits for some: one that takes very long hangs, or its disk does.
func (s *Store) Writing() time.Time {
	if began := s.began.Load(); began != 0 {
		return time.Unix(0, began)
	}
	return time.Time{}
}

// Open opens or makes the queue in a data directory. It fails with ErrLocked
// when another process uses it, with ErrNewer when a later version wrote it,
// and with a *CorruptError, whose text says the way out, when it is damaged;
// in all three cases nothing is changed.
func Open(o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.spool == nil {
		o.spool = osFS{}
	}
	o.tidyEvery = cmp.Or(o.tidyEvery, time.Second)
	if o.rewrite == nil {
		o.rewrite = rewrite
	}
	if err := db.CheapSync(); err != nil {
		return nil, err
	}
	l, err := o.lock()
	if err != nil {
		return nil, err
	}
	s := &Store{opts: o, log: o.Log, metrics: newMetrics(o.Metrics, o.Dir), lock: l, wake: make(chan struct{}, 1), readers: make(db.Readers, readers)}
	s.oldest.Store(&oldest{})
	s.bounds.Store(&o.Queue)
	s.spool = spool{dir: filepath.Join(o.Dir, spoolDir), fs: o.spool}
	if err := s.open(); err != nil {
		return nil, errors.Join(db.NoSpace(err), s.release())
	}
	go s.writer.loop()
	return s, nil
}

// Prepare makes ready to hold what comes to other bounds. What is kept already
// stays, however much it is. It never fails.
func (s *Store) Prepare(o queue.Options) (apply func(), err error) {
	return func() { s.bounds.Store(&o) }, nil
}

// Space is how many bytes are free on the disk, and how many are kept free.
func (s *Store) Space() (free, kept int64, err error) {
	free, err = db.FreeBytes(s.opts.Dir)
	return free, max(s.bounds.Load().MinFree, db.LeastFree), err
}

// open does the part of Open that needs the lock.
func (s *Store) open() error {
	path := s.path()
	if err := s.prepare(path); err != nil {
		return err
	}
	if err := s.rewriteWAL(); err != nil { // of a process that crashed, perhaps after a sync that failed
		return err
	}
	c, err := s.connectWriter()
	if err != nil {
		return s.describe(err)
	}
	s.writer = &writer{s: s, conn: c, inserters: newInserters(), ops: make(chan op), stop: make(chan struct{}), ended: make(chan struct{})}
	if err := s.writer.upgrade(); err != nil {
		return s.describe(err)
	}
	if err := s.writer.recoverClaims(); err != nil {
		return s.describe(err)
	}
	if err := s.readers.Open(s.dsn(), 1000); err != nil {
		return err
	}
	if s.opts.Existing {
		return nil
	}
	return s.sweepSpool(c)
}

// prepare sees to the file before it is opened as a database, and makes it if
// it is to.
func (s *Store) prepare(path string) error {
	if err := db.CheckFiles(path); err != nil {
		return err
	}
	if s.opts.Existing {
		return corrupt(path, schema().CheckCurrent(path))
	}
	if err := s.checkMissing(path); err != nil {
		return err
	}
	if err := corrupt(path, schema().CheckHeader(path)); err != nil {
		return err
	}
	if err := db.CreatePrivate(path); err != nil {
		return err
	}
	return s.describe(db.Prepare(s.dsn(), path))
}

func (s *Store) path() string { return filepath.Join(s.opts.Dir, FileName) }

func (s *Store) dsn() string { return db.Name(s.path(), s.opts.vfs) }

// connectWriter opens the connection that changes the database. The WAL is copied
// back every 4000 pages and keeps its file, because writing over is cheaper to sync than growing.
func (s *Store) connectWriter() (*conn, error) {
	return db.Connect(s.dsn(),
		"PRAGMA busy_timeout=5000",
		"PRAGMA journal_mode=WAL",
		"PRAGMA synchronous=FULL",
		"PRAGMA wal_autocheckpoint=4000",
		"PRAGMA journal_size_limit=67108864",
		"PRAGMA cache_size=-16000",
		"PRAGMA temp_store=MEMORY")
}

// enter begins a call; the caller must leave. Close waits for it.
func (s *Store) enter() error {
	if !s.calls.Enter() {
		return queue.ErrClosed
	}
	return nil
}

func (s *Store) leave() { s.calls.Leave() }

// change runs f in the writer. See do.
func (s *Store) change(ctx context.Context, f func(t *tx) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.do(ctx, f)
}

// read runs f with a connection for reading.
func (s *Store) read(ctx context.Context, f func(c *conn) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.describe(s.readers.Read(ctx, f))
}

// Close ends the queue; see queue.Queue.
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

// release gives back what Open took.
func (s *Store) release() error {
	errs := []error{s.readers.Close()}
	if s.writer != nil && s.writer.conn != nil {
		errs = append(errs, s.writer.conn.Close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// Wake implements queue.Queue.
func (s *Store) Wake() <-chan struct{} { return s.wake }

func (s *Store) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// describe says of a storage error what it means to a person.
func (s *Store) describe(err error) error {
	switch {
	case db.IsCorrupt(err):
		return &CorruptError{Path: s.path(), Reason: err.Error()}
	case db.IsDiskFull(err), db.IsIO(err):
		return fmt.Errorf("queue storage in %s: %w", s.opts.Dir, err)
	}
	return err
}
