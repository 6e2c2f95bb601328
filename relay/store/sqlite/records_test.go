package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

func openRecords(t testing.TB, dir string, o Options) *Records {
	t.Helper()
	o.Dir = dir
	if o.Log == nil {
		o.Log = quiet()
	}
	s, err := OpenRecords(o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func TestBadNews(t *testing.T) {
	s := openRecords(t, t.TempDir(), Options{})
	for n, kind := range []string{"bounced.hard", "bounced.hard", "complained", "bounced.soft", "delivered", "bounced.hard"} {
		e := event(n)
		e.Type = kind
		must(t, s.change(t.Context(), insert(e)))
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
		t.insertEvent(e, strings.ToLower(e.Email))
		return nil
	}
}

// count reads what is in the file, not what the store believes.
func count(t *testing.T, dir string) int64 {
	t.Helper()
	c, err := db.Connect(db.Name(filepath.Join(dir, RecordsFile), ""), "PRAGMA query_only=1")
	must(t, err)
	n, err := c.Number("SELECT COUNT(*) FROM events")
	must(t, errors.Join(err, c.Close()))
	return n
}

func TestDurableIsOnTheDiskWhenItReturns(t *testing.T) {
	dir := t.TempDir()
	s := openRecords(t, dir, Options{})
	for i := range 3 {
		must(t, s.change(t.Context(), insert(event(i))))
		if n := count(t, dir); n != int64(i)+1 {
			t.Fatalf("%d events after %d", n, i+1)
		}
	}
}

// TestGroups: writes that wait at the same time share commits.
func TestGroups(t *testing.T) { synctest.Test(t, testGroups) }

func testGroups(t *testing.T) {
	dir := t.TempDir()
	s := openRecords(t, dir, Options{})
	before := s.commits.Load()
	started, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // holds the writer until all others wait
		must(t, s.change(t.Context(), func(*tx) error { close(started); <-release; return nil }))
	})
	<-started
	const n = 100
	for i := range n {
		wg.Go(func() { must(t, s.change(t.Context(), insert(event(i)))) })
	}
	synctest.Wait()
	close(release)
	wg.Wait()
	if got := s.commits.Load() - before; got != 1 {
		t.Errorf("%d commits for %d writes at once", got, n)
	}
	if got := count(t, dir); got != n {
		t.Errorf("%d events", got)
	}
}

// TestOneFailsAlone: what one write cannot do does not fail those that shared
// its transaction, and leaves nothing behind.
func TestOneFailsAlone(t *testing.T) { synctest.Test(t, testOneFailsAlone) }

func testOneFailsAlone(t *testing.T) {
	dir := t.TempDir()
	s := openRecords(t, dir, Options{})
	started, release := make(chan struct{}), make(chan struct{})
	refused, begun := errors.New("refused"), sync.OnceFunc(func() { close(started) }) // it may run twice
	var wg sync.WaitGroup
	wg.Go(func() {
		must(t, s.change(t.Context(), func(*tx) error { begun(); <-release; return nil }))
	})
	<-started
	var hooks []int // by the writer alone
	for i := range 10 {
		wg.Go(func() {
			err := s.change(t.Context(), func(t *tx) error {
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
	synctest.Wait()
	close(release)
	wg.Wait()
	slices.Sort(hooks)
	if !slices.Equal(hooks, []int{0, 1, 2, 3, 4, 6, 7, 8, 9}) || count(t, dir) != 9 {
		t.Errorf("hooks of %v, %d events", hooks, count(t, dir))
	}
}

func learnt(n int) suppress.Entry {
	return suppress.Entry{Address: fmt.Sprintf("user%d@example.net", n), Reason: suppress.HardBounce, Source: suppress.API, Since: time.UnixMilli(1).UTC()}
}

// known counts the suppressions in the file.
func known(t *testing.T, dir string) int64 {
	t.Helper()
	c, err := db.Connect(db.Name(filepath.Join(dir, RecordsFile), ""), "PRAGMA query_only=1")
	must(t, err)
	n, err := c.Number("SELECT COUNT(*) FROM suppressions")
	must(t, errors.Join(err, c.Close()))
	return n
}

func TestLearnSoon(t *testing.T) {
	dir := t.TempDir()
	s := openRecords(t, dir, Options{})
	s.LearnSoon(learnt(1))
	until(t, "it is written in its own time", func() bool { return known(t, dir) == 1 })
	s.LearnSoon(learnt(2))
	must(t, s.change(t.Context(), func(t *tx) error { // what was asked for first comes first
		if n, err := t.conn.Number("SELECT COUNT(*) FROM suppressions"); n != 2 || err != nil {
			return fmt.Errorf("%d entries, %w", n, err)
		}
		return nil
	}))
	s.LearnSoon(learnt(3))
	if _, ok, err := s.Entry(t.Context(), learnt(3).Address); !ok || err != nil {
		t.Errorf("who asks is not told: %t, %v", ok, err)
	}
	s.LearnSoon(learnt(4))
	must(t, s.Close())
	if known(t, dir) != 4 || s.dropped.Load() != 0 {
		t.Errorf("after Close %d entries, %d dropped", known(t, dir), s.dropped.Load())
	}
	s.LearnSoon(learnt(5))
	if s.dropped.Load() != 1 {
		t.Error("what comes after Close is not counted as dropped")
	}
}

// TestLearnSoonNeverWaits: with the writer stuck, what does not fit is dropped and
// counted, and the caller goes on.
func TestLearnSoonNeverWaits(t *testing.T) {
	dir := t.TempDir()
	s := openRecords(t, dir, Options{soonMax: 10})
	started, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		must(t, s.change(t.Context(), func(*tx) error { close(started); <-release; return nil }))
	})
	<-started
	for i := range 15 {
		s.LearnSoon(learnt(i))
	}
	if s.dropped.Load() != 5 {
		t.Errorf("%d dropped", s.dropped.Load())
	}
	close(release)
	wg.Wait()
	must(t, s.Close())
	if known(t, dir) != 10 {
		t.Errorf("%d entries", known(t, dir))
	}
}

// TestWhatCannotBeLearntIsCounted: it is given up, which is said once, and what
// waits for its write goes on by itself.
func TestWhatCannotBeLearntIsCounted(t *testing.T) {
	disk := &faultDisk{}
	registerVFS("learn", disk)
	dir := t.TempDir()
	var log bytes.Buffer
	s := openRecords(t, dir, Options{vfs: "learn", Log: slog.New(slog.NewTextHandler(&log, nil))})
	disk.Fail(func(op diskOp, _ string) int32 {
		if op == opWrite {
			return failFull
		}
		return 0
	})
	for i := range 3 {
		s.LearnSoon(learnt(i))
		if err := s.change(t.Context(), insert(event(i))); err == nil {
			t.Error("an event was stored on a full disk")
		}
	}
	if _, _, err := s.Trouble(); err == nil || s.dropped.Load() != 3 || strings.Count(log.String(), "are lost") != 1 {
		t.Errorf("%v, %d dropped, log:\n%s", err, s.dropped.Load(), &log)
	}
	disk.Fail(nil)
	s.LearnSoon(learnt(4))
	must(t, s.change(t.Context(), insert(event(4))))
	if _, _, err := s.Trouble(); err != nil || known(t, dir) != 1 || count(t, dir) != 1 {
		t.Errorf("%v, %d entries, %d events once it works", err, known(t, dir), count(t, dir))
	}
}

// TestRoomIsLeft: where the disk is almost full, what can wait is given up and
// what must be is still written.
func TestRoomIsLeft(t *testing.T) {
	dir := t.TempDir()
	s := openRecords(t, dir, Options{Queue: queue.Options{MinFree: 1 << 60}})
	s.LearnSoon(learnt(1))
	must(t, s.change(t.Context(), insert(event(2))))
	if s.dropped.Load() != 1 || count(t, dir) != 1 || known(t, dir) != 0 {
		t.Errorf("%d dropped, %d events", s.dropped.Load(), count(t, dir))
	}
}

func TestEventsComeOnce(t *testing.T) {
	s := openRecords(t, t.TempDir(), Options{})
	for _, want := range []bool{true, false} {
		var fresh bool
		must(t, s.change(t.Context(), func(t *tx) error {
			fresh = t.insertEvent(event(1), "bob@example.net")
			return nil
		}))
		if fresh != want {
			t.Errorf("fresh: %t", fresh)
		}
	}
}

func TestEventsAreForgotten(t *testing.T) {
	dir := t.TempDir()
	s := openRecords(t, dir, Options{})
	for i := range 9 {
		must(t, s.change(t.Context(), insert(event(i))))
	}
	for _, want := range []int64{3, 2, 0} { // 5 are old enough
		n, err := s.forgetEvents(t.Context(), event(5).Received, 3)
		if err != nil || n != want {
			t.Errorf("%d forgotten, want %d, %v", n, want, err)
		}
	}
	if n := count(t, dir); n != 4 {
		t.Errorf("%d are left", n)
	}
}

func TestRecordsAreClosed(t *testing.T) {
	s := openRecords(t, t.TempDir(), Options{})
	must(t, errors.Join(s.Close(), s.Close()))
	if _, err := s.Bytes(t.Context()); !errors.Is(err, s.closedErr) {
		t.Error(err)
	}
	if err := s.change(t.Context(), insert(event(1))); !errors.Is(err, s.closedErr) {
		t.Error(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	s = openRecords(t, t.TempDir(), Options{})
	if err := s.change(gone, insert(event(1))); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestRecordsAreLocked(t *testing.T) {
	dir := t.TempDir()
	openRecords(t, dir, Options{})
	if _, err := OpenRecords(Options{Dir: dir, Log: quiet()}); !errors.Is(err, queue.ErrLocked) {
		t.Errorf("Open: %v", err)
	}
}
