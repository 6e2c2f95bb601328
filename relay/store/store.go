// Package store opens what a relay keeps over a restart: the queue with its
// marks, and the records (suppressions, the provider's events, the history). A
// URL says where and in which engine. That of relay/store/sqlite is "sqlite:" and the
// data directory, that of relay/store/postgres is the database's.
//
// Only this package imports an engine. All others know the contracts: relay/queue,
// relay/suppress and relay/history, with the suites that hold an engine to them.
// Whatever assumes that one process owns the queue (its lock, its counts, who is
// served next, Wake) is inside the engine, so that several relays can share
// another one.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay/forward"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/postgres"
	"github.com/smtp2rest/smtp2rest/relay/store/sqlite"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Options are what every engine takes.
type Options struct {
	Queue queue.Options
	// Existing is for a command that looks into the store of a relay that is
	// stopped: nothing is made, converted, tidied up or set aside, because the
	// files would be owned by whoever runs the command. Open then fails with
	// fs.ErrNotExist or queue.ErrOlder.
	Existing bool
	// Version is the program's. Relays that share a store see each other's.
	Version string
	// Part leaves the other one closed.
	Part    Part
	Log     *slog.Logger          // slog.Default() when nil
	Metrics prometheus.Registerer // nil: none
}

// Part is what of a store is opened.
type Part int

// The parts.
const (
	Everything Part = iota
	OnlyQueue
	OnlyRecords
)

// Queue is the mail, with the marks.
type Queue interface {
	queue.Queue
	// Writing is since when the engine is at one write, the zero Time when it
	// is at none. One that takes very long hangs, or its disk does, and only a
	// restart helps. An engine that gives up a write by itself returns the zero Time.
	Writing() time.Time
	// Space is how many bytes are free on the disk, and how many of them are
	// kept free: with less, no mail is taken. It fails with errors.ErrUnsupported
	// when the disk is that of another machine.
	Space() (free, kept int64, err error)
}

// Records are what is known about mail besides the mail itself.
type Records interface {
	suppress.Store
	history.Store
	// BadNews counts the hard bounces and complaints that came since a time.
	BadNews(ctx context.Context, since time.Time) (bounced, complained int64, err error)
	// Erase takes an address off the list of suppressions without a trace.
	Erase(ctx context.Context, address string) (known bool, err error)
	// Trouble is why nothing can be written, and since when; nil when all is
	// well. damaged says that this ends with the next start and not before.
	Trouble() (since time.Time, damaged bool, err error)
}

// Store is all of it, open.
type Store struct {
	Queue Queue // nil with OnlyRecords
	// Records are nil with OnlyQueue, and when they cannot be used and RecordsErr
	// says why. The latter is only so with Existing and Everything: a relay that
	// starts sets damaged records aside.
	Records    Records
	RecordsErr error
	// Relays are those that share it. It is nil for an engine of one relay.
	Relays func(context.Context) ([]Relay, error)
	// Account is where they share what they know of an account at the provider. It is
	// nil for an engine of one relay.
	Account func(name string) *Account
	// Forwards is what is to be posted to endpoints. It is nil without Records, and
	// where the engine keeps none.
	Forwards forward.Store

	prepare []func(queue.Options) (apply func(), err error)
	close   []func() error
}

// Relay is one of several that share a store.
type Relay = postgres.Relay

// Account is what relays that share a store know of an account at the provider. It
// implements pace.Ledger.
type Account = postgres.Account

// SQLite is the URL of a data directory.
func SQLite(dir string) string { return "sqlite:" + dir }

// Place is where a store is, for people: it never has a password.
type Place struct {
	Name string // the data directory, or the URL of a database as far as it is no secret
	Dir  string // the data directory; "" is an engine that is not on this disk
}

// PlaceOf is where the store of a URL is.
func PlaceOf(url string) (Place, error) {
	if dir, ok := strings.CutPrefix(url, "sqlite:"); ok && dir != "" {
		return Place{Name: dir, Dir: dir}, nil
	}
	for _, scheme := range []string{"postgres://", "postgresql://"} {
		if rest, ok := strings.CutPrefix(url, scheme); ok {
			return Place{Name: scheme + withoutPassword(rest)}, nil
		}
	}
	// What was found is not shown: it may be a URL with a password.
	return Place{}, errors.New("the URL of a store begins with postgres:// or postgresql://, or with sqlite: and a data directory")
}

// withoutPassword is user, hosts and database of a URL. A password that should have been
// escaped may have any character, but what is before the last @ is not the host.
func withoutPassword(rest string) string {
	user := ""
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		user, _, _ = strings.Cut(rest[:at], ":")
		user, rest = user+"@", rest[at+1:]
	}
	rest, query, _ := strings.Cut(rest, "?")
	for one := range strings.SplitSeq(query, "&") {
		if strings.HasPrefix(one, "host=") { // the directory of a socket
			rest += "?" + one
		}
	}
	return user + rest
}

// Open opens a store, or makes it. It fails with queue.ErrLocked when another
// process has it and relays cannot share it, with queue.ErrNewer when a later version
// wrote it, and with an error that says the way out when the queue is damaged; nothing
// is changed then.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	p, err := PlaceOf(url)
	switch {
	case err != nil:
		return nil, err
	case p.Dir == "":
		return openPostgres(ctx, url, o)
	default:
		return openSQLite(p.Dir, o)
	}
}

func openSQLite(dir string, o Options) (*Store, error) {
	s := &Store{}
	if o.Part != OnlyRecords {
		q, err := sqlite.OpenQueue(sqlite.Options{Dir: dir, Queue: o.Queue, Existing: o.Existing, Log: o.Log, Metrics: o.Metrics})
		if err != nil {
			return nil, err
		}
		s.Queue = q
		s.prepare, s.close = append(s.prepare, q.Prepare), append(s.close, q.Close)
	}
	if o.Part == OnlyQueue {
		return s, nil
	}
	r, err := sqlite.OpenRecords(sqlite.Options{Dir: dir, Queue: o.Queue, Existing: o.Existing, Log: o.Log, Metrics: o.Metrics})
	switch {
	case err == nil:
		s.Records, s.Forwards = r, r
		s.prepare, s.close = append(s.prepare, r.Prepare), append(s.close, r.Close)
	case o.Existing && o.Part == Everything:
		s.RecordsErr = err
	default:
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func openPostgres(ctx context.Context, url string, o Options) (*Store, error) {
	db, err := postgres.Connect(ctx, postgres.Options{URL: url, Queue: o.Queue, Existing: o.Existing, Version: o.Version, Log: o.Log, Metrics: o.Metrics})
	if err != nil {
		return nil, err
	}
	s := &Store{Relays: db.Relays, Account: db.Account}
	if o.Part != OnlyRecords {
		q, err := postgres.NewQueue(ctx, db)
		if err != nil {
			return nil, errors.Join(err, db.Close())
		}
		s.Queue = q
		s.prepare, s.close = append(s.prepare, q.Prepare), append(s.close, q.Close)
	}
	if o.Part != OnlyQueue {
		r := postgres.NewRecords(db)
		s.Records = r
		s.prepare, s.close = append(s.prepare, r.Prepare), append(s.close, r.Close)
	}
	s.close = append(s.close, db.Close)
	return s, nil
}

// Prepare makes ready to go on with other Options.Queue. What is kept already
// stays, however much it is.
func (s *Store) Prepare(o queue.Options) (apply func(), err error) {
	var ready []func()
	for _, prepare := range s.prepare {
		apply, err := prepare(o)
		if err != nil {
			return nil, err
		}
		ready = append(ready, apply)
	}
	return func() {
		for _, apply := range ready {
			apply()
		}
	}, nil
}

// Close ends the calls that are under way and lets go of everything. See
// queue.Queue.
func (s *Store) Close() error {
	var errs []error
	for _, end := range s.close {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// Exists fails with fs.ErrNotExist when there is no queue, or with OnlyRecords no
// records, at a URL. It opens nothing: whether a database has a store is seen when it is
// opened.
func Exists(url string, p Part) error {
	place, err := PlaceOf(url)
	if err != nil || place.Dir == "" {
		return err
	}
	dir := place.Dir
	name := sqlite.QueueFile
	if p == OnlyRecords {
		name = sqlite.RecordsFile
	}
	_, err = os.Stat(filepath.Join(dir, name))
	return err
}

// SetAside renames the queue of a store that nobody has open, so that the next
// Open begins with an empty one. Nothing is removed. It returns the new name. It fails
// for an engine that has no files on this disk.
func SetAside(url string, now time.Time) (string, error) {
	p, err := PlaceOf(url)
	if err == nil && p.Dir == "" {
		err = fmt.Errorf("%s has no files here: restore it from a backup, or take another database (docs/postgresql.md)", p.Name)
	}
	if err != nil {
		return "", err
	}
	return sqlite.SetAside(p.Dir, now)
}
