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

	"go.uber.org/goleak"
	_ "modernc.org/sqlite" // to damage what is stored

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history/historytest"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/queue/queuetest"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/relay/suppress/suppresstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// engine is one of those that Open knows. A new one is another line here.
type engine struct {
	url    func(dir string) string
	damage func(dir, id string) error // flips a bit of a stored mail's content
}

func engines() map[string]engine {
	return map[string]engine{"sqlite": {store.SQLite, damageSQLite}}
}

func (e engine) open(dir string, o store.Options) (*store.Store, error) {
	o.Log = slog.New(slog.DiscardHandler)
	return store.Open(context.Background(), e.url(dir), o)
}

func damageSQLite(dir, id string) error {
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

func TestQueueContract(t *testing.T) {
	for name, e := range engines() {
		t.Run(name, func(t *testing.T) {
			queuetest.Run(t, func(tb queuetest.TB) queuetest.Backend {
				dir, err := os.MkdirTemp(t.TempDir(), "")
				if err != nil {
					tb.Fatalf("%v", err)
				}
				return queuetest.Backend{
					Open: func(o queue.Options) (queue.Queue, error) {
						s, err := e.open(dir, store.Options{Part: store.OnlyQueue, Queue: o})
						if err != nil {
							return nil, err
						}
						return s.Queue, nil
					},
					Damage: func(id string) error { return e.damage(dir, id) },
					Remove: func() { _ = os.RemoveAll(dir) },
				}
			})
		})
	}
}

func TestSuppressContract(t *testing.T) {
	for name, e := range engines() {
		t.Run(name, func(t *testing.T) {
			suppresstest.Run(t, func(t *testing.T) suppresstest.Backend {
				dir, err := os.MkdirTemp(t.TempDir(), "")
				if err != nil {
					t.Fatal(err)
				}
				var s *store.Store
				open := func() suppress.Store {
					if s, err = e.open(dir, store.Options{Part: store.OnlyRecords}); err != nil {
						t.Fatal(err)
					}
					opened := s
					t.Cleanup(func() { _ = opened.Close() }) // twice is harmless
					return s.Records
				}
				end := func(f func() error) func() {
					return func() {
						if err := f(); err != nil {
							t.Fatal(err)
						}
					}
				}
				return suppresstest.Backend{
					Store:  open(),
					Reopen: func() suppress.Store { end(func() error { return s.Close() })(); return open() },
					Flush:  end(func() error { return s.Records.Put(context.Background(), nil) }),
					Close:  end(func() error { return errors.Join(s.Close(), os.RemoveAll(dir)) }),
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
			base := t.TempDir()
			historytest.Run(t, func(tb historytest.TB) historytest.Backend {
				dir, err := os.MkdirTemp(base, "") // removed after each case: there may be many thousand
				if err != nil {
					tb.Fatal(err)
				}
				b := &pastBackend{reopen: func() (*store.Store, error) { return e.open(dir, store.Options{Part: store.OnlyRecords}) }}
				if err := b.Restart(); err != nil {
					tb.Fatal(err)
				}
				tb.Cleanup(func() { _ = errors.Join(b.s.Close(), os.RemoveAll(dir)) })
				return b
			})
		})
	}
}

// TestOpen: all of it opens together and again, one process at a time; what a
// command opens is there, and is only what it asks for.
func TestOpen(t *testing.T) {
	for name, e := range engines() {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			if err := store.Exists(e.url(dir), store.Everything); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("before it is made: %v", err)
			}
			if _, err := e.open(dir, store.Options{Existing: true}); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a command opens what is not there: %v", err)
			}
			for range 2 {
				s, err := e.open(dir, store.Options{})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := e.open(dir, store.Options{}); !errors.Is(err, queue.ErrLocked) {
					t.Errorf("twice at a time: %v", err)
				}
				if free, kept, err := s.Queue.Space(); err != nil || free <= 0 || kept <= 0 {
					t.Errorf("%d bytes free, %d kept, %v", free, kept, err)
				}
				apply, err := s.Prepare(queue.Options{MinFree: 1 << 60})
				if err != nil {
					t.Fatal(err)
				}
				apply()
				if err := s.Queue.Enqueue(t.Context(), queue.NewMail(relay.Message{ID: "a", Recipients: []string{"b@c"}})); !errors.Is(err, queue.ErrFull) {
					t.Errorf("after Prepare: %v", err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			s, err := e.open(dir, store.Options{Existing: true, Part: store.OnlyRecords})
			if err != nil || s.Queue != nil {
				t.Fatalf("only the records: %+v, %v", s, err)
			}
			whole, err := e.open(dir, store.Options{Existing: true}) // the other has the records
			if err != nil || whole.Records != nil || !errors.Is(whole.RecordsErr, queue.ErrLocked) {
				t.Fatalf("a queue beside records that cannot be used: %+v, %v", whole, err)
			}
			if err := errors.Join(s.Close(), whole.Close()); err != nil {
				t.Error(err)
			}
		})
	}
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
