package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/smtp2rest/smtp2rest/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStore remembers what it was given, and can fail or take its time.
type fakeStore struct {
	mu     sync.Mutex
	writes [][]Change
	err    error
	hold   chan struct{} // if set, a write waits for it
	bytes  int64
	pruned []bool // force, of each call
	old    int    // mails that may be pruned
}

func (s *fakeStore) Write(_ context.Context, changes []Change) error {
	if s.hold != nil {
		<-s.hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.writes = append(s.writes, append([]Change(nil), changes...))
	return nil
}

func (s *fakeStore) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *fakeStore) mails() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.writes {
		n += len(w)
	}
	return n
}

func (s *fakeStore) Get(context.Context, string) (Mail, bool, error) { return Mail{}, false, nil }

func (s *fakeStore) Find(context.Context, Query) ([]Mail, string, error) { return nil, "", nil }

func (s *fakeStore) MarkUnknown(context.Context, string, string, time.Time) error { return nil }

func (s *fakeStore) Prune(_ context.Context, _ time.Time, limit int, force bool) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pruned = append(s.pruned, force)
	n := min(s.old, limit)
	s.old -= n
	if force && n == 0 {
		n = min(limit, int(s.bytes/100))
		s.bytes -= int64(n) * 100
	}
	return n, nil
}

func (s *fakeStore) Bytes(context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes, nil
}

func (s *fakeStore) Forget(context.Context, string, []string) (Forgotten, error) {
	return Forgotten{}, nil
}

func newTest(t *testing.T, s *fakeStore, o Options) *Recorder {
	o.Store, o.Log = s, slog.New(slog.NewTextHandler(io.Discard, nil))
	if o.Keep == 0 {
		o.Keep = time.Hour
	}
	r := NewRecorder(o)
	r.Start()
	t.Cleanup(r.Stop)
	return r
}

func tried(n int) Fact {
	return Tried{ID: fmt.Sprint("id", n), To: "bob@example.net", At: time.Now(), Outcome: relay.Outcome{Kind: relay.Accepted, MessageID: "msg"}}
}

func TestFactsAreWrittenTogetherWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{}
		r := newTest(t, s, Options{})
		for n := range 30 {
			r.Note(tried(n % 10))
		}
		time.Sleep(time.Second)
		r.Stop()
		if len(s.writes) != 1 || s.mails() != 10 || len(s.writes[0][0].Recipients[0].Steps) != 3 {
			t.Errorf("%d writes of %d mails", len(s.writes), s.mails())
		}
	})
}

func TestManyFactsDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{}
		r := newTest(t, s, Options{})
		begun := time.Now()
		for n := range enough {
			r.Note(tried(n))
		}
		synctest.Wait()
		if s.mails() != enough || time.Since(begun) != 0 {
			t.Errorf("%d mails after %v", s.mails(), time.Since(begun))
		}
		r.Stop()
		if n := len(s.writes); n != (enough+atOnce-1)/atOnce {
			t.Errorf("%d writes", n)
		}
	})
}

// A store that hangs or fails costs those who note nothing, memory is bounded,
// and what could be kept in it is written when the store works again.
func TestATroubledStoreIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{err: errors.New("no disk")}
		r := newTest(t, s, Options{most: 100})
		for n := range 60 {
			r.Note(tried(n))
		}
		time.Sleep(time.Second) // tried, and failed
		for n := range 60 {
			r.Note(tried(100 + n))
		}
		if lost := testutil.ToFloat64(r.metrics.lost); lost != 20 {
			t.Errorf("%v facts are lost, want 20", lost)
		}
		s.fail(nil)
		time.Sleep(2 * defaultRetry)
		if s.mails() != 100 {
			t.Errorf("%d mails were written, want 100", s.mails())
		}
		r.Note(tried(1000))
		if err := r.Flush(t.Context()); err != nil || s.mails() != 101 {
			t.Errorf("%d mails, %v", s.mails(), err)
		}
		r.Stop()
	})
}

func TestNoteDoesNotWaitForAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{hold: make(chan struct{})}
		r := newTest(t, s, Options{})
		r.Note(tried(1))
		time.Sleep(time.Second) // the write hangs
		begun := time.Now()
		r.Note(tried(2))
		if took := time.Since(begun); took != 0 {
			t.Errorf("it took %v", took)
		}
		close(s.hold)
		r.Stop()
		if s.mails() != 2 {
			t.Errorf("%d mails", s.mails())
		}
	})
}

func TestStopWritesTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{}
		r := newTest(t, s, Options{})
		r.Note(tried(1))
		r.Stop()
		r.Note(tried(2))
		if s.mails() != 1 {
			t.Errorf("%d mails", s.mails())
		}
		if err := r.Flush(t.Context()); !errors.Is(err, ErrStopped) {
			t.Errorf("Flush after Stop: %v", err)
		}
		r.Stop()
	})
}

func TestKeepNothing(t *testing.T) {
	s := &fakeStore{old: 3}
	r := NewRecorder(Options{Store: s, Log: slog.New(slog.DiscardHandler)})
	r.Note(tried(1))
	if len(r.facts) != 0 {
		t.Error("it is noted")
	}
	if _, err := r.pruneOnce(t.Context()); err != nil || !s.pruned[0] || s.old != 0 {
		t.Errorf("what there was is kept: %v, %v", s.pruned, err)
	}
}

func TestPruning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStore{old: 3 * pruneStep, bytes: 100_000}
		r := newTest(t, s, Options{Bounds: Bounds{MaxSize: 50_000}})
		time.Sleep(time.Minute)
		r.Stop()
		if s.old != 0 || s.bytes > 50_000 || s.bytes < 30_000 {
			t.Errorf("%d old mails, %d bytes", s.old, s.bytes)
		}
		if s.pruned[0] || !slices.Contains(s.pruned, true) {
			t.Errorf("settled mail goes first: %v", s.pruned)
		}
	})
}

// What a record keeps does not keep the mail.
func TestStringsAreBoundedCopies(t *testing.T) {
	raw := strings.Repeat("ü", 2000)
	c := NewCame(&relay.Message{ID: "x", Raw: []byte(raw)}, Head{Subject: raw, LeftOut: []LeftOut{{"k", raw}}})
	if len(c.head.Subject) > maxSubject || len(c.head.LeftOut[0].Detail) > maxWords || c.message.Raw != nil || c.head.Size != int64(len(raw)) {
		t.Errorf("%d, %d", len(c.head.Subject), len(c.head.LeftOut[0].Detail))
	}
	if s := clip("a\xffb", 10); s != "a�b" {
		t.Errorf("%q", s)
	}
}

func TestStateAfterEvents(t *testing.T) {
	for _, tt := range []struct {
		events string
		want   State
	}{
		{"delivered", Delivered}, {"opened", Delivered}, {"bounced.soft", Sent}, {"unheard.of", Sent},
		{"bounced.hard delivered", Bounced}, {"delivered complained opened", Complained}, {"complained bounced.hard complained", Bounced},
	} {
		s := Sent
		for e := range strings.FieldsSeq(tt.events) {
			s = s.After(e)
		}
		if s != tt.want {
			t.Errorf("%s leads to %s, want %s", tt.events, s, tt.want)
		}
	}
	if got := Failed.After("delivered"); got != Failed {
		t.Errorf("what failed is %s", got)
	}
}
