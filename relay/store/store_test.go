package store_test

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite" // to damage what is stored

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/forward"
	"github.com/smtp2rest/smtp2rest/relay/forward/forwardtest"
	"github.com/smtp2rest/smtp2rest/relay/history/historytest"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/queue/queuetest"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/relay/store/postgres/pgtest"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/relay/suppress/suppresstest"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestMain(m *testing.M) {
	harness.Quick()
	goleak.VerifyTestMain(m)
}

// engine is one of those that Open knows. A new one is another line in engines.
type engine struct {
	start  func(t *testing.T) fresh
	damage func(url, id string) error // flips a bit of a stored mail's content
	// shared: several processes may have a store open at once.
	shared bool
}

// fresh is where there is no store yet, until remove is called.
type fresh func() (url string, remove func() error, err error)

func engines() map[string]engine {
	return map[string]engine{
		"sqlite":   {start: directories, damage: damageSQLite},
		"postgres": {start: databases, damage: damagePostgres, shared: true},
	}
}

// directories are data directories. They are removed one by one: there may be many thousand.
func directories(t *testing.T) fresh {
	base := t.TempDir()
	return func() (string, func() error, error) {
		dir, err := os.MkdirTemp(base, "")
		return store.SQLite(filepath.Join(dir, "data")), func() error { return os.RemoveAll(dir) }, err
	}
}

// databases are databases of one server. One that is removed is emptied and used
// again: there may be many thousand, and to make one takes longer than most tests.
func databases(t *testing.T) fresh {
	server := pgtest.Start(t)
	var empty []string
	return func() (string, func() error, error) {
		if len(empty) == 0 {
			empty = append(empty, server.Database())
		}
		database := empty[0]
		empty = empty[1:]
		return server.URL(database), func() error {
			server.Exec(database, `DO $$ BEGIN EXECUTE (SELECT 'TRUNCATE ' || string_agg('smtp2rest.' || tablename, ', ')
				FROM pg_tables WHERE schemaname = 'smtp2rest' AND tablename <> 'schema'); END $$`)
			empty = append(empty, database)
			return nil
		}, nil
	}
}

func damagePostgres(url, id string) error {
	ctx := context.Background()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	tag, err := c.Exec(ctx, `UPDATE smtp2rest.bodies b SET raw = set_byte(b.raw, length(b.raw) / 2, get_byte(b.raw, length(b.raw) / 2) # 1)
		FROM smtp2rest.mails m WHERE m.id = $1 AND b.seq = m.seq AND b.part = 0`, id)
	if err == nil && tag.RowsAffected() != 1 {
		err = errors.New("no mail " + id)
	}
	return err
}

func open(url string, o store.Options) (*store.Store, error) {
	o.Log = slog.New(slog.DiscardHandler)
	return store.Open(context.Background(), url, o)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func damageSQLite(url, id string) error {
	dir := strings.TrimPrefix(url, "sqlite:")
	db, err := sql.Open("sqlite", filepath.Join(dir, "queue.db"))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	var seq int64
	var name string
	if err := db.QueryRow("SELECT seq, spool FROM mails WHERE id = ?", id).Scan(&seq, &name); err != nil {
		return err
	}
	if name != "" {
		name = filepath.Join(dir, "spool", name)
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		return os.WriteFile(name, b, 0o600)
	}
	var raw []byte
	if err := db.QueryRow("SELECT raw FROM bodies WHERE seq = ?", seq).Scan(&raw); err != nil {
		return err
	}
	raw[len(raw)/2] ^= 1
	_, err = db.Exec("UPDATE bodies SET raw = ? WHERE seq = ?", raw, seq)
	return err
}

// whole is a queue that closes all of its store.
type whole struct {
	queue.Queue
	store *store.Store
}

func (w whole) Close() error { return w.store.Close() }

func TestQueueContract(t *testing.T) {
	for name, e := range engines() {
		t.Run(name, func(t *testing.T) {
			fresh := e.start(t)
			queuetest.Run(t, func(tb queuetest.TB) queuetest.Backend {
				url, remove, err := fresh()
				if err != nil {
					tb.Fatalf("%v", err)
				}
				return queuetest.Backend{
					Open: func(o queue.Options) (queue.Queue, error) {
						s, err := open(url, store.Options{Part: store.OnlyQueue, Queue: o})
						if err != nil {
							return nil, err
						}
						return whole{s.Queue, s}, nil
					},
					Damage: func(id string) error { return e.damage(url, id) },
					Remove: func() { _ = remove() },
				}
			})
		})
	}
}

// TestForwardContract is for the engine that keeps events until they are posted.
func TestForwardContract(t *testing.T) {
	forwardtest.Run(t, func(t *testing.T) forwardtest.Backend {
		url := store.SQLite(t.TempDir())
		return forwardtest.Backend{Open: func() (forward.Store, func() error, error) {
			s, err := open(url, store.Options{Part: store.OnlyRecords})
			if err != nil {
				return nil, nil, err
			}
			return s.Forwards, s.Close, nil
		}}
	})
}

func TestSuppressContract(t *testing.T) {
	for name, e := range engines() {
		t.Run(name, func(t *testing.T) {
			fresh := e.start(t)
			suppresstest.Run(t, func(t *testing.T) suppresstest.Backend {
				url, remove, err := fresh()
				must(t, err)
				var s *store.Store
				begin := func() suppress.Store {
					s, err = open(url, store.Options{Part: store.OnlyRecords})
					must(t, err)
					opened := s
					t.Cleanup(func() { _ = opened.Close() }) // twice is harmless
					return s.Records
				}
				return suppresstest.Backend{
					Store:  begin(),
					Reopen: func() suppress.Store { must(t, s.Close()); return begin() },
					Flush:  func() { must(t, s.Records.Put(context.Background(), nil)) },
					Close:  func() { must(t, errors.Join(s.Close(), remove())) },
				}
			})
		})
	}
}

// pastBackend is the records as historytest wants them.
type pastBackend struct {
	store.Records
	s      *store.Store
	reopen func() (*store.Store, error)
}

func (b *pastBackend) AddEvent(e relay.Event) error {
	_, err := b.TakeEvent(context.Background(), e, suppress.Normalise(e.Email), nil)
	return err
}

func (b *pastBackend) Restart() (err error) {
	if b.s != nil {
		err = b.s.Close()
	}
	if err == nil {
		b.s, err = b.reopen()
	}
	if err == nil {
		b.Records = b.s.Records
	}
	return err
}

func TestHistoryContract(t *testing.T) {
	for name, e := range engines() {
		t.Run(name, func(t *testing.T) {
			fresh := e.start(t)
			historytest.Run(t, func(tb historytest.TB) historytest.Backend {
				url, remove, err := fresh()
				if err != nil {
					tb.Fatal(err)
				}
				b := &pastBackend{reopen: func() (*store.Store, error) { return open(url, store.Options{Part: store.OnlyRecords}) }}
				if err := b.Restart(); err != nil {
					tb.Fatal(err)
				}
				tb.Cleanup(func() { _ = errors.Join(b.s.Close(), remove()) })
				return b
			})
		})
	}
}

// TestOpen: all of it opens together and again, by one process at a time unless the
// engine is shared; what a command opens is there, and is only what it asks for.
func TestOpen(t *testing.T) {
	for name, e := range engines() {
		t.Run(name, func(t *testing.T) {
			url, _, err := e.start(t)()
			must(t, err)
			if err := store.Exists(url, store.Everything); !e.shared && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("before it is made: %v", err)
			}
			if _, err := open(url, store.Options{Existing: true}); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a command opens what is not there: %v", err)
			}
			for range 2 {
				s, err := open(url, store.Options{})
				must(t, err)
				if e.shared {
					openShared(t, url, s)
				} else {
					openAlone(t, url, s)
				}
				must(t, s.Close())
			}
			s, err := open(url, store.Options{Existing: true, Part: store.OnlyRecords})
			if err != nil || s.Queue != nil {
				t.Fatalf("only the records: %+v, %v", s, err)
			}
			whole, err := open(url, store.Options{Existing: true}) // beside it
			must(t, err)
			if locked := errors.Is(whole.RecordsErr, queue.ErrLocked); locked == e.shared || (whole.Records == nil) != locked {
				t.Fatalf("a queue beside records that are open: %+v", whole)
			}
			must(t, errors.Join(s.Close(), whole.Close()))
		})
	}
}

// openAlone is a store that has its data to itself, on a disk of this machine.
func openAlone(t *testing.T, url string, s *store.Store) {
	if _, err := open(url, store.Options{}); !errors.Is(err, queue.ErrLocked) {
		t.Errorf("twice at a time: %v", err)
	}
	if free, kept, err := s.Queue.Space(); err != nil || free <= 0 || kept <= 0 {
		t.Errorf("%d bytes free, %d kept, %v", free, kept, err)
	}
	apply, err := s.Prepare(queue.Options{MinFree: 1 << 60})
	must(t, err)
	apply()
	if err := s.Queue.Enqueue(t.Context(), queue.NewMail(relay.Message{ID: "a", Recipients: []string{"b@c"}})); !errors.Is(err, queue.ErrFull) {
		t.Errorf("after Prepare: %v", err)
	}
}

// openShared is a store that others have as well, on a disk that is not ours.
func openShared(t *testing.T, url string, s *store.Store) {
	other, err := open(url, store.Options{})
	must(t, err)
	if _, _, err := s.Queue.Space(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Space: %v", err)
	}
	apply, err := s.Prepare(queue.Options{MaxMails: 1})
	must(t, err)
	apply()
	mail := queue.NewMail(relay.Message{ID: relay.NewID(time.Now()), Recipients: []string{"b@c"}, Raw: []byte("x")})
	must(t, s.Queue.Enqueue(t.Context(), mail))
	if _, err := other.Queue.Get(t.Context(), mail.Message.ID); err != nil {
		t.Errorf("the other one: %v", err)
	}
	if err := s.Queue.Enqueue(t.Context(), queue.NewMail(relay.Message{ID: relay.NewID(time.Now()), Recipients: []string{"b@c"}})); !errors.Is(err, queue.ErrFull) {
		t.Errorf("after Prepare: %v", err)
	}
	_, err = s.Queue.Drop(t.Context(), queue.Filter{ID: mail.Message.ID})
	must(t, errors.Join(err, other.Close()))
}

func TestURLs(t *testing.T) {
	for _, url := range []string{"", "sqlite:", "mysql://u:hunter2@localhost/x", t.TempDir()} {
		if _, err := store.Open(t.Context(), url, store.Options{}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// TestPlaces: people are told where a store is, and never its password.
func TestPlaces(t *testing.T) {
	for url, want := range map[string]store.Place{
		"sqlite:/var/lib/x":                     {Name: "/var/lib/x", Dir: "/var/lib/x"},
		"postgres://db/mail":                    {Name: "postgres://db/mail"},
		"postgresql://u:hunter2@a:1,b:2/mail":   {Name: "postgresql://u@a:1,b:2/mail"},
		"postgres://u:hunt/er?2@h@db/mail":      {Name: "postgres://u@db/mail"},
		"postgres:///mail?host=/run/pg&user=u":  {Name: "postgres:///mail?host=/run/pg"},
		"postgres://db/m?user=u&password=hunt2": {Name: "postgres://db/m"},
	} {
		if got, err := store.PlaceOf(url); err != nil || got != want {
			t.Errorf("%s: %+v, %v", url, got, err)
		}
	}
}
