package suppress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
)

// newList returns a List with the defaults where o has none of its own.
func newList(o Options) *List {
	d := settings.Defaults[Settings]()
	o.Expire, o.Forget = cmp.Or(o.Expire, d.Expire), cmp.Or(o.Forget, d.Forget)
	return New(o)
}

var now0 = time.Date(2026, 5, 13, 10, 24, 31, 0, time.UTC)

func bounced(kind, email string, at time.Time) relay.Event {
	return relay.Event{ID: "evt_" + kind + email, Type: kind, Email: email, Created: at, Occurred: at.Add(-3 * time.Second), Received: at.Add(time.Minute),
		BounceCode: "550", BounceReason: "5.1.1 no such user"}
}

func take(t *testing.T, l *List, e relay.Event) {
	t.Helper()
	if _, err := l.Take(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

func TestWhatEventsTeach(t *testing.T) {
	for kind, want := range map[string]Reason{
		"bounced.hard": HardBounce, "complained": Complaint, "unsubscribed": 0,
		"bounced.soft": 0, "delivered": 0, "opened": 0, "clicked": 0, "sent": 0, "": 0, "BOUNCED.HARD": 0,
	} {
		l := newList(Options{})
		take(t, l, bounced(kind, "Bob@Example.net", now0))
		e, ok := l.Lookup("bob@example.NET", now0.Add(time.Hour))
		if ok != (want != 0) || e.Reason != want {
			t.Errorf("%s: %+v, %t", kind, e, ok)
		}
		if ok && !e.Since.Equal(now0.Add(-3*time.Second)) {
			t.Errorf("%s: since %s", kind, e.Since)
		}
		if _, ok := l.Lookup("bob@example.net", now0.Add(time.Minute+settings.Defaults[Settings]().Expire)); ok {
			t.Errorf("%s: does not expire", kind)
		}
	}
}

func TestUnsubscribedWhereItSuppresses(t *testing.T) {
	l := newList(Options{Settings: Settings{Unsubscribed: true}})
	take(t, l, bounced("unsubscribed", "bob@example.net", now0))
	if e, ok := l.Lookup("bob@example.net", now0); !ok || e.Reason != Unsubscribe {
		t.Errorf("%+v, %t", e, ok)
	}
}

// TestOrderDoesNotMatter: whatever comes after a hard bounce, or came before
// it and is late, the address stays suppressed for it.
func TestOrderDoesNotMatter(t *testing.T) {
	l := newList(Options{})
	take(t, l, bounced("bounced.hard", "bob@example.net", now0))
	take(t, l, bounced("delivered", "bob@example.net", now0.Add(-time.Hour)))
	take(t, l, bounced("delivered", "bob@example.net", now0.Add(time.Hour)))
	take(t, l, bounced("unsubscribed", "bob@example.net", now0.Add(time.Hour)))
	l.Learn("bob@example.net", Provider, "suppressed", now0.Add(2*time.Hour))
	if e, ok := l.Lookup("bob@example.net", now0.Add(3*time.Hour)); !ok || e.Reason != HardBounce {
		t.Errorf("%+v, %t", e, ok)
	}
}

// TestTheProvidersClock: an event from the future, or without a time, is one
// from now, and expires by our clock.
func TestTheProvidersClock(t *testing.T) {
	for name, change := range map[string]func(*relay.Event){
		"the future":        func(e *relay.Event) { e.Occurred = now0.AddDate(100, 0, 0) },
		"no time":           func(e *relay.Event) { e.Occurred, e.Created = time.Time{}, time.Time{} },
		"the far past":      func(e *relay.Event) { e.Occurred = time.Unix(-1e9, 0) },
		"before any of it":  func(e *relay.Event) { e.Occurred = time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC) },
		"only when created": func(e *relay.Event) { e.Occurred = time.Time{} },
	} {
		l := newList(Options{Settings: Settings{Expire: time.Hour}})
		e := bounced("bounced.hard", "bob@example.net", now0)
		change(&e)
		take(t, l, e)
		got, ok := l.Lookup("bob@example.net", e.Received.Add(58*time.Minute))
		if !ok || got.Since.After(e.Received) {
			t.Errorf("%s: %+v, %t", name, got, ok)
		}
		if _, ok := l.Lookup("bob@example.net", e.Received.Add(time.Hour)); ok {
			t.Errorf("%s: does not expire", name)
		}
	}
}

// TestEventsThatComeAgain: an event that is so old that its id may be forgotten
// changes nothing, whoever sends it again; and a late one suppresses for no longer
// than it would have in time.
func TestEventsThatComeAgain(t *testing.T) {
	ctx := t.Context()
	store := NewMemory(0)
	l := newList(Options{Settings: Settings{Expire: 100 * 24 * time.Hour, Forget: 5 * 24 * time.Hour}, Store: store})
	if err := store.Attach(ctx, l.index); err != nil {
		t.Fatal(err)
	}
	e := bounced("bounced.hard", "bob@example.net", now0)
	take(t, l, e)
	if _, err := store.Remove(ctx, []string{"bob@example.net"}, e.Received.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	fresh := 0
	for at := e.Received.Add(2 * time.Hour); at.Before(now0.AddDate(0, 0, 200)); at = at.Add(time.Hour) {
		if _, err := store.Tend(ctx, at, at.Add(-l.set.Load().Forget)); err != nil {
			t.Fatal(err)
		}
		again := e
		again.Received = at
		if ok, err := l.Take(ctx, again); ok || err != nil {
			fresh++
		}
	}
	if _, ok := l.Lookup("bob@example.net", now0.AddDate(0, 0, 200)); ok || fresh > 0 {
		t.Errorf("it was fresh %d times, suppressed is %t", fresh, ok)
	}

	late := bounced("bounced.hard", "late@example.net", now0)
	late.Received = now0.AddDate(0, 0, 4)
	take(t, l, late)
	if got, ok := l.Lookup("late@example.net", late.Received); !ok || !got.Expires.Equal(now0.AddDate(0, 0, 100)) {
		t.Errorf("%+v, %t", got, ok)
	}
}

func TestAnEventWithoutAnAddressTeachesNothing(t *testing.T) {
	l := newList(Options{})
	take(t, l, bounced("bounced.hard", "", now0))
	if _, ok := l.Lookup("", now0); ok {
		t.Error("nobody is suppressed")
	}
}

func TestDifferentMailboxesAreNotMerged(t *testing.T) {
	l := newList(Options{})
	l.Learn("bob@example.net", HardBounce, "", now0)
	for _, other := range []string{"b.ob@example.net", "bob+x@example.net", "bob@sub.example.net", "bob@example.com", "bob", `"b ob"@example.net`, "bob@example.net@example.net"} {
		if _, ok := l.Lookup(other, now0); ok {
			t.Errorf("%s counts as suppressed because bob@example.net is", other)
		}
	}
	if e, ok := l.Lookup(`"BOB"@example.NET`, now0); !ok || e.Reason != HardBounce || !e.Since.Equal(now0) {
		t.Errorf("%+v, %t", e, ok)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	l := newList(Options{Metrics: reg})
	ctx := t.Context()
	l.Learn("a@x.example", Provider, "", now0)
	take(t, l, bounced("bounced.hard", "a@x.example", now0)) // from api to webhook
	l.Learn("b@x.example", Provider, "", now0)
	take(t, l, bounced("complained", "c@x.example", now0))
	if _, err := l.opt.Store.Remove(ctx, []string{"c@x.example"}, now0); err != nil {
		t.Fatal(err)
	}
	e, _ := l.Lookup("a@x.example", now0)
	l.Refused(e)
	want := map[string]float64{"hard_bounce webhook": 1, "provider api": 1}
	for _, r := range Reasons() {
		for _, s := range Sources() {
			if got := float64(l.index.count(r, s)); got != want[r.String()+" "+s.String()] {
				t.Errorf("%s %s: %v", r, s, got)
			}
		}
	}
	if got := testutil.ToFloat64(l.metrics.refused[HardBounce]); got != 1 {
		t.Errorf("refused: %v", got)
	}
	if n, err := testutil.GatherAndCount(reg, "smtp2rest_suppression_entries"); n != len(Reasons())*len(Sources()) || err != nil {
		t.Errorf("%d series, %v", n, err)
	}
}

// TestTends: what has expired goes by itself, at start and later.
func TestTends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := NewMemory(0)
		l := newList(Options{Settings: Settings{Expire: 30 * time.Minute}, Store: store})
		if err := l.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer l.Stop()
		l.Learn("a@x.example", Provider, "", time.Now())
		time.Sleep(31 * time.Minute)
		synctest.Wait()
		if _, ok, _ := store.Entry(t.Context(), "a@x.example"); ok || len(l.index.slots) != 0 {
			t.Error("an expired entry still takes room")
		}
	})
}

// failing is a Store of which some calls fail.
type failing struct {
	Store
	attach error
}

func (f failing) Attach(context.Context, Watcher) error                    { return f.attach }
func (f failing) Tend(context.Context, time.Time, time.Time) (bool, error) { return true, f.attach }

func TestStartSaysWhatCannotBeRead(t *testing.T) {
	broken := errors.New("broken")
	l := newList(Options{Store: failing{NewMemory(0), broken}})
	if err := l.Start(t.Context()); !errors.Is(err, broken) {
		t.Error(err)
	}
	l.Stop() // harmless
}

func fill(x *index, n int) {
	for i := range n {
		x.Set(Entry{Address: fmt.Sprintf("some.recipient%d@mail%d.example.net", i, i%1000), Reason: HardBounce, Source: Webhook, Since: now0, Expires: now0.AddDate(0, 1, 0)})
	}
}

// TestAMillionEntriesFit: in 150 MB, and they do.
func TestAMillionEntriesFit(t *testing.T) {
	const n = 1_000_000
	before := heap()
	l := newList(Options{})
	fill(l.index, n)
	used := int64(heap()) - int64(before)
	runtime.KeepAlive(l)
	t.Logf("%d MB for %d entries, %d bytes each", used>>20, n, used/n)
	if used > 150_000_000 {
		t.Errorf("%d entries take %d MB", n, used>>20)
	}
	if _, ok := l.Lookup("Some.Recipient999999@mail999.example.net", now0); !ok {
		t.Error("the last is not known")
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkLookup(b *testing.B) {
	l := newList(Options{})
	fill(l.index, 1_000_000)
	for name, address := range map[string]string{
		"known":   "some.recipient500000@mail0.example.net",
		"unknown": "nobody@example.net",
		"capital": "Some.Recipient500000@Mail0.Example.NET",
		"idna":    "some.recipient@bücher.example.net",
		"quoted":  `"some recipient"@example.net`,
		"longest": strings.Repeat("x", 64) + "@" + strings.Repeat("y", 180) + ".net",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l.Lookup(address, now0)
			}
		})
	}
}
