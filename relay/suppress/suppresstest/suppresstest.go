// Package suppresstest holds a suppress.Store to its contract. Every backend's
// tests call Run.
package suppresstest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Backend is one store.
type Backend struct {
	Store suppress.Store
	// Reopen, if the store outlives its process, closes it and opens what is
	// there.
	Reopen func() suppress.Store
	// Flush returns when what was to be written soon is written.
	Flush func()
	// Close, if it is set, gives back what the store holds. It is called where one
	// test opens many thousand of them; the rest is for the test's end.
	Close func()
}

var day0 = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// Run runs the suite; open makes an empty store each time.
func Run(t *testing.T, open func(t *testing.T) Backend) {
	for name, test := range map[string]func(t *testing.T, b *rig){
		"what is put is there as it was put": testPut, "an event comes once": testEvents,
		"what was removed stays so": testRemove, "lists": testList, "what has had its time goes": testTend,
		"the watcher knows what the store knows": testWatch, "many at once": testConcurrent,
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			test(t, &rig{t, b, b.Store})
		})
	}
	t.Run("does what the model does", func(t *testing.T) { testModel(t, open) })
}

type rig struct {
	*testing.T
	Backend
	s suppress.Store
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) reopen() {
	if r.Reopen != nil {
		r.s = r.Reopen()
	}
}

func (r *rig) want(address string, want suppress.Entry) {
	r.Helper()
	got, ok, err := r.s.Entry(r.Context(), address)
	r.must(err)
	if ok != (want.Address != "") || got != want {
		r.Errorf("%s:\n got %+v, %t\nwant %+v", address, got, ok, want)
	}
}

// bounce is what a bounced.hard of that id teaches.
func bounce(id, address string, at time.Time) (relay.Event, *suppress.Entry) {
	e := relay.Event{ID: id, Type: "bounced.hard", Created: at, Occurred: at, Email: address, Received: at}
	return e, &suppress.Entry{Address: address, Reason: suppress.HardBounce, Source: suppress.Webhook, Since: at, Expires: at.Add(time.Hour),
		Event: id, Detail: "550 5.1.1 no such user"}
}

func operators(address string) suppress.Entry {
	return suppress.Entry{Address: address, Reason: suppress.Operator, Source: suppress.ByOperator, Since: day0, Note: "asked by phone"}
}

func testPut(t *testing.T, r *rig) {
	r.want("a@x.example", suppress.Entry{})
	full := suppress.Entry{Address: "a@x.example", Reason: suppress.Complaint, Source: suppress.ByOperator, Since: day0, Expires: day0.Add(time.Hour),
		Event: "evt_1", Detail: "d", Note: "n ☺"}
	r.must(r.s.Put(r.Context(), []suppress.Entry{full, operators("b@x.example")}))
	r.reopen()
	r.want("a@x.example", full)
	r.want("b@x.example", operators("b@x.example"))
	r.must(r.s.Put(r.Context(), []suppress.Entry{operators("a@x.example")})) // weaker or not: as it is
	r.want("a@x.example", operators("a@x.example"))
}

func testEvents(t *testing.T, r *rig) {
	e, learnt := bounce("evt_1", "a@x.example", day0)
	for i := range 3 {
		fresh, err := r.s.TakeEvent(r.Context(), e, e.Email, learnt)
		r.must(err)
		if fresh != (i == 0) {
			t.Errorf("time %d: fresh is %t", i+1, fresh)
		}
		r.want("a@x.example", *learnt)
		r.reopen()
	}
	delivered := relay.Event{ID: "evt_2", Type: "delivered", Email: "a@x.example", Created: day0.Add(-time.Minute), Received: day0.Add(time.Minute)}
	if fresh, err := r.s.TakeEvent(r.Context(), delivered, delivered.Email, nil); !fresh || err != nil {
		t.Errorf("%t, %v", fresh, err)
	}
	r.want("a@x.example", *learnt)
	// The API's answer is weaker, and keeps the entry longer.
	r.s.LearnSoon(suppress.Entry{Address: "a@x.example", Reason: suppress.Provider, Source: suppress.API, Since: day0.Add(time.Minute), Expires: day0.Add(2 * time.Hour)})
	r.Flush()
	learnt.Expires = day0.Add(2 * time.Hour)
	r.want("a@x.example", *learnt)
}

func testRemove(t *testing.T, r *rig) {
	ctx := r.Context()
	old, learnt := bounce("evt_1", "a@x.example", day0)
	_, err := r.s.TakeEvent(ctx, old, old.Email, learnt)
	r.must(err)
	n, err := r.s.Remove(ctx, []string{"a@x.example", "b@x.example"}, day0.Add(time.Minute))
	r.must(err)
	if n != 1 {
		t.Errorf("%d removed", n)
	}
	r.reopen()
	r.want("a@x.example", suppress.Entry{})
	for i, address := range []string{"a@x.example", "b@x.example"} { // neither may what was not on the list
		e, late := bounce(fmt.Sprintf("evt_late%d", i), address, day0.Add(30*time.Second))
		fresh, err := r.s.TakeEvent(ctx, e, address, late)
		r.must(err)
		if !fresh {
			t.Error("an event that teaches nothing is an event all the same")
		}
		r.want(address, suppress.Entry{})
	}
	if fresh, err := r.s.TakeEvent(ctx, old, old.Email, learnt); fresh || err != nil {
		t.Errorf("the event from before it: fresh %t, %v", fresh, err)
	}
	e, later := bounce("evt_new", "a@x.example", day0.Add(2*time.Minute))
	_, err = r.s.TakeEvent(ctx, e, e.Email, later)
	r.must(err)
	r.want("a@x.example", *later)
	r.must(r.s.Put(ctx, []suppress.Entry{operators("b@x.example")})) // whoever puts it there again means it
	r.want("b@x.example", operators("b@x.example"))
	// and takes the removal back: what happened before it counts again.
	_, err = r.s.Remove(ctx, []string{"c@x.example"}, day0.Add(time.Minute))
	r.must(err)
	r.must(r.s.Put(ctx, []suppress.Entry{{Address: "c@x.example", Reason: suppress.Provider, Source: suppress.API, Since: day0, Expires: day0.Add(time.Minute)}}))
	e, before := bounce("evt_before", "c@x.example", day0.Add(30*time.Second))
	_, err = r.s.TakeEvent(ctx, e, e.Email, before)
	r.must(err)
	r.want("c@x.example", *before)
}

func testList(t *testing.T, r *rig) {
	put := func(address string, reason suppress.Reason, source suppress.Source) {
		r.must(r.s.Put(r.Context(), []suppress.Entry{{Address: address, Reason: reason, Source: source, Since: day0}}))
	}
	put("c@y.example", suppress.HardBounce, suppress.Webhook)
	put("a@x.example", suppress.HardBounce, suppress.ByOperator)
	put("b@x.example", suppress.Complaint, suppress.Webhook)
	put("d@sub.x.example", suppress.Provider, suppress.API)
	put("under_score@x.example", suppress.Provider, suppress.API)
	for _, tt := range []struct {
		f    suppress.Filter
		want string
	}{
		{suppress.Filter{}, "[a@x.example b@x.example c@y.example d@sub.x.example under_score@x.example]"},
		{suppress.Filter{Limit: 2}, "[a@x.example b@x.example]"},
		{suppress.Filter{Limit: 2, After: "b@x.example"}, "[c@y.example d@sub.x.example]"},
		{suppress.Filter{Domain: "x.example"}, "[a@x.example b@x.example under_score@x.example]"},
		{suppress.Filter{Domain: "%.example"}, "[]"},
		{suppress.Filter{Reasons: []suppress.Reason{suppress.HardBounce}}, "[a@x.example c@y.example]"},
		{suppress.Filter{Reasons: []suppress.Reason{suppress.HardBounce, suppress.Complaint}, Sources: []suppress.Source{suppress.Webhook}}, "[b@x.example c@y.example]"},
		{suppress.Filter{Sources: []suppress.Source{suppress.API}, Domain: "sub.x.example"}, "[d@sub.x.example]"},
	} {
		list, err := r.s.Entries(r.Context(), tt.f)
		r.must(err)
		got := []string{}
		for _, e := range list {
			got = append(got, e.Address)
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("%+v: %v, want %s", tt.f, got, tt.want)
		}
	}
}

func testTend(t *testing.T, r *rig) {
	ctx := r.Context()
	e, short := bounce("evt_1", "a@x.example", day0)
	_, err := r.s.TakeEvent(ctx, e, e.Email, short)
	r.must(err)
	r.must(r.s.Put(ctx, []suppress.Entry{operators("b@x.example")}))
	_, err = r.s.Remove(ctx, []string{"c@x.example"}, day0)
	r.must(err)
	r.tend(day0.Add(59*time.Minute), day0)
	r.want("a@x.example", *short)
	r.tend(day0.Add(time.Hour), day0.Add(time.Second))
	r.want("a@x.example", suppress.Entry{})
	r.want("b@x.example", operators("b@x.example"))
	fresh, err := r.s.TakeEvent(ctx, e, e.Email, nil)
	r.must(err)
	if !fresh {
		t.Error("an event is remembered after its time")
	}
	before, learnt := bounce("evt_2", "c@x.example", day0.Add(-time.Minute))
	_, err = r.s.TakeEvent(ctx, before, before.Email, learnt)
	r.must(err)
	r.want("c@x.example", *learnt) // its removal is forgotten
}

func (r *rig) tend(now, forget time.Time) {
	r.Helper()
	for more := true; more; {
		var err error
		more, err = r.s.Tend(r.Context(), now, forget)
		r.must(err)
	}
}

// watcher is a Watcher that anybody can ask.
type watcher struct {
	mu   sync.Mutex
	seen map[string]suppress.Entry
}

func newWatcher() *watcher { return &watcher{seen: map[string]suppress.Entry{}} }

func (w *watcher) Set(e suppress.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[e.Address] = e
}

func (w *watcher) Unset(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.seen, address)
}

func (w *watcher) compare(t interface{ Fatalf(string, ...any) }, s suppress.Store) {
	list, err := s.Entries(context.Background(), suppress.Filter{})
	if err != nil {
		t.Fatalf("%v", err)
	}
	stored := map[string]suppress.Entry{}
	for _, e := range list {
		stored[e.Address] = e
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !maps.Equal(stored, w.seen) {
		t.Fatalf("stored:\n%v\nseen:\n%v", stored, w.seen)
	}
}

func testWatch(t *testing.T, r *rig) {
	r.must(r.s.Put(r.Context(), []suppress.Entry{operators("a@x.example"), operators("b@x.example")}))
	w := newWatcher()
	r.must(r.s.Attach(r.Context(), w))
	w.compare(t, r.s) // what was there before
	_, err := r.s.Remove(r.Context(), []string{"a@x.example"}, day0)
	r.must(err)
	w.compare(t, r.s) // at once
	e, learnt := bounce("evt_1", "c@x.example", day0)
	_, err = r.s.TakeEvent(r.Context(), e, e.Email, learnt)
	r.must(err)
	w.compare(t, r.s)
	// Whoever learns writes ahead of the store, and is put right by it.
	w.Set(suppress.Entry{Address: "a@x.example", Reason: suppress.Provider})
	r.s.LearnSoon(suppress.Entry{Address: "a@x.example", Reason: suppress.Provider, Source: suppress.API, Since: day0.Add(-time.Minute), Expires: day0.Add(time.Hour)})
	r.Flush()
	w.compare(t, r.s)
	r.tend(day0.Add(2*time.Hour), day0)
	w.compare(t, r.s)
	if len(w.seen) != 1 {
		t.Errorf("seen: %v", w.seen)
	}
}

func testConcurrent(t *testing.T, r *rig) {
	w := newWatcher()
	r.must(r.s.Attach(r.Context(), w))
	var wg sync.WaitGroup
	var mu sync.Mutex
	first := 0
	for g := range 8 {
		wg.Go(func() {
			for i := range 50 {
				at := day0.Add(time.Duration(i) * time.Second)
				e, learnt := bounce(fmt.Sprintf("evt_%d", i), fmt.Sprintf("%d@x.example", i%7), at)
				fresh, err := r.s.TakeEvent(r.Context(), e, e.Email, learnt)
				mu.Lock()
				if err != nil {
					t.Error(err)
				}
				if fresh {
					first++
				}
				mu.Unlock()
				if i%10 == g {
					if _, err := r.s.Remove(r.Context(), []string{e.Email}, at); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if first != 50 {
		t.Errorf("50 events were fresh %d times", first)
	}
	w.compare(t, r.s)
}

// testModel does the same at random to a store and to a model of it.
func testModel(t *testing.T, open func(t *testing.T) Backend) {
	addresses := []string{"a@x.example", "b@x.example", "c@y.example"}
	rapid.Check(t, func(rt *rapid.T) {
		b := open(t)
		if b.Close != nil {
			rt.Cleanup(b.Close)
		}
		w := newWatcher()
		if err := b.Store.Attach(context.Background(), w); err != nil {
			rt.Fatalf("%v", err)
		}
		model := &model{entries: map[string]suppress.Entry{}, removed: map[string]time.Time{}, events: map[string]bool{}}
		clock := day0
		for n := rapid.IntRange(1, 25).Draw(rt, "steps"); n > 0; n-- {
			clock = clock.Add(time.Duration(rapid.IntRange(0, 1200).Draw(rt, "seconds")) * time.Second)
			address := rapid.SampledFrom(addresses).Draw(rt, "address")
			model.step(rt, b, address, clock)
			for _, a := range addresses {
				got, ok, err := b.Store.Entry(context.Background(), a)
				if want, known := model.entries[a]; err != nil || ok != known || got != want {
					rt.Fatalf("%s:\n got %+v, %t, %v\nwant %+v, %t", a, got, ok, err, want, known)
				}
			}
			w.compare(rt, b.Store)
		}
	})
}

// model is what a Store should know.
type model struct {
	entries map[string]suppress.Entry
	removed map[string]time.Time
	events  map[string]bool
}

func (m *model) learn(e suppress.Entry, now time.Time) {
	if merged, changed := suppress.Learn(m.entries[e.Address], e, m.removed[e.Address], now); changed {
		m.entries[e.Address] = merged
	}
}

func (m *model) step(rt *rapid.T, b Backend, address string, now time.Time) {
	ctx := context.Background()
	entry := suppress.Entry{
		Address: address,
		Reason:  rapid.SampledFrom(suppress.Reasons()).Draw(rt, "reason"),
		Source:  rapid.SampledFrom(suppress.Sources()).Draw(rt, "source"),
		Since:   now.Add(-time.Duration(rapid.IntRange(0, 2000).Draw(rt, "ago")) * time.Second),
		Expires: now.Add(time.Duration(rapid.IntRange(1, 3600).Draw(rt, "lasts")) * time.Second),
	}
	var err error
	switch rapid.IntRange(0, 4).Draw(rt, "what") {
	case 0:
		if entry.Source == suppress.ByOperator {
			entry.Expires = time.Time{}
		}
		err = b.Store.Put(ctx, []suppress.Entry{entry})
		m.entries[address] = entry
		delete(m.removed, address)
	case 1:
		_, err = b.Store.Remove(ctx, []string{address}, now)
		delete(m.entries, address)
		m.removed[address] = now
	case 2:
		b.Store.LearnSoon(entry)
		b.Flush()
		m.learn(entry, entry.Since)
	case 3:
		id := rapid.SampledFrom([]string{"1", "2", "3", "4"}).Draw(rt, "id")
		var fresh bool
		fresh, err = b.Store.TakeEvent(ctx, relay.Event{ID: id, Email: address, Received: now}, address, &entry)
		if fresh == m.events[id] {
			rt.Fatalf("event %s: fresh is %t", id, fresh)
		}
		if fresh {
			m.learn(entry, now)
		}
		m.events[id] = true
	case 4:
		for more := true; more && err == nil; {
			more, err = b.Store.Tend(ctx, now, day0)
		}
		for _, a := range slices.Collect(maps.Keys(m.entries)) {
			if m.entries[a].Expired(now) {
				delete(m.entries, a)
			}
		}
	}
	if err != nil {
		rt.Fatalf("%v", err)
	}
}
