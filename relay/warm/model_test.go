package warm

import (
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model has what the provider sees and what stable storage holds, beside the Meter
// under test.
type model struct {
	plans []Plan
	m     *Meter
	now   time.Time
	marks map[string]string

	flight   []mail            // taken and not ended
	accepted map[string]*tally // by day and domain
}

type mail struct {
	domain string
	urgent bool
	at     time.Time
}

// tally is one day of one domain as the provider sees it.
type tally struct {
	ordinary, urgent int
	lost             int // of them, those whose settlement a crash prevented
}

func (x mail) day() string { return x.at.UTC().Format(time.DateOnly) + " " + x.domain }

func (w *model) tally(x mail) *tally {
	if w.accepted[x.day()] == nil {
		w.accepted[x.day()] = &tally{}
	}
	return w.accepted[x.day()]
}

func (w *model) inFlight(day string) (n int) {
	for _, x := range w.flight {
		if x.day() == day {
			n++
		}
	}
	return n
}

func (w *model) plan(domain string) (Plan, bool) {
	for _, p := range w.plans {
		if p.Domain == domain {
			return p, true
		}
	}
	return Plan{}, false
}

// pick removes a mail from those in flight.
func (w *model) pick(t *rapid.T) mail {
	if len(w.flight) == 0 {
		t.Skip("nothing is in flight")
	}
	i := rapid.IntRange(0, len(w.flight)-1).Draw(t, "mail")
	x := w.flight[i]
	w.flight = append(w.flight[:i], w.flight[i+1:]...)
	return x
}

func (w *model) take(t *rapid.T) {
	x := mail{
		domain: rapid.SampledFrom([]string{"a.example", "b.example", "c.example"}).Draw(t, "domain"),
		urgent: rapid.IntRange(0, 4).Draw(t, "urgent") == 0,
		at:     w.now,
	}
	bounded, limit := false, 0
	if p, ok := w.plan(x.domain); ok {
		limit, bounded = p.Cap(x.at)
	}
	used := w.tally(x).ordinary + w.tally(x).urgent - w.tally(x).lost + w.inFlight(x.day())
	ok := w.m.Take(x.domain, x.urgent, x.at)
	switch {
	case ok:
		w.flight = append(w.flight, x)
	case x.urgent || !bounded:
		t.Fatalf("%+v was refused", x)
	case used < limit:
		t.Fatalf("%+v was refused with %d of %d used", x, used, limit)
	}
}

// settle is the queue's transaction, followed by the call to the Meter.
func (w *model) settle(t *rapid.T) {
	x := w.pick(t)
	w.accept(x)
	if name := w.m.Mark(x.domain, x.at); name != "" {
		n, _ := strconv.Atoi(w.marks[name])
		w.marks[name] = strconv.Itoa(n + 1)
	}
	w.m.Sent(x.domain, x.at)
}

func (w *model) accept(x mail) {
	if x.urgent {
		w.tally(x).urgent++
	} else {
		w.tally(x).ordinary++
	}
}

func (w *model) giveBack(t *rapid.T) {
	x := w.pick(t)
	w.m.Return(x.domain, x.at)
}

// setClock moves the clock to any moment of eight days. So no more days are counted
// than are kept, whatever the order.
func (w *model) setClock(t *rapid.T) {
	w.now = on(0, time.Duration(rapid.IntRange(0, keptDays*secondsPerDay-1).Draw(t, "second"))*time.Second)
}

func (w *model) nextDay(*rapid.T) {
	w.now = w.now.Add(24 * time.Hour)
	if w.now.After(on(7, 0)) {
		w.now = on(1, 0)
	}
}

// glitch is a clock that is far off when old marks are looked for.
func (w *model) glitch(t *rapid.T) {
	w.expire(on(rapid.IntRange(-10000, 10000).Draw(t, "day"), 0))
}

func (w *model) expire(now time.Time) {
	for _, name := range w.m.Expired(now) {
		delete(w.marks, name)
	}
}

// restart is a crash. Nobody knows whether what was in flight was sent.
func (w *model) restart(t *rapid.T) {
	for _, x := range w.flight {
		if rapid.Bool().Draw(t, "accepted") {
			w.accept(x)
			w.tally(x).lost++
		}
	}
	w.flight = nil
	w.m = New(w.plans)
	w.m.Load(maps.Clone(w.marks))
}

func (w *model) check(t *rapid.T) {
	for day, n := range w.accepted {
		date, domain, _ := strings.Cut(day, " ")
		at, _ := time.Parse(time.DateOnly, date)
		p, ok := w.plan(domain)
		limit, bounded := p.Cap(at)
		if !ok || !bounded {
			continue
		}
		if n.ordinary > limit+n.lost {
			t.Fatalf("%s: %d ordinary mails, %d of them over a crash, with a cap of %d", day, n.ordinary, n.lost, limit)
		}
		counted := n.ordinary + n.urgent - n.lost
		want := max(limit-counted-w.inFlight(day), 0)
		if got := w.m.Limits(at)[domain]; got != want {
			t.Fatalf("%s: limit %d, want %d (%+v of %d, %d in flight)", day, got, want, *n, limit, w.inFlight(day))
		}
	}
}

// Whatever is sent or returned, and whatever happens to the clock and the process, no
// day sees more ordinary mail than its cap and what was in flight at crashes. No mail
// is refused while there is room.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &model{
			plans: []Plan{
				{Domain: "a.example", Begin: begin, First: 2, Growth: 1.5, Until: rapid.SampledFrom([]int{0, 6}).Draw(t, "until")},
				{Domain: "b.example", Begin: begin, Table: []int{3, 1, 2, 0}},
			},
			now:      on(1, 0),
			marks:    map[string]string{},
			accepted: map[string]*tally{},
		}
		w.m = New(w.plans)
		t.Repeat(map[string]func(*rapid.T){
			"take":     w.take,
			"take2":    w.take, // more often than the rest, so that caps are met
			"take3":    w.take,
			"settle":   w.settle,
			"settle2":  w.settle,
			"giveBack": w.giveBack,
			"setClock": w.setClock,
			"nextDay":  w.nextDay,
			"expire":   func(*rapid.T) { w.expire(w.now) },
			"glitch":   w.glitch,
			"restart":  w.restart,
			"":         w.check,
		})
	})
}

// Load reads the names that Mark writes, and others cause no panic.
func FuzzLoad(f *testing.F) {
	f.Add("warm/2026-12-01/mail.example.com", "3")
	f.Add("warm/2026-02-30/mail.example.com", "3")
	f.Add("warm/0000-01-01/", "-1")
	f.Add("warm//", "99999999999999999999")
	f.Fuzz(func(t *testing.T, name, value string) {
		m := New(nil)
		m.Load(map[string]string{name: value})
		if len(m.counts) > 1 {
			t.Fatalf("%d counters from one mark", len(m.counts))
		}
		for k, c := range m.counts {
			if m.mark(k) != name || c.sent < 0 || c.sent > most {
				t.Fatalf("%q = %q was read as %+v with %+v", name, value, k, c)
			}
		}
	})
}
