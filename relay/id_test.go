package relay

import (
	"regexp"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Ids are read out, typed, sorted and put into file names.
func TestNewIDIsShortAndPlain(t *testing.T) {
	plain := regexp.MustCompile(`^[0-9a-v]{20}$`)
	seen := map[string]bool{}
	now := time.Now()
	for range 10_000 {
		id := NewID(now)
		if !plain.MatchString(id) {
			t.Fatalf("%q is not 20 characters of base32hex", id)
		}
		if seen[id] {
			t.Fatalf("%q was minted twice within one millisecond", id)
		}
		seen[id] = true
	}
}

// A listing sorted by id is a listing by time of arrival.
func TestNewIDSortsByTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const until = 1 << 47 // milliseconds: some 4,000 years
		a := rapid.Int64Range(0, until).Draw(t, "a")
		b := rapid.Int64Range(0, until).Draw(t, "b")
		if a == b {
			return
		}
		first, second := NewID(time.UnixMilli(a)), NewID(time.UnixMilli(b))
		if (first < second) != (a < b) {
			t.Fatalf("%d gives %s and %d gives %s: not in the order of time", a, first, b, second)
		}
	})
}

func TestIDTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.UnixMilli(rapid.Int64Range(0, 1<<47).Draw(t, "at")).UTC()
		if got, ok := IDTime(NewID(at)); !ok || !got.Equal(at) {
			t.Fatalf("%v, %v; want %v", got, ok, at)
		}
	})
	for _, id := range []string{"", "0d5hk7", "msg_0123456789abcdef", "zzzzzzzzzzzzzzzzzzzz"} {
		if at, ok := IDTime(id); ok {
			t.Errorf("%q is of %v", id, at)
		}
	}
}
