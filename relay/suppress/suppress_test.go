package suppress

import (
	"fmt"
	"testing"
	"time"
)

var day0 = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func TestNormalise(t *testing.T) {
	tests := []struct{ in, want string }{
		{"bob@example.net", "bob@example.net"},
		{"Bob@Example.NET", "bob@example.net"},
		{"bob@example.net.", "bob@example.net"},
		{"bob@bücher.example", "bob@xn--bcher-kva.example"},
		{"bob@XN--BCHER-KVA.example", "bob@xn--bcher-kva.example"},
		{"b.o.b+tag@example.net", "b.o.b+tag@example.net"},
		{"a@b@example.net", "a@b@example.net"},
		{"root", "root"},
		{"bob@not valid", "bob@not valid"},
	}
	for _, tt := range tests {
		if got := Normalise(tt.in); got != tt.want {
			t.Errorf("Normalise(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestDifferentMailboxesAreNotMerged(t *testing.T) {
	l := New(10, time.Hour)
	l.Add("bob@example.net", HardBounce, day0)
	for _, other := range []string{"b.ob@example.net", "bob+x@example.net", "bob@sub.example.net", "bob@example.com", "bob"} {
		if _, ok := l.Lookup(other, day0); ok {
			t.Errorf("%s counts as suppressed because bob@example.net is", other)
		}
	}
	if e, ok := l.Lookup("BOB@example.NET", day0); !ok || e.Reason != HardBounce || !e.Since.Equal(day0) {
		t.Errorf("BOB@example.NET: %+v, %t", e, ok)
	}
}

func TestEntriesExpire(t *testing.T) {
	l := New(10, time.Hour)
	l.Add("a@x", Provider, day0)
	if _, ok := l.Lookup("a@x", day0.Add(59*time.Minute)); !ok {
		t.Error("gone too early")
	}
	if _, ok := l.Lookup("a@x", day0.Add(time.Hour)); ok {
		t.Error("still there after its time")
	}
	if len(l.entries) != 0 || l.oldest.Len() != 0 {
		t.Error("an expired entry still takes room")
	}
}

func TestAgainKeepsFirstReasonAndDate(t *testing.T) {
	l := New(10, time.Hour)
	l.Add("a@x", HardBounce, day0)
	l.Add("a@x", Provider, day0.Add(30*time.Minute))
	e, ok := l.Lookup("a@x", day0.Add(80*time.Minute))
	if !ok || e.Reason != HardBounce || !e.Since.Equal(day0) {
		t.Errorf("got %+v, %t", e, ok)
	}
}

func TestFullListForgetsTheOldest(t *testing.T) {
	l := New(3, time.Hour)
	for i := range 10 {
		l.Add(fmt.Sprintf("%d@x", i), Provider, day0)
	}
	if len(l.entries) != 3 || l.oldest.Len() != 3 {
		t.Fatalf("%d entries, want 3", len(l.entries))
	}
	for i := range 10 {
		if _, ok := l.Lookup(fmt.Sprintf("%d@x", i), day0); ok != (i >= 7) {
			t.Errorf("entry %d remembered: %t", i, ok)
		}
	}
}
