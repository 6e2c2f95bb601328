package records

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func openTest(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	o.Dir = dir
	if o.Log == nil {
		o.Log = quiet()
	}
	s, err := Open(o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func TestBadNews(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	for n, kind := range []string{"bounced.hard", "bounced.hard", "complained", "bounced.soft", "delivered", "bounced.hard"} {
		e := event(n)
		e.Type = kind
		must(t, s.durable(t.Context(), insert(e)))
	}
	bounced, complained, err := s.BadNews(t.Context(), event(1).Received)
	if err != nil || bounced != 2 || complained != 1 {
		t.Errorf("%d bounced, %d complained, %v", bounced, complained, err)
	}
}

func event(n int) relay.Event {
	at := time.Date(2026, 5, 13, 10, 24, n, 0, time.UTC)
	return relay.Event{
		ID: fmt.Sprintf("evt_%d", n), Type: "bounced.hard", Created: at, Occurred: at.Add(-3 * time.Second), Email: "Bob@example.net",
		MessageID: fmt.Sprintf("msg_%d", n%3), BounceCode: "550", BounceReason: "5.1.1 no such user", Received: at.Add(time.Minute),
	}
}

func insert(e relay.Event) func(t *tx) error {
	return func(t *tx) error {
		_, err := t.insertEvent(e, strings.ToLower(e.Email))
		return err
	}
}

// count reads what is in the file, not what the store believes.
func count(t *testing.T, dir string) int64 {
	t.Helper()
	c, err := db.Connect(db.Name(filepath.Join(dir, FileName), ""), "PRAGMA query_only=1")
	must(t, err)
	n, err := c.Number("SELECT COUNT(*) FROM events")
	must(t, errors.Join(err, c.Close()))
	return n
}

func TestDurableIsOnTheDiskWhenItReturns(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	for i := range 3 {
		must(t, s.durable(t.Context(), insert(event(i))))
		if n := count(t, dir); n != int64(i)+1 {
			t.Fatalf("%d events after %d", n, i+1)
		}
	}
}

// untilWaiting returns when n durable writes wait for the writer.
func untilWaiting(s *Store, n int) {
	for waiting := 0; waiting < n; runtime.Gosched() {
		s.writer.mu.Lock()
		waiting = len(s.writer.ops)
		s.writer.mu.Unlock()
	}
}

// TestGroups: writes that wait at the same time share commits.
func TestGroups(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	before := s.commits.Load()
	started, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // holds the writer until all others wait
		must(t, s.durable(t.Context(), func(*tx) error { close(started); <-release; return nil }))
	})
	<-started
	const n = 100
	for i := range n {
		wg.Go(func() { must(t, s.durable(t.Context(), insert(event(i)))) })
	}
	untilWaiting(s, n)
	close(release)
	wg.Wait()
	if got := s.commits.Load() - before; got != 2 {
		t.Errorf("%d commits for 1 and %d writes at once", got, n)
	}
	if got := count(t, dir); got != n {
		t.Errorf("%d events", got)
	}
}

// TestOneFailsAlone: what one write cannot do does not fail those that shared
// its transaction, and leaves nothing behind.
func TestOneFailsAlone(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	started, release := make(chan struct{}), make(chan struct{})
	refused := errors.New("refused")
	var wg sync.WaitGroup
	wg.Go(func() {
		must(t, s.durable(t.Context(), func(*tx) error { close(started); <-release; return nil }))
	})
	<-started
	var hooks []int // by the writer alone
	for i := range 10 {
		wg.Go(func() {
			err := s.durable(t.Context(), func(t *tx) error {
				t.after(func() { hooks = append(hooks, i) })
				if err := insert(event(i))(t); err != nil || i != 5 {
					return err
				}
				return refused
			})
			if i == 5 != errors.Is(err, refused) {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	untilWaiting(s, 10)
	close(release)
	wg.Wait()
	slices.Sort(hooks)
	if !slices.Equal(hooks, []int{0, 1, 2, 3, 4, 6, 7, 8, 9}) || count(t, dir) != 9 {
		t.Errorf("hooks of %v, %d events", hooks, count(t, dir))
	}
}

func TestLater(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	written := make(chan struct{})
	s.later(func(t *tx) error {
		t.after(func() { close(written) })
		return insert(event(1))(t)
	})
	<-written // in its own time
	if count(t, dir) != 1 {
		t.Error("not there after its commit")
	}
	s.later(insert(event(2)))
	must(t, s.durable(t.Context(), func(t *tx) error { // what was asked for first comes first
		if n, err := t.Number("SELECT COUNT(*) FROM events"); n != 2 || err != nil {
			return fmt.Errorf("%d events, %w", n, err)
		}
		return nil
	}))
	s.later(insert(event(3)))
	must(t, s.Flush(t.Context()))
	if count(t, dir) != 3 {
		t.Error("not there after Flush")
	}
	s.later(insert(event(4)))
	must(t, s.Close())
	if count(t, dir) != 4 || s.Dropped() != 0 {
		t.Errorf("after Close %d events, %d dropped", count(t, dir), s.Dropped())
	}
	s.later(insert(event(5)))
	if s.Dropped() != 1 {
		t.Error("a write after Close is not counted as dropped")
	}
}

// TestLaterNeverWaits: with the writer stuck, what does not fit is dropped and
// counted, and the caller goes on.
func TestLaterNeverWaits(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{laterMax: 10})
	started, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		must(t, s.durable(t.Context(), func(*tx) error { close(started); <-release; return nil }))
	})
	<-started
	for i := range 15 {
		s.later(insert(event(i)))
	}
	if s.Dropped() != 5 {
		t.Errorf("%d dropped", s.Dropped())
	}
	close(release)
	wg.Wait()
	must(t, s.Flush(t.Context()))
	if count(t, dir) != 10 {
		t.Errorf("%d events", count(t, dir))
	}
}

func TestLaterFailsAloneAndIsCounted(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	s := openTest(t, dir, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	s.later(insert(event(1)))
	s.later(func(*tx) error { return errors.New("impossible") })
	s.later(insert(event(2)))
	must(t, s.Flush(t.Context()))
	if s.Dropped() != 1 || count(t, dir) != 2 || strings.Count(log.String(), "impossible") != 1 {
		t.Errorf("%d dropped, %d events, log:\n%s", s.Dropped(), count(t, dir), &log)
	}
}

// TestRoomIsLeft: where the disk is almost full, what can wait is given up and
// what must be is still written.
func TestRoomIsLeft(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{MinFree: 1 << 60})
	s.later(insert(event(1)))
	must(t, s.durable(t.Context(), insert(event(2))))
	if s.Dropped() != 1 || count(t, dir) != 1 {
		t.Errorf("%d dropped, %d events", s.Dropped(), count(t, dir))
	}
}

func TestEventsComeOnce(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	for _, want := range []bool{true, false} {
		var fresh bool
		must(t, s.durable(t.Context(), func(t *tx) (err error) {
			fresh, err = t.insertEvent(event(1), "bob@example.net")
			return err
		}))
		if fresh != want {
			t.Errorf("fresh: %t", fresh)
		}
	}
	got, ok, err := s.Event(t.Context(), "evt_1")
	if err != nil || !ok || got != event(1) {
		t.Errorf("got %+v, %t, %v", got, ok, err)
	}
	if _, ok, err := s.Event(t.Context(), "evt_2"); ok || err != nil {
		t.Errorf("an event that never came: %t, %v", ok, err)
	}
}

func TestEventsAreFoundAndForgotten(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	ctx := t.Context()
	for i := range 9 {
		must(t, s.durable(ctx, insert(event(i))))
	}
	ids := func(all []relay.Event, err error) string {
		must(t, err)
		var ids []string
		for _, e := range all {
			ids = append(ids, strings.TrimPrefix(e.ID, "evt_"))
		}
		return strings.Join(ids, " ")
	}
	if got := ids(s.EventsOfMessage(ctx, "msg_1", 2)); got != "1 4" {
		t.Error(got)
	}
	if got := ids(s.EventsOfAddress(ctx, "bob@example.net", 3)); got != "8 7 6" {
		t.Error(got)
	}
	for _, want := range []int64{3, 2, 0} { // 5 are old enough
		n, err := s.ForgetEvents(ctx, event(5).Received, 3)
		if err != nil || n != want {
			t.Errorf("%d forgotten, want %d, %v", n, want, err)
		}
	}
	if got := ids(s.EventsOfAddress(ctx, "bob@example.net", 99)); got != "8 7 6 5" {
		t.Error(got)
	}
	if n, err := s.ForgetEventsOf(ctx, "bob@example.net"); n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func TestClosed(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	must(t, errors.Join(s.Close(), s.Close()))
	if _, err := s.EventsOfMessage(t.Context(), "m", 1); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := s.durable(t.Context(), insert(event(1))); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	s = openTest(t, t.TempDir(), Options{})
	if err := s.durable(gone, insert(event(1))); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	openTest(t, dir, Options{})
	if _, err := Open(Options{Dir: dir, Log: quiet()}); !errors.Is(err, queue.ErrLocked) {
		t.Errorf("Open: %v", err)
	}
}
