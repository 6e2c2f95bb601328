package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/store/postgres/pgtest"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// records opens the records of a database until the test ends.
func records(t testing.TB, url string) *Records {
	t.Helper()
	s := NewRecords(connect(t, url, Options{}))
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// told is a watcher that says what it was told.
type told struct {
	mu    sync.Mutex
	on    map[string]suppress.Entry
	again chan struct{}
}

func newTold() *told { return &told{on: map[string]suppress.Entry{}, again: make(chan struct{}, 1)} }

func (w *told) Set(e suppress.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.on[e.Address] = e
	poke(w.again)
}

func (w *told) Unset(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.on, address)
	poke(w.again)
}

// awaits waits until an address is on the list, or is not, and says how long it took.
func (w *told) awaits(t *testing.T, address string, want bool) time.Duration {
	t.Helper()
	begin, patience := time.Now(), time.After(time.Minute)
	for {
		w.mu.Lock()
		_, on := w.on[address]
		w.mu.Unlock()
		if on == want {
			return time.Since(begin)
		}
		select {
		case <-w.again:
		case <-patience:
			t.Fatalf("%s: on the list %t, want %t", address, on, want)
		}
	}
}

// TestSharedSuppressions: what one relay learns another knows, soon after it was said
// and, when the connection that listens was lost, by the numbers of the changes.
func TestSharedSuppressions(t *testing.T) {
	server := pgtest.Start(t)
	database := server.Database()
	url := server.URL(database)
	here, there := records(t, url), records(t, url)
	ours, theirs := newTold(), newTold()
	must(t, here.Attach(t.Context(), ours))
	must(t, there.Attach(t.Context(), theirs))
	now := time.Now()
	entry := func(address string) suppress.Entry {
		return suppress.Entry{Address: address, Reason: suppress.HardBounce, Source: suppress.Webhook, Since: now, Expires: now.Add(time.Hour)}
	}
	var longest time.Duration
	for i := range 20 {
		address := fmt.Sprintf("a%d@x.example", i)
		e := entry(address)
		_, err := here.TakeEvent(t.Context(), relay.Event{ID: "evt_" + address, Type: "bounced.hard", Email: address, Received: now}, address, &e)
		must(t, err)
		longest = max(longest, theirs.awaits(t, address, true))
	}
	t.Logf("known at the other relay after %s at most", longest)
	_, err := there.Remove(t.Context(), []string{"a1@x.example"}, now)
	must(t, err)
	ours.awaits(t, "a1@x.example", false)

	// Changes while nobody hears of them.
	server.Stop()
	here.LearnSoon(entry("late@x.example"))
	server.Restart()
	theirs.awaits(t, "late@x.example", true)
	known, err := there.Erase(t.Context(), "a2@x.example")
	must(t, err)
	if !known {
		t.Error("what was erased was not known")
	}
	ours.awaits(t, "a2@x.example", false)
	if late := newTold(); there.Attach(t.Context(), late) != nil || len(late.on) != 19 { // 20 and the late one, without two
		t.Errorf("a list that is attached later has %d entries", len(late.on))
	}
}

// TestRecordsWithoutAServer: what is asked fails, what is learnt waits, and status is
// told.
func TestRecordsWithoutAServer(t *testing.T) {
	server := pgtest.Start(t)
	s := records(t, server.URL(server.Database()))
	must(t, s.Attach(t.Context(), newTold()))
	server.Stop()
	if _, _, err := s.Entry(t.Context(), "a@x.example"); err == nil {
		t.Error("Entry without a server")
	}
	before := testutil.ToFloat64(s.errors)
	if err := s.Write(t.Context(), history.Changes(history.GaveUp{ID: relay.NewID(time.Now()), To: "a@x.example", At: time.Now()})); err == nil {
		t.Error("Write without a server")
	}
	if since, damaged, err := s.Trouble(); err == nil || damaged || since.IsZero() {
		t.Errorf("the trouble is %v since %v, damaged %t", err, since, damaged)
	}
	if n := testutil.ToFloat64(s.errors) - before; n != 1 {
		t.Errorf("%g writes are counted that failed", n)
	}
	server.Restart()
	for s.Put(t.Context(), []suppress.Entry{{Address: "b@x.example", Reason: suppress.Operator, Source: suppress.ByOperator, Since: time.Now()}}) != nil {
		wait(t.Context(), 20*time.Millisecond)
	}
	if _, _, err := s.Trouble(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestTextThatPostgreSQLRefuses: what comes from outside may have any bytes.
func TestTextThatPostgreSQLRefuses(t *testing.T) {
	server := pgtest.Start(t)
	s := records(t, server.URL(server.Database()))
	now, bad := time.Now(), "a\x00b\xff@x.example"
	e := suppress.Entry{Address: bad, Reason: suppress.HardBounce, Source: suppress.Webhook, Since: now, Detail: bad}
	if fresh, err := s.TakeEvent(t.Context(), relay.Event{ID: bad, Email: bad, BounceReason: bad}, bad, &e); err != nil || !fresh {
		t.Errorf("TakeEvent: %t, %v", fresh, err)
	}
	id := relay.NewID(now)
	must(t, s.Write(t.Context(), []history.Change{{ID: id, Received: now, Sender: bad, Head: &history.Head{Subject: bad, Author: bad},
		Recipients: []history.RecipientChange{{Addr: bad, Steps: []history.Step{{At: now, What: history.StepGaveUp, Text: bad}}}}}}))
	if m, found, err := s.Get(t.Context(), id); err != nil || !found || len(m.Recipients) != 1 || len(m.Recipients[0].Steps) != 1 {
		t.Errorf("%+v, %t, %v", m, found, err)
	}
	if found, _, err := s.Find(t.Context(), history.Query{Name: bad}); err != nil || len(found) != 1 {
		t.Errorf("found %d, %v", len(found), err)
	}
}

// TestTwoRelaysWriteOneHistory: relays that write of the same mails at once do not wait
// for each other in a circle, and nothing is lost.
func TestTwoRelaysWriteOneHistory(t *testing.T) {
	server := pgtest.Start(t)
	url := server.URL(server.Database())
	const mails, rounds = 20, 10
	now := time.Now()
	ids := make([]string, mails)
	for i := range ids {
		ids[i] = relay.NewID(now)
	}
	errs := make(chan error)
	for r := range 2 {
		s := records(t, url)
		go func() {
			var all error
			for round := range rounds {
				var changes []history.Change
				for i := range ids {
					id := ids[i]
					if r == 1 {
						id = ids[mails-1-i]
					}
					changes = append(changes, history.Changes(history.GaveUp{ID: id, From: "s@x.example", To: "a@x.example", Why: fmt.Sprint(r, round), At: now})...)
				}
				all = errors.Join(all, s.Write(context.Background(), changes))
			}
			errs <- all
		}()
	}
	must(t, errors.Join(<-errs, <-errs))
	s := records(t, url)
	for _, id := range ids {
		if m, _, err := s.Get(t.Context(), id); err != nil || len(m.Recipients) != 1 || len(m.Recipients[0].Steps) != 2*rounds {
			t.Fatalf("%s: %+v, %v", id, m, err)
		}
	}
}
