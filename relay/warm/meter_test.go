package warm

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const domain = "mail.example.com"

// small allows 2 mails on the first day and 4 on the second, and is over on the
// fourth.
func small() *Meter {
	return New([]Plan{{Domain: domain, Begin: begin, First: 2, Growth: 2, Until: 16}})
}

// take takes up to n ordinary mails and returns how many it got.
func take(m *Meter, n int, now time.Time) int {
	got := 0
	for range n {
		if m.Take(domain, false, now) {
			got++
		}
	}
	return got
}

func left(t *testing.T, m *Meter, now time.Time) int {
	t.Helper()
	n, ok := m.Limits(now)[domain]
	if !ok {
		t.Fatalf("no limit for %s at %s", domain, now)
	}
	return n
}

func TestTakeStopsAtTheCap(t *testing.T) {
	m, now := small(), on(1, time.Hour)
	if got := take(m, 5, now); got != 2 {
		t.Fatalf("%d taken, want 2", got)
	}
	m.Return(domain, now)
	if got := take(m, 5, now); got != 1 {
		t.Errorf("%d taken after one came back, want 1", got)
	}
	m.Sent(domain, now)
	m.Sent(domain, now)
	if got := take(m, 5, now); got != 0 {
		t.Errorf("%d taken after all was sent", got)
	}
	if got := take(m, 9, on(2, 0)); got != 4 {
		t.Errorf("%d taken the next day, want 4", got)
	}
	for range 4 {
		m.Return(domain, on(2, 0))
	}
	if len(m.counts) != 1 {
		t.Errorf("%d counters, want day 1's alone", len(m.counts))
	}
}

func TestUrgentPassesAndCounts(t *testing.T) {
	m, now := small(), on(1, 0)
	for range 3 {
		if !m.Take(domain, true, now) {
			t.Fatal("urgent mail was refused")
		}
	}
	if left(t, m, now) != 0 || m.Take(domain, false, now) {
		t.Error("urgent mail did not count while it was being sent")
	}
	m.Sent(domain, now)
	m.Return(domain, now)
	m.Return(domain, now)
	if got := take(m, 5, now); got != 1 {
		t.Errorf("%d taken beside one urgent mail, want 1", got)
	}
}

func TestUnknownAndOverCostNothing(t *testing.T) {
	m := small()
	for range 100 {
		if !m.Take("other.example", false, on(1, 0)) || !m.Take(domain, false, on(4, 0)) {
			t.Fatal("refused")
		}
		m.Sent("other.example", on(1, 0))
		m.Sent(domain, on(4, 0))
	}
	if m.Mark("other.example", on(1, 0)) != "" || m.Mark(domain, on(4, 0)) != "" {
		t.Error("a mark is named for what is not counted")
	}
	if len(m.counts) != 0 {
		t.Errorf("%d counters for what is not counted", len(m.counts))
	}
	if l := m.Limits(on(4, 0)); l != nil {
		t.Errorf("limits %v after the end", l)
	}
	if l := New(nil).Limits(on(1, 0)); l != nil {
		t.Errorf("limits %v without plans", l)
	}
	if _, ok := m.Limits(on(1, 0))["other.example"]; ok {
		t.Error("a limit for a domain without a plan")
	}
}

func TestSpellingsAreOneDomain(t *testing.T) {
	m := New([]Plan{{Domain: "Bücher.Example", Begin: begin, First: 2}, {Domain: "bücher.example", First: 9}})
	now := on(1, 0)
	if !m.Take("xn--bcher-kva.example", false, now) || !m.Take("BÜCHER.example.", false, now) || m.Take("bücher.example", false, now) {
		t.Error("spellings are counted apart, or the second plan was followed")
	}
	if want := (map[string]int{"xn--bcher-kva.example": 0}); !maps.Equal(m.Limits(now), want) {
		t.Errorf("limits %v, want %v", m.Limits(now), want)
	}
	if got := m.Mark("Bücher.example", now); got != "warm/2026-12-01/xn--bcher-kva.example" {
		t.Errorf("mark %q", got)
	}
}

// A mail that is settled after midnight belongs to the day on which it was taken.
func TestMidnightBetweenTakeAndSent(t *testing.T) {
	m, at := small(), on(1, 24*time.Hour-1)
	take(m, 2, at)
	m.Sent(domain, at)
	m.Return(domain, at)
	if got := left(t, m, at); got != 1 {
		t.Errorf("%d left of day 1, want 1", got)
	}
	if got := left(t, m, on(2, time.Second)); got != 4 {
		t.Errorf("%d left of day 2, want 4", got)
	}
}

func TestClockIsSet(t *testing.T) {
	m := small()
	take(m, 2, on(1, 0))
	m.Sent(domain, on(1, 0))
	take(m, 4, on(3, 0)) // forward over a day
	for _, e := range m.Expired(on(300, 0)) {
		t.Errorf("%s was forgotten while the clock was wrong", e)
	}
	if got := left(t, m, on(1, time.Hour)); got != 0 {
		t.Errorf("%d left after the clock came back to day 1", got)
	}
	if got := left(t, m, on(2, 0)); got != 4 {
		t.Errorf("%d left of the day that was skipped, want 4", got)
	}
	if got := left(t, m, on(3, 0)); got != 4 {
		t.Errorf("%d left of day 3, want 4", got)
	}
}

func TestRestartInMidDay(t *testing.T) {
	m := small()
	m.Load(map[string]string{
		"warm/2026-12-01/" + domain:       "2",
		"warm/2026-12-02/" + domain:       "1",
		"warm/2026-12-03/" + domain:       "many",
		"warm/2026-12-00/" + domain:       "1",
		"warm/2026-12-02/":                "4",
		"warm/2026-12-02":                 "4",
		"cold/2026-12-02/" + domain:       "4",
		"warm/2026-12-02/other.example":   "4",
		"warm/2026-12-02/other.example/x": "4",
	})
	for day, want := range map[int]int{1: 0, 2: 3, 3: 8} {
		if got := left(t, m, on(day, 0)); got != want {
			t.Errorf("day %d: %d left, want %d", day, got, want)
		}
	}
	if len(m.counts) != 5 {
		t.Errorf("%d counters, want those of the names that are well formed", len(m.counts))
	}
	m.Load(map[string]string{
		"warm/2026-12-01/" + domain: "99999999999999999999",
		"warm/2026-12-02/" + domain: "-7",
	})
	for range 4 { // more than the cap, so that a sum that overflows shows
		m.Take(domain, true, on(1, 0))
	}
	for day, want := range map[int]int{1: 0, 2: 4} {
		if got := left(t, m, on(day, 0)); got != want {
			t.Errorf("day %d with an absurd count: %d left, want %d", day, got, want)
		}
	}
}

func TestExpired(t *testing.T) {
	m := New([]Plan{{Domain: domain, Begin: begin, First: 5}})
	marks := map[string]string{
		"warm/2026-12-01/gone.example": "1",
		"warm/2026-12-19/gone.example": "1",
	}
	for day := 1; day <= 20; day++ {
		marks[m.Mark(domain, on(day, 0))] = "1"
	}
	m.Load(marks)
	m.Take(domain, false, on(3, 0)) // still being sent, seventeen days later

	got := m.Expired(on(20, time.Hour))
	slices.Sort(got)
	var want []string
	for day := 1; day <= 20-keptDays; day++ {
		if day != 3 {
			want = append(want, "warm/"+on(day, 0).Format(time.DateOnly)+"/"+domain)
		}
	}
	want = append(want, "warm/2026-12-01/gone.example")
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("expired:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if again := m.Expired(on(20, time.Hour)); len(again) != 0 {
		t.Errorf("expired again: %v", again)
	}
	if left(t, m, on(1, 0)) != 5 || left(t, m, on(20-keptDays+1, 0)) != 4 {
		t.Error("what was forgotten still counts, or what was kept does not")
	}
}

// However many future days a wrong clock counted, today's count stays.
func TestTodayNeverExpires(t *testing.T) {
	m := New([]Plan{{Domain: domain, Begin: begin, First: 5}})
	for day := 1; day <= 40; day++ {
		m.Take(domain, false, on(day, 0))
		m.Sent(domain, on(day, 0))
	}
	m.Expired(on(2, 0))
	for day, want := range map[int]int{1: 4, 2: 4, 3: 4, 40: 4} {
		if got := left(t, m, on(day, 0)); got != want {
			t.Errorf("day %d: %d left, want %d", day, got, want)
		}
	}
}

func TestNext(t *testing.T) {
	m := small()
	west := time.FixedZone("west", -5*60*60)
	tests := []struct {
		now, want time.Time
	}{
		{on(-30, time.Hour), on(-29, 0)},
		{on(1, 0), on(2, 0)},
		{on(1, 24*time.Hour-1), on(2, 0)},
		{on(3, time.Hour).In(west), on(4, 0)},
		{on(4, 0), time.Time{}},
	}
	for _, tt := range tests {
		if got := m.Next(tt.now); !got.Equal(tt.want) {
			t.Errorf("Next(%s) = %s, want %s", tt.now, got, tt.want)
		}
	}
	if got := New(nil).Next(on(1, 0)); !got.IsZero() {
		t.Errorf("Next without plans is %s", got)
	}
}

func TestConcurrentTake(t *testing.T) {
	m := New([]Plan{{Domain: domain, Begin: begin, First: 100}})
	now := on(1, 0)
	var ordinary, urgent atomic.Int64
	var wg sync.WaitGroup
	for worker := range 16 {
		wg.Go(func() {
			for i := range 200 {
				isUrgent := worker == 0 && i < 10
				if !m.Take(domain, isUrgent, now) {
					m.Limits(now)
					m.State(now)
					continue
				}
				switch {
				case isUrgent:
					urgent.Add(1)
					m.Sent(domain, now)
				case i%3 == 0:
					m.Return(domain, now)
				default:
					ordinary.Add(1)
					m.Sent(domain, now)
				}
			}
		})
	}
	wg.Wait()
	if urgent.Load() != 10 {
		t.Errorf("%d urgent mails passed, want 10", urgent.Load())
	}
	s := m.State(now)[0]
	if total := ordinary.Load() + urgent.Load(); int64(s.Sent) != total || s.Reserved != 0 {
		t.Errorf("%d sent, %+v counted", total, s)
	}
	if ordinary.Load() > 100 || s.Sent < 100 {
		t.Errorf("%d ordinary of %d mails with a cap of 100", ordinary.Load(), s.Sent)
	}
}
