// Package forwardtest is the suite that every forward.Store passes.
package forwardtest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/forward"
)

// Backend makes stores.
type Backend struct {
	// Open opens the same store again each time.
	Open func() (forward.Store, func() error, error)
}

// Run tests a store. A new, empty Backend is made for each test.
func Run(t *testing.T, backend func(t *testing.T) Backend) {
	for name, test := range map[string]func(s *subject){
		"order": testOrder, "due": testDue, "dead": testDead, "known": testKnown, "bound": testBound, "filter": testFilter, "reopened": testReopened, "crowd": testCrowd,
	} {
		t.Run(name, func(t *testing.T) {
			s := &subject{T: t, backend: backend(t), now: time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)}
			s.open()
			defer func() { s.must(s.close()) }()
			test(s)
		})
	}
}

type subject struct {
	*testing.T
	forward.Store
	backend Backend
	close   func() error
	now     time.Time
}

func (s *subject) open() {
	s.Helper()
	var err error
	s.Store, s.close, err = s.backend.Open()
	s.must(err)
}

func (s *subject) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// item is "endpoint/mail/id".
func (s *subject) item(name string) forward.Item {
	part := strings.Split(name, "/")
	return forward.Item{Endpoint: part[0], Mail: part[1], ID: part[2], Type: "relay.sent", Address: "bob@example.net", Body: []byte(`{"id":"` + part[2] + `"}`), Created: s.now}
}

func (s *subject) add(names ...string) {
	s.Helper()
	var items []forward.Item
	for _, n := range names {
		items = append(items, s.item(n))
	}
	_, err := s.AddForwards(s.Context(), items, nil)
	s.must(err)
}

// due are the ids of what is due.
func (s *subject) due(endpoint string) (ids []string) {
	s.Helper()
	items, _, err := s.DueForwards(s.Context(), endpoint, s.now, 100)
	s.must(err)
	for _, i := range items {
		ids = append(ids, i.ID)
	}
	return ids
}

func (s *subject) want(what string, got []string, want ...string) {
	s.Helper()
	if !slices.Equal(got, want) {
		s.Fatalf("%s: %q, want %q", what, got, want)
	}
}

// settle settles the item with an id.
func (s *subject) settle(id string, edit func(*forward.Settled)) {
	s.Helper()
	items, err := s.ListForwards(s.Context(), forward.Filter{ID: id})
	s.must(err)
	if len(items) != 1 {
		s.Fatalf("%d items %s", len(items), id)
	}
	one := forward.Settled{Item: items[0]}
	edit(&one)
	s.must(s.SettleForwards(s.Context(), []forward.Settled{one}))
}

func done(s *forward.Settled) { s.Done = true }

// testOrder: of each mail the first item alone is due, the mails are in their order, and
// endpoints know nothing of each other.
func testOrder(s *subject) {
	s.add("a/m1/1", "a/m2/2", "a/m1/3", "b/m1/1", "a/m1/4", "a/m3/5")
	s.want("at first", s.due("a"), "1", "2", "5")
	s.want("of the other", s.due("b"), "1")
	items, _, err := s.DueForwards(s.Context(), "a", s.now, 2)
	s.must(err)
	if len(items) != 2 || string(items[0].Body) != `{"id":"1"}` || items[0].Mail != "m1" || !items[0].Created.Equal(s.now) || items[1].Seq <= items[0].Seq {
		s.Errorf("%+v", items)
	}
	for _, i := range items {
		s.must(s.SettleForwards(s.Context(), []forward.Settled{{Item: i, Done: true}}))
	}
	s.want("then", s.due("a"), "3", "5")
	s.settle("5", done)
	s.settle("3", done)
	s.want("at last", s.due("a"), "4")
	s.want("of the other, still", s.due("b"), "1")
}

// testDue: one that waits holds up its mail and no other, and says until when.
func testDue(s *subject) {
	s.add("a/m1/1", "a/m1/2", "a/m2/3")
	s.settle("1", func(i *forward.Settled) { i.Tries, i.Due, i.Why = 1, s.now.Add(time.Minute), "HTTP 422" })
	s.want("while it waits", s.due("a"), "3")
	s.settle("3", done)
	_, next, err := s.DueForwards(s.Context(), "a", s.now, 100)
	s.must(err)
	if !next.Equal(s.now.Add(time.Minute)) {
		s.Errorf("due next at %v", next)
	}
	s.now = s.now.Add(time.Minute)
	s.want("a minute later", s.due("a"), "1")
	items, err := s.ListForwards(s.Context(), forward.Filter{ID: "1"})
	s.must(err)
	if items[0].Tries != 1 || items[0].Why != "HTTP 422" {
		s.Errorf("%+v", items[0])
	}
	s.settle("1", done)
	s.settle("2", done)
	if items, next, err := s.DueForwards(s.Context(), "a", s.now, 100); len(items) > 0 || !next.IsZero() || err != nil {
		s.Errorf("%v, %v, %v of an empty store", items, next, err)
	}
}

// testDead: a dead letter holds nothing up, stays, and can be tried again.
func testDead(s *subject) {
	s.add("a/m1/1", "a/m1/2")
	s.settle("1", func(i *forward.Settled) { i.Tries, i.Dead, i.Why = 6, true, "HTTP 422" })
	s.want("beside a dead one", s.due("a"), "2")
	counts, err := s.CountForwards(s.Context())
	s.must(err)
	if c := counts["a"]; len(counts) != 1 || c.Pending != 1 || c.Dead != 1 || !c.Oldest.Equal(s.now) {
		s.Errorf("%+v", counts)
	}
	if n, err := s.RetryForwards(s.Context(), forward.Filter{Dead: true}, s.now); n != 1 || err != nil {
		s.Errorf("%d retried, %v", n, err)
	}
	s.want("after a retry", s.due("a"), "1")
	items, err := s.ListForwards(s.Context(), forward.Filter{ID: "1"})
	s.must(err)
	if items[0].Tries != 0 || items[0].Dead {
		s.Errorf("%+v", items[0])
	}
}

// testKnown: an event that an endpoint has already is left as it is.
func testKnown(s *subject) {
	s.add("a/m1/1")
	s.settle("1", func(i *forward.Settled) { i.Tries = 3 })
	s.add("a/m1/1", "b/m1/1")
	items, err := s.ListForwards(s.Context(), forward.Filter{})
	s.must(err)
	if len(items) != 2 || items[0].Tries != 3 || items[1].Endpoint != "b" {
		s.Errorf("%+v", items)
	}
}

// testBound: an endpoint that is full loses what comes, dead letters count, and the
// others go on.
func testBound(s *subject) {
	s.add("a/m1/1", "a/m1/2")
	s.settle("1", func(i *forward.Settled) { i.Dead = true })
	lost, err := s.AddForwards(s.Context(), []forward.Item{s.item("a/m1/2"), s.item("a/m1/3"), s.item("b/m1/3"), s.item("a/m1/4"), s.item("a/m2/5")}, map[string]int{"a": 3, "b": 3})
	s.must(err)
	if len(lost) != 1 || lost["a"] != 2 {
		s.Errorf("lost %v", lost)
	}
	counts, err := s.CountForwards(s.Context())
	s.must(err)
	if counts["a"].Pending != 2 || counts["b"].Pending != 1 {
		s.Errorf("%+v", counts)
	}
}

func testFilter(s *subject) {
	s.add("a/m1/1", "a/m1/2", "b/m1/1", "a/m2/3")
	s.settle("3", func(i *forward.Settled) { i.Dead = true })
	list := func(f forward.Filter) (names []string) {
		s.Helper()
		items, err := s.ListForwards(s.Context(), f)
		s.must(err)
		for _, i := range items {
			names = append(names, i.Endpoint+i.ID)
		}
		return names
	}
	s.want("all", list(forward.Filter{}), "a1", "a2", "b1", "a3")
	s.want("an endpoint's", list(forward.Filter{Endpoint: "a"}), "a1", "a2", "a3")
	s.want("dead", list(forward.Filter{Dead: true}), "a3")
	s.want("by id", list(forward.Filter{ID: "1", Endpoint: "b"}), "b1")
	s.want("the first", list(forward.Filter{Limit: 2}), "a1", "a2")
	items, err := s.ListForwards(s.Context(), forward.Filter{Limit: 2})
	s.must(err)
	s.want("the next", list(forward.Filter{After: items[1].Seq}), "b1", "a3")
	if n, err := s.DropForwards(s.Context(), forward.Filter{ID: "1"}); n != 2 || err != nil {
		s.Errorf("%d dropped, %v", n, err)
	}
	if n, err := s.DropForwards(s.Context(), forward.Filter{Endpoint: "a", Dead: true}); n != 1 || err != nil {
		s.Errorf("%d dropped, %v", n, err)
	}
	s.want("what is left", list(forward.Filter{}), "a2")
}

// testReopened: all of it is there after a restart, and a number is not used again.
func testReopened(s *subject) {
	s.add("a/m1/1", "a/m1/2")
	items, err := s.ListForwards(s.Context(), forward.Filter{})
	s.must(err)
	s.settle("2", done)
	s.must(s.close())
	s.open()
	s.add("a/m1/3")
	after, err := s.ListForwards(s.Context(), forward.Filter{})
	s.must(err)
	if len(after) != 2 || after[0].ID != "1" || after[0].Seq != items[0].Seq || after[1].Seq <= items[1].Seq {
		s.Errorf("%+v, and before %+v", after, items)
	}
}

// testCrowd: many add, and one takes; each is taken once, and each mail's in order.
func testCrowd(s *subject) {
	const writers, each = 8, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				if _, err := s.AddForwards(s.Context(), []forward.Item{s.item(fmt.Sprintf("a/m%d/%d-%03d", w, w, n))}, nil); err != nil {
					s.Error(err)
				}
			}
		})
	}
	last, got := map[string]string{}, 0
	var added sync.WaitGroup
	added.Go(wg.Wait)
	for got < writers*each && !s.Failed() {
		items, _, err := s.DueForwards(s.Context(), "a", s.now, 10)
		s.must(err)
		var settled []forward.Settled
		for _, i := range items {
			if i.ID <= last[i.Mail] {
				s.Fatalf("%s after %s", i.ID, last[i.Mail])
			}
			last[i.Mail] = i.ID
			settled = append(settled, forward.Settled{Item: i, Done: true})
		}
		s.must(s.SettleForwards(s.Context(), settled))
		got += len(items)
	}
	added.Wait()
}
