package smtpd

import (
	"fmt"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"pgregory.net/rapid"
)

func TestRateTable(t *testing.T) {
	l, r, now := newRateTable(), auth.Rate{Number: 6, Per: time.Minute}, time.Now()
	for i := range 6 {
		if wait := l.wait("a", r, now); wait != 0 {
			t.Errorf("number %d waits %v", i, wait)
		}
		l.add("a", r, now)
	}
	for _, tt := range []struct {
		after time.Duration
		who   string
		want  time.Duration
	}{
		{0, "a", 10 * time.Second}, {4 * time.Second, "a", 6 * time.Second}, {10 * time.Second, "a", 0}, {0, "b", 0}, {time.Hour, "a", 0},
	} {
		if got := l.wait(tt.who, r, now.Add(tt.after)); got != tt.want {
			t.Errorf("%s after %v: %v, want %v", tt.who, tt.after, got, tt.want)
		}
	}
}

// However they come: in no time that is as long as the rate's do more than
// twice its number pass, and who is told to wait need not wait longer.
func TestRateTableKeepsTheRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := auth.Rate{Number: rapid.IntRange(1, 20).Draw(t, "number"), Per: time.Duration(rapid.IntRange(1, 100).Draw(t, "per")) * time.Second}
		l, now := newRateTable(), time.Now()
		var passed []time.Time
		for range rapid.IntRange(1, 200).Draw(t, "arrivals") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "after")) * time.Millisecond)
			wait := l.wait("a", r, now)
			if wait > 0 && l.wait("a", r, now.Add(wait)) > 0 {
				t.Fatalf("after %v it has to wait again", wait)
			}
			if wait == 0 {
				l.add("a", r, now)
				passed = append(passed, now)
			}
		}
		for i, from := range passed {
			n := 0
			for _, at := range passed[i:] {
				if at.Sub(from) < r.Per {
					n++
				}
			}
			if n > 2*r.Number {
				t.Fatalf("%d in %v, at a rate of %d", n, r.Per, r.Number)
			}
		}
	})
}

// A flood of made-up names takes no more memory than some.
func TestRateTableIsBounded(t *testing.T) {
	l, r, now := newRateTable(), auth.Rate{Number: 1, Per: time.Hour}, time.Now()
	l.add("old", r, now)
	for i := range 2 * ratesKept {
		l.add(fmt.Sprint(i), r, now)
	}
	if n := l.until.Len(); n != ratesKept {
		t.Errorf("%d names", n)
	}
	if l.wait(fmt.Sprint(2*ratesKept-1), r, now) == 0 || l.wait("old", r, now) != 0 {
		t.Error("the latest is forgotten, or the oldest is not")
	}
}
