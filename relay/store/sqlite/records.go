package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// RecordsFile is the records' database in the data directory.
const RecordsFile = "records.db"

// Records are what is known about mail besides the mail itself: who is suppressed,
// what the provider's events told, what became of every mail. They may be late,
// and a damaged file is set aside for a new one, but nothing here can hold up or
// lose a mail.
type Records struct {
	database
	watcher suppress.Watcher // of the list's changes; the writer's

	flushing sync.Mutex // held by the one who writes what is soon to be written
	soonMu   sync.Mutex
	soon     []suppress.Entry // see LearnSoon
	losing   bool             // they are given up, and that was said
	dropped  atomic.Int64     // how many were

	troubleMu sync.Mutex
	trouble   trouble
}

var (
	_ suppress.Store = (*Records)(nil)
	_ history.Store  = (*Records)(nil)
)

// ErrDamaged: with Options.Existing they are left as they are.
var ErrDamaged = errors.New("the records are damaged; the daemon sets them aside when it starts and begins new ones")

func recordsSpec() spec {
	return spec{what: "records", file: RecordsFile, lockFile: RecordsFile + ".lock", applicationID: 0x73327272, // "s2rr"
		migrations: []string{suppressionsSchema + eventsSchema, historySchema, eventsIndex, forwardsSchema},
		newer:      fmt.Errorf("the records were %w", queue.ErrNewer), older: fmt.Errorf("the records were %w", queue.ErrOlder),
		closedErr: errors.New("the records are closed"), readers: 2, cache: 4000}
}

// OpenRecords opens or makes the records in a data directory. A damaged file is set
// aside, loudly, and a new one begun. It fails with queue.ErrLocked when another
// process uses it and with queue.ErrNewer when a later version wrote it.
func OpenRecords(o Options) (*Records, error) {
	o.setDefaults()
	s := &Records{database: database{spec: recordsSpec(), opts: o, metrics: newRecordsMetrics(o)}}
	s.owner = s
	if err := s.start(); err != nil {
		return nil, err
	}
	err := s.openFile()
	switch {
	case !damaged(err):
	case o.Existing:
		err = fmt.Errorf("%w: %s: %w", ErrDamaged, s.path, err)
	default:
		if err = s.setAside(err); err == nil {
			err = s.openFile()
		}
	}
	if err == nil {
		err = s.run()
	}
	if err != nil {
		return nil, errors.Join(db.NoSpace(err), s.release())
	}
	return s, nil
}

// openFile does the part of OpenRecords that a damaged file fails. It reads what is
// needed at once; the other tables are found damaged when they are used: a start
// must not take as long as the history is big.
func (s *Records) openFile() error {
	if _, err := os.Lstat(s.marker()); err == nil {
		return &db.DamagedError{Reason: "it was found damaged before"}
	}
	if err := s.open(); err != nil {
		return err
	}
	if err := s.schema().Migrate(s.conn); err != nil {
		return err
	}
	return s.check("suppressions", "removals")
}

// marker is a file that says that the database was found damaged while it was
// in use. The next start sees to it: other connections have the file open now.
func (s *Records) marker() string { return s.path + ".damaged" }

// setAside puts a new file in the place of a damaged one, which is kept.
func (s *Records) setAside(cause error) error {
	if s.conn != nil {
		_ = s.conn.Close() // of a file that is given up
		s.conn = nil
	}
	name, err := db.SetAside(s.path, time.Now().UTC().Format(".damaged-20060102-150405.000"))
	if err != nil {
		return fmt.Errorf("%s is damaged (%w) and cannot be set aside: %w", s.path, cause, err)
	}
	if err := os.Remove(s.marker()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	s.log.Error("the records were damaged: suppressions and history begin anew, mail is not touched; "+
		"what is readable can be rescued with sqlite3's .recover", "kept", name, "cause", cause)
	return nil
}

// describe says of a storage error what it means to a person, and leaves word
// for the next start when the file is damaged.
func (s *Records) describe(err error) error {
	switch {
	case db.IsCorrupt(err) && s.opts.Existing:
		return fmt.Errorf("%w: %s: %w", ErrDamaged, s.path, err)
	case db.IsCorrupt(err):
		s.troubled(fmt.Errorf("%s is damaged: %w", s.path, err), true)
		if f, ferr := os.OpenFile(s.marker(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); ferr == nil {
			err = errors.Join(err, f.Close())
			s.log.Error("the records are damaged; mail is not touched, and the next start sets the file aside and begins a new one",
				"file", s.path, "cause", err)
		}
		return fmt.Errorf("%s is damaged: %w", s.path, err)
	case db.IsDiskFull(err), db.IsIO(err):
		return fmt.Errorf("records in %s: %w", s.opts.Dir, err)
	}
	return err
}

func (*Records) begin(*tx)        {}
func (*Records) save(*tx) error   { return nil }
func (*Records) reopened() error  { return nil }
func (s *Records) failed(e error) { s.troubled(s.describe(e), false) }

// trouble is why the latest write failed, and since when writes fail.
type trouble struct {
	err     error
	since   time.Time
	damaged bool // until the next start, which sets the file aside
}

// Trouble is why the records are not kept, and since when; nil when they are.
// damaged says that this lasts until the next start sets the file aside.
func (s *Records) Trouble() (since time.Time, damaged bool, err error) {
	s.troubleMu.Lock()
	defer s.troubleMu.Unlock()
	return s.trouble.since, s.trouble.damaged, s.trouble.err
}

// troubled notes that a write failed, or that nothing is written any more.
func (s *Records) troubled(err error, damaged bool) {
	s.troubleMu.Lock()
	defer s.troubleMu.Unlock()
	if s.trouble.err == nil {
		s.trouble.since = time.Now()
	}
	s.trouble.err = err
	s.trouble.damaged = s.trouble.damaged || damaged
}

func (s *Records) committed(*tx) {
	s.troubleMu.Lock()
	defer s.troubleMu.Unlock()
	if !s.trouble.damaged {
		s.trouble = trouble{}
	}
}

// LearnSoon implements suppress.Store. When too many entries wait already, e is
// given up, and counted.
func (s *Records) LearnSoon(e suppress.Entry) {
	if s.enter() != nil {
		s.drop(1)
		return
	}
	defer s.leave()
	s.soonMu.Lock()
	defer s.soonMu.Unlock()
	if len(s.soon) >= s.opts.soonMax {
		s.drop(1)
		return
	}
	if s.soon = append(s.soon, e); len(s.soon) == 1 {
		time.AfterFunc(stored.Lateness, func() { _ = s.change(context.Background(), func(*tx) error { return nil }) })
	}
}

// drop counts what is given up.
func (s *Records) drop(n int) {
	s.dropped.Add(int64(n))
	s.metrics.dropped.Add(float64(n))
}

// change runs f in a transaction after all that was soon to be written, so that
// what was learnt first comes first.
func (s *Records) change(ctx context.Context, f func(t *tx) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.flush()
	return s.do(ctx, f)
}

func (s *Records) closing() { s.flush() }

// flush writes what LearnSoon was given. It is for within a call.
func (s *Records) flush() {
	waiting := func() []suppress.Entry {
		s.soonMu.Lock()
		defer s.soonMu.Unlock()
		return s.soon
	}
	if len(waiting()) == 0 {
		return
	}
	s.flushing.Lock()
	defer s.flushing.Unlock()
	soon := waiting()
	err := s.room()
	if err == nil {
		err = s.do(context.Background(), func(t *tx) error {
			for _, e := range soon {
				s.learn(t, e, e.Since)
			}
			return nil
		})
	}
	s.soonMu.Lock()
	s.soon = s.soon[len(soon):]
	s.soonMu.Unlock()
	if err != nil {
		s.drop(len(soon))
		s.troubled(err, false)
		if !s.losing {
			s.log.Error("records cannot be written and are lost; mail is not touched", "lost", len(soon), "cause", err)
		}
	}
	s.losing = err != nil
}

// room is why what need not be written is not: the queue needs what is left of the
// disk.
func (s *Records) room() error {
	if free, kept, err := s.Space(); err == nil && free < kept {
		return fmt.Errorf("records in %s: the disk is almost full, and the queue needs what is left", s.opts.Dir)
	}
	return nil
}

// readAll is read after all that was soon to be written, so that who asks is told
// the same as who sends. What cannot be written is no reason not to show the rest.
func (s *Records) readAll(ctx context.Context, f func(c *conn) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.flush()
	return s.read(ctx, f)
}

// aside runs f on the writer's connection outside of any transaction, for what
// SQLite does only so. All other writes wait for it.
func (s *Records) aside(ctx context.Context, f func(c *conn) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.submit(ctx, op{alone: f})
}
