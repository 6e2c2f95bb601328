package queue_test

import (
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

func TestBounceID(t *testing.T) {
	id := relay.NewID(time.UnixMilli(1_700_000_000_000))
	a := queue.BounceID(id, []int{2, 0})
	if len(a) != len(id) || a[:9] != id[:9] {
		t.Errorf("BounceID(%q) = %q: want the same length and time", id, a)
	}
	if b := queue.BounceID(id, []int{0, 2}); b != a {
		t.Errorf("the order of recipients matters: %q, %q", a, b)
	}
	seen := map[string]bool{a: true, id: true}
	for _, other := range [][]int{nil, {0}, {2}, {0, 1}, {0, 1, 2}} {
		b := queue.BounceID(id, other)
		if seen[b] {
			t.Errorf("BounceID(%v) = %q is taken", other, b)
		}
		seen[b] = true
	}
	for _, to := range []string{"", "a@example.net", "b@example.net"} {
		b := queue.LateBounceID(id, to)
		if seen[b] || len(b) != len(id) || b != queue.LateBounceID(id, to) {
			t.Errorf("LateBounceID(%q) = %q", to, b)
		}
		seen[b] = true
	}
	if got := len(queue.BounceID("x", []int{1})); got != 20 {
		t.Errorf("length %d for a short id", got)
	}
}

func TestStates(t *testing.T) {
	names := map[string]bool{}
	for _, s := range queue.States() {
		names[s.String()] = true
	}
	if len(names) != 5 {
		t.Errorf("names are not distinct: %v", names)
	}
}
