package budget

import (
	"context"
	"slices"
	"time"
)

// Announce says how much a share is going to be, for Reading, before it holds
// any of it. It waits until there is room for that beside what all others hold
// and are still going to, so that no more begin than can come to their end:
// the youngest of too many would be told so only after they sent all of it.
// But what others only announced keeps nobody out. When ctx ends, the error is
// ErrSpent only if there is no room beside what they hold.
func (s *Share) Announce(ctx context.Context, n int64) error {
	if s == nil || n <= small {
		return nil
	}
	b := s.budget
	w := &waiter{share: s, kind: Reading, n: n, granted: make(chan struct{})}
	b.mu.Lock()
	b.gate = append(b.gate, w)
	b.admit()
	b.press(time.Now())
	b.mu.Unlock()
	b.await(ctx, w)
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.gate, w)
	if i < 0 {
		return nil
	}
	b.gate = slices.Delete(b.gate, i, i+1)
	defer b.admit() // whoever stood behind it
	if !b.fits(w) {
		return ErrSpent
	}
	b.expect(w)
	return nil
}

// admit lets in who stands at the gate, in order, as long as there is room.
func (b *Budget) admit() {
	if len(b.gate) == 0 {
		return
	}
	for ahead := b.ahead(time.Now()); len(b.gate) > 0 && b.fitsAfter(b.gate[0], -ahead); b.gate = b.gate[1:] {
		w := b.gate[0]
		b.expect(w)
		ahead += w.n
		close(w.granted)
	}
}

func (b *Budget) expect(w *waiter) {
	w.share.full, w.share.grown = w.n, time.Now()
	b.coming[w.share] = struct{}{}
}

// ahead is what is still to come of what was announced, as far as it is to be
// believed: not of clients that are slow.
func (b *Budget) ahead(now time.Time) (n int64) {
	for s := range b.coming {
		if now.Sub(s.grown) < slowAfter {
			n += max(0, s.full-s.held)
		}
	}
	return n
}
