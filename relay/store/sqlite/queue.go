// Package sqlite keeps what a relay has to keep in a data directory, for one
// process on one machine: Queue is relay/queue's contract, with large bodies as
// files beside the database; Records are relay/suppress's and relay/history's, in a
// database of their own that may be damaged without touching any mail. They share
// how a file is opened (database.go) and written (writer.go).
// docs/internals/storage.md says what was measured and why it is built this way.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// QueueFile is the queue's database in the data directory.
const QueueFile = "queue.db"

const queueLock = "lock"

// These are used in every file, and nothing is added to them.
type (
	conn = db.Conn
	row  = db.Row
)

// Options say where a store is.
type Options struct {
	// Dir is the data directory; made with mode 0700 if it is not there. Its
	// files get mode 0600.
	Dir   string
	Queue queue.Options
	// Existing is for whoever comes in another's place, as an operator with the
	// rights of root does while the relay is stopped: nothing is made, converted,
	// tidied up or set aside, because the files would be theirs. Opening then
	// fails with fs.ErrNotExist, queue.ErrOlder or, for the records, ErrDamaged.
	Existing bool
	Log      *slog.Logger          // slog.Default() when nil
	Metrics  prometheus.Registerer // nil: none

	// What tests set.
	spool     spoolFS                       // of the operating system when nil
	vfs       string                        // SQLite's own when ""
	tidyEvery time.Duration                 // a second when 0
	soonMax   int                           // the constant when 0
	rewrite   func(name string) error       // db.Rewrite when nil
	before    func(d *database, group []op) // sees what is about to share a transaction
}

// Queue is an open queue.
type Queue struct {
	database
	spool     spool
	last      queueState             // of the latest commit; the writer's
	turns     map[string]turn        // by account: whose lane was served last; the writer's
	published atomic.Pointer[counts] // of it, for readers
	wake      chan struct{}
	oldest    atomic.Pointer[oldest]
	clock     atomic.Int64 // the latest time a caller gave, in milliseconds
}

// queueState is what a transaction of the queue begins with and leaves to the next.
type queueState struct {
	s       *Queue
	counts  counts
	turned  map[string]turn // accounts that had a turn, and whose lane was served last
	wakes   bool            // something may have become due
	reopens bool            // mail that was failed waits again
	size    int64           // of the mail that it stores
	files   *[]string       // of the op that runs: files that no row refers to any more
}

var _ queue.Queue = (*Queue)(nil)

// OpenQueue opens or makes the queue in a data directory. It fails with
// queue.ErrLocked when another process uses it, with queue.ErrNewer when a later
// version wrote it, and with a *CorruptError, whose text says the way out, when it
// is damaged; in all three cases nothing is changed.
func OpenQueue(o Options) (*Queue, error) {
	o.setDefaults()
	s := &Queue{database: database{spec: queueSpec(), opts: o, metrics: newQueueMetrics(o)}, turns: map[string]turn{}, wake: make(chan struct{}, 1)}
	s.owner = s
	s.oldest.Store(&oldest{})
	s.spool = spool{dir: filepath.Join(o.Dir, spoolDir), fs: o.spool}
	if err := s.start(); err != nil {
		return nil, err
	}
	err := s.openFiles()
	if err == nil {
		err = s.run()
	}
	if err != nil {
		return nil, errors.Join(db.NoSpace(s.describe(err)), s.release())
	}
	return s, nil
}

func (o *Options) setDefaults() {
	if o.spool == nil {
		o.spool = osFS{}
	}
	if o.tidyEvery == 0 {
		o.tidyEvery = time.Second
	}
	if o.soonMax == 0 {
		o.soonMax = stored.SoonMax
	}
}

// openFiles does the part of OpenQueue that needs the lock.
func (s *Queue) openFiles() error {
	if !s.opts.Existing {
		if err := os.MkdirAll(s.spool.dir, 0o700); err != nil {
			return err
		}
		if err := s.checkMissing(s.path); err != nil {
			return err
		}
	}
	if err := s.open(); err != nil {
		return err
	}
	if err := s.upgrade(); err != nil {
		return err
	}
	if err := s.recoverClaims(); err != nil || s.opts.Existing {
		return err
	}
	return s.sweepSpool(s.conn)
}

func (s *Queue) begin(t *tx) {
	t.queueState = queueState{s: s, counts: s.last.counts}
}

func (s *Queue) save(t *tx) error {
	if t.counts == s.last.counts {
		return nil
	}
	return t.counts.save(t.conn)
}

func (s *Queue) committed(t *tx) {
	s.last = t.queueState
	maps.Copy(s.turns, t.turned)
	s.published.Store(&t.counts)
	if t.reopens {
		s.oldest.Store(&oldest{})
	}
	if t.wakes {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

func (*Queue) failed(error) {}
func (*Queue) closing()     {}

func (s *Queue) reopened() error {
	s.oldest.Store(&oldest{}) // what failed in its sync may have been stored after all
	return s.loadCounts()
}

// do is database.do with the files that are no longer needed removed.
func (s *Queue) do(ctx context.Context, f func(t *tx) error) error {
	var files []string
	err := s.database.do(ctx, func(t *tx) error {
		files = files[:0]
		t.files = &files
		return f(t)
	})
	if err == nil {
		s.discard(files)
	}
	return err
}

// change is do for a call that has not entered.
func (s *Queue) change(ctx context.Context, f func(t *tx) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.do(ctx, f)
}

// Wake implements queue.Queue.
func (s *Queue) Wake() <-chan struct{} { return s.wake }

// describe says of a storage error what it means to a person.
func (s *Queue) describe(err error) error {
	switch {
	case damaged(err):
		return &CorruptError{Path: s.path, Reason: err.Error()}
	case db.IsDiskFull(err), db.IsIO(err):
		return fmt.Errorf("queue storage in %s: %w", s.opts.Dir, err)
	}
	return err
}

// CorruptError: the database is damaged. Nothing was changed or removed.
type CorruptError struct {
	Path   string
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("the queue's database %[1]s is damaged (%[2]s); nothing was changed. "+
		"Stop smtp2rest and keep a copy of the file, then either restore it from a backup, "+
		"or rescue what is readable with: sqlite3 %[1]s .recover | sqlite3 rescued.db, and put rescued.db in its place, "+
		"or begin with an empty queue after 'smtp2rest queue set-aside', which renames it and removes nothing", e.Path, e.Reason)
}

// SetAside renames the queue's database in a data directory that is not in use,
// with its WAL and its spool, so that the next OpenQueue begins with an empty
// queue. Nothing is removed. It returns the database's new name.
func SetAside(dir string, now time.Time) (string, error) {
	// A lock that is not there has nobody, and must not be made by whoever comes.
	l, err := Options{Existing: true}.takeLock(filepath.Join(dir, queueLock))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	defer func() { _ = l.Close() }()
	suffix := now.UTC().Format(".damaged-20060102-150405.000")
	if err := db.Rename(filepath.Join(dir, spoolDir), suffix); err != nil {
		return "", err
	}
	return db.SetAside(filepath.Join(dir, QueueFile), suffix)
}
