package warm

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var begin = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)

// on returns a moment of the n-th day, counted from the month in which begin is.
func on(day int, clock time.Duration) time.Time { return begin.AddDate(0, 0, day-1).Add(clock) }

func TestCap(t *testing.T) {
	const free = -1
	ramp := Plan{Begin: begin, First: 50, Growth: 1.5, Until: 200}
	table := Plan{Begin: begin, Table: []int{10, 20, 40}}
	tests := []struct {
		name string
		plan Plan
		day  int
		want int
	}{
		{"first day", ramp, 1, 50},
		{"before it begins", ramp, 0, 50},
		{"long before it begins", ramp, -400, 50},
		{"second day", ramp, 2, 75},
		{"112.5 is rounded", ramp, 3, 113},
		{"168.75 is rounded", ramp, 4, 169},
		{"253 would reach until", ramp, 5, free},
		{"and it stays over", ramp, 500, free},
		{"until is reached exactly", Plan{Begin: begin, First: 50, Growth: 2, Until: 100}, 2, free},
		{"one below until", Plan{Begin: begin, First: 50, Growth: 2, Until: 101}, 2, 100},
		{"no rounding down of 100 × 1.1³", Plan{Begin: begin, First: 100, Growth: 1.1}, 4, 133},
		{"no growth", Plan{Begin: begin, First: 7, Growth: 1}, 1000, 7},
		{"growth below 1", Plan{Begin: begin, First: 7, Growth: 0.5}, 5, 7},
		{"growth not set", Plan{Begin: begin, First: 7}, 5, 7},
		{"growth not a number", Plan{Begin: begin, First: 7, Growth: math.NaN()}, 5, 7},
		{"growth saturates", Plan{Begin: begin, First: 7, Growth: 10}, 5000, most},
		{"growth beyond numbers", Plan{Begin: begin, First: 7, Growth: math.Inf(1)}, 2, most},
		{"first saturates", Plan{Begin: begin, First: math.MaxInt}, 1, most},
		{"first below nothing", Plan{Begin: begin, First: -5, Growth: 2}, 3, 0},
		{"table's first day", table, 1, 10},
		{"before the table", table, -3, 10},
		{"table's last day", table, 3, 40},
		{"table's last holds", table, 100, 40},
		{"table ends with 0, before", Plan{Begin: begin, Table: []int{10, 0}}, 1, 10},
		{"table ends with 0", Plan{Begin: begin, Table: []int{10, 0}}, 2, free},
		{"table ends with 0, after", Plan{Begin: begin, Table: []int{10, 0}}, 3, free},
		{"table and until", Plan{Begin: begin, Table: []int{10, 20}, Until: 20}, 2, free},
		{"table goes before first", Plan{Begin: begin, First: 5, Growth: 2, Table: []int{10}}, 2, 10},
		{"begin in mid-day, first day", Plan{Begin: begin.Add(15 * time.Hour), First: 3, Growth: 2}, 1, 3},
		{"begin in mid-day, second day", Plan{Begin: begin.Add(15 * time.Hour), First: 3, Growth: 2}, 2, 6},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, clock := range []time.Duration{0, 12 * time.Hour, 24*time.Hour - 1} {
				got, bounded := tt.plan.Cap(on(tt.day, clock))
				if !bounded {
					got = free
				}
				if got != tt.want {
					t.Errorf("day %d at %s: %d, want %d", tt.day, clock, got, tt.want)
				}
			}
		})
	}
}

// The day is that of UTC, whatever the zone of the time.
func TestCapIsOfTheUTCDay(t *testing.T) {
	p := Plan{Begin: begin, First: 1, Growth: 2}
	east := time.FixedZone("east", 14*60*60)
	if got, _ := p.Cap(time.Date(2026, 12, 2, 13, 59, 0, 0, east)); got != 1 {
		t.Errorf("23:59 UTC of day 1: %d, want 1", got)
	}
	if got, _ := p.Cap(time.Date(2026, 12, 2, 14, 0, 0, 0, east)); got != 2 {
		t.Errorf("00:00 UTC of day 2: %d, want 2", got)
	}
}

func TestCapProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Plan{
			Begin:  begin,
			First:  rapid.Int().Draw(t, "first"),
			Growth: rapid.Float64().Draw(t, "growth"),
			Until:  rapid.OneOf(rapid.Just(0), rapid.Int()).Draw(t, "until"),
		}
		day := rapid.IntRange(-1000, 4000).Draw(t, "day")
		a, boundedA := p.Cap(on(day, 0))
		b, boundedB := p.Cap(on(day+1, 0))
		if a < 0 || a > most {
			t.Fatalf("%d is not within [0, %d]", a, most)
		}
		if !boundedA && boundedB || boundedA && boundedB && b < a {
			t.Fatalf("day %d has %d (%v), the next one %d (%v)", day, a, boundedA, b, boundedB)
		}
		if p.Until > 0 && boundedA && a >= p.Until {
			t.Fatalf("%d is bounded though it reaches %d", a, p.Until)
		}
	})
}

func TestDayOfIsTheCalendars(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		moment := time.Unix(rapid.Int64Range(-1<<36, 1<<36).Draw(t, "seconds"), 0).UTC()
		start := startOf(dayOf(moment))
		want := time.Date(moment.Year(), moment.Month(), moment.Day(), 0, 0, 0, 0, time.UTC)
		if !start.Equal(want) {
			t.Fatalf("the day of %s begins at %s", moment, start)
		}
	})
}

func TestUrgent(t *testing.T) {
	m := New([]Plan{
		{Domain: "mail.example.com", First: 1, Urgent: []string{"alerts@Mail.example.com", "@bücher.example"}},
		{Domain: "example.org", First: 1, Urgent: []string{"", "@"}},
	})
	tests := []struct {
		domain, sender string
		want           bool
	}{
		{"mail.example.com", "alerts@mail.example.com", true},
		{"MAIL.example.com.", "Alerts@mail.EXAMPLE.com", true},
		{"mail.example.com", "alerts@example.com", false},
		{"mail.example.com", "more-alerts@mail.example.com", false},
		{"mail.example.com", "any@xn--bcher-kva.example", true},
		{"mail.example.com", "any@sub.xn--bcher-kva.example", false},
		{"mail.example.com", "any@bücher.example", true},
		{"mail.example.com", "", false},
		{"example.org", "", false},
		{"example.org", "alerts@mail.example.com", false},
		{"unknown.example", "alerts@mail.example.com", false},
	}
	for _, tt := range tests {
		if got := m.Urgent(tt.domain, tt.sender); got != tt.want {
			t.Errorf("Urgent(%q, %q) = %v", tt.domain, tt.sender, got)
		}
	}
}
