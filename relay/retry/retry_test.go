package retry

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDelay(t *testing.T) {
	s := Schedule{First: 5 * time.Second, Max: time.Minute}
	tests := []struct {
		attempt int
		jitter  float64
		want    time.Duration
	}{
		{1, 0, 5 * time.Second},
		{2, 0, 10 * time.Second},
		{3, 0, 20 * time.Second},
		{4, 0, 40 * time.Second},
		{5, 0, time.Minute},
		{1000, 0, time.Minute},
		{math.MaxInt, 0, time.Minute},
		{0, 0, 5 * time.Second},
		{-3, 0, 5 * time.Second},
		{2, 0.5, 7500 * time.Millisecond},
	}
	for _, tt := range tests {
		if got := s.Delay(tt.attempt, tt.jitter); got != tt.want {
			t.Errorf("Delay(%d, %v) = %s, want %s", tt.attempt, tt.jitter, got, tt.want)
		}
	}
}

func TestDelayProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := time.Duration(rapid.Int64Range(1, math.MaxInt64).Draw(t, "first"))
		s := Schedule{First: first, Max: time.Duration(rapid.Int64Range(int64(first), math.MaxInt64).Draw(t, "max"))}
		attempt := rapid.IntRange(1, 200).Draw(t, "attempt")
		jitter := rapid.Float64Range(0, 0.999).Draw(t, "jitter")

		got := s.Delay(attempt, jitter)
		full := s.Delay(attempt, 0)
		if got <= 0 && first > 1 || got > s.Max || got > full {
			t.Fatalf("%s is not within (0, %s]", got, full)
		}
		if float64(got) < float64(full)/2-1e3 {
			t.Fatalf("jitter took more than half: %s of %s", got, full)
		}
		if next := s.Delay(attempt+1, 0); next < full {
			t.Fatalf("attempt %d waits %s, the one before %s", attempt+1, next, full)
		}
	})
}

func TestNext(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := Schedule{First: time.Hour, Max: 4 * time.Hour, MaxAge: 10 * time.Hour}
	tests := []struct {
		name    string
		age     time.Duration
		attempt int
		want    time.Duration // since start; 0 is given up
	}{
		{"young", 0, 1, time.Hour},
		{"the last attempt is at the end", 9*time.Hour + 30*time.Minute, 5, 10 * time.Hour},
		{"too old", 10 * time.Hour, 3, 0},
		{"much too old", 1000 * time.Hour, 30, 0},
		{"old, but hardly tried", 20 * time.Hour, 2, 22 * time.Hour},
	}
	for _, tt := range tests {
		next, again := s.Next(start, start.Add(tt.age), tt.attempt, 0)
		if again != (tt.want != 0) || again && !next.Equal(start.Add(tt.want)) {
			t.Errorf("%s: %s, %t", tt.name, next.Sub(start), again)
		}
	}
}
