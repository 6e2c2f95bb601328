package sqlite

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/queue/queuetest"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestMain(m *testing.M) {
	harness.Quick()
	goleak.VerifyTestMain(m)
}

// TestContractWithFailedTransactions: the contract (relay/store runs it without) when
// the storage refuses each transaction once, after all of its changes were made.
// Nothing of them may show in what is made of the same calls after that.
func TestContractWithFailedTransactions(t *testing.T) {
	testContract(t, Options{before: failOnce})
}

// failOnce makes the changes of a group and takes them back.
func failOnce(d *database, group []op) {
	t, err := d.begin()
	if err != nil {
		return
	}
	for _, o := range group {
		_, _ = t.run(o)
	}
	_ = d.rollback(nil)
}

func testContract(t *testing.T, o Options) {
	queuetest.Run(t, func(tb queuetest.TB) queuetest.Backend {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			tb.Fatalf("%v", err)
		}
		o := o
		o.Dir, o.Log = dir, quiet()
		return queuetest.Backend{
			Open: func(q queue.Options) (queue.Queue, error) {
				o.Queue = q
				return OpenQueue(o)
			},
			Damage: func(id string) error { return damageStored(dir, id) },
			Remove: func() { _ = os.RemoveAll(dir) },
		}
	})
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// damageStored flips a bit of a mail's content, wherever it is.
func damageStored(dir, id string) error {
	s, err := OpenQueue(Options{Dir: dir, Log: quiet()})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	r, err := s.conn.One("SELECT seq, spool, size FROM mails WHERE id = ?", id)
	if err != nil || r == nil {
		return errors.Join(err, errors.New("no mail "+id))
	}
	name, at := r.Text(1), r.Int(2)/2
	if name != "" {
		b, err := os.ReadFile(s.spool.path(name))
		if err != nil {
			return err
		}
		b[at] ^= 1
		return os.WriteFile(s.spool.path(name), b, 0o600)
	}
	b, err := s.conn.One("SELECT raw FROM bodies WHERE seq = ?", r.Int(0))
	if err != nil {
		return err
	}
	raw := b.Blob(0)
	raw[len(raw)/2] ^= 1
	_, err = s.conn.Exec("UPDATE bodies SET raw = ? WHERE seq = ?", raw, r.Int(0))
	return err
}

func openQueue(t *testing.T, dir string, o Options) *Queue {
	t.Helper()
	o.Dir = dir
	if o.Log == nil {
		o.Log = quiet()
	}
	s, err := OpenQueue(o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
