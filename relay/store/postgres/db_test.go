package postgres

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/postgres/pgtest"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestMain(m *testing.M) {
	harness.Quick()
	goleak.VerifyTestMain(m)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// connect connects to a database until the test ends.
func connect(t testing.TB, url string, o Options) *DB {
	t.Helper()
	o.URL, o.Log = url, quiet()
	d, err := Connect(t.Context(), o)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

func (d *DB) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	must(t, d.do(t.Context(), func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, sql, args...)
		return err
	}))
}

// TestVersions: the schema is made by the first of several that come at once; one
// step more than this program knows is worked with, more is refused, and commands
// make nothing.
func TestVersions(t *testing.T) {
	s := pgtest.Start(t)
	url := s.URL(s.Database())
	if _, err := Connect(t.Context(), Options{URL: url, Existing: true, Log: quiet()}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a command in an empty database: %v", err)
	}
	errs := make(chan error)
	for range 4 {
		go func() {
			d, err := Connect(t.Context(), Options{URL: url, Log: quiet()})
			if err == nil {
				err = d.Close()
			}
			errs <- err
		}()
	}
	for range 4 {
		must(t, <-errs)
	}
	d := connect(t, url, Options{})
	for _, tt := range []struct {
		ahead    int
		existing bool
		want     error
	}{{0, true, nil}, {1, false, nil}, {1, true, nil}, {2, false, queue.ErrNewer}, {2, true, queue.ErrNewer}, {-len(migrations), true, fs.ErrNotExist}} {
		d.exec(t, "UPDATE smtp2rest.schema SET version = $1", len(migrations)+tt.ahead)
		other, err := Connect(t.Context(), Options{URL: url, Existing: tt.existing, Log: quiet()})
		if !errors.Is(err, tt.want) {
			t.Errorf("%d versions ahead: %v, want %v", tt.ahead, err, tt.want)
		}
		if err == nil {
			must(t, other.Close())
		}
	}
	// A plan that may not scan has a cost for which PostgreSQL would compile it first.
	compiled := 0
	must(t, d.do(t.Context(), func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, `SELECT count(*) FROM pg_proc WHERE pronamespace = 'smtp2rest'::regnamespace
			AND 'enable_seqscan=off' = ANY(proconfig) AND NOT 'jit=off' = ANY(proconfig)`).Scan(&compiled)
	}))
	if compiled > 0 {
		t.Errorf("%d functions may be compiled", compiled)
	}
}

// TestServerGone: without a server calls fail at once, and soon after it is back they
// do not. A context that ended is told as such, and nothing else is.
func TestServerGone(t *testing.T) {
	s := pgtest.Start(t)
	d := connect(t, s.URL(s.Database()), Options{})
	heard, lost := make(chan string, 100), make(chan struct{}, 100)
	d.Listen("test", func(payload string) { heard <- payload }, func() { lost <- struct{}{} })
	one := func(ctx context.Context) error {
		return d.do(ctx, func(ctx context.Context, c *pgx.Conn) error { return c.QueryRow(ctx, "SELECT 1").Scan(new(int)) })
	}
	<-lost // from now on it listens
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := one(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that ended: %v", err)
	}
	for round := range 2 {
		for len(lost) > 0 {
			<-lost
		}
		s.Stop()
		for range 3 {
			err := one(t.Context())
			if e, ok := errors.AsType[*Error](err); !ok || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("without a server: %v", err)
			} else if round > 0 {
				t.Log(e)
			}
		}
		s.Restart()
		for one(t.Context()) != nil {
			wait(t.Context(), 20*time.Millisecond)
		}
		<-lost
		d.Notify("other", "x")
		d.Notify("test", "hello you")
		if got := <-heard; got != "hello you" {
			t.Errorf("heard %q", got)
		}
	}
}
