package budget

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"
)

const (
	// slowAfter is how long a client that sends may need no more memory before it
	// counts as slow. It asks for at most 256 KiB at a time, so a client that sends 90
	// KB a second is never slow.
	slowAfter = 3 * time.Second

	// lookAgain is how often a waiting share looks for slow clients.
	lookAgain = 500 * time.Millisecond
)

// A waiter is a share that waits to hold n bytes in all.
type waiter struct {
	share   *Share
	kind    Kind
	n       int64 // that counts
	asked   int64 // more than that, if it is larger than its share
	rank    int   // the lowest is served first
	refused bool  // is read after granted was closed
	granted chan struct{}
}

// large reports whether it asks for more than its share.
func (w *waiter) large() bool { return w.asked > w.n }

// await returns when w was granted, or ctx ended.
func (b *Budget) await(ctx context.Context, w *waiter) {
	look := time.NewTicker(lookAgain)
	defer look.Stop()
	for {
		select {
		case <-w.granted:
			return
		case <-ctx.Done():
			return
		case <-look.C: // a client that was fast may be slow now
			b.mu.Lock()
			b.admit()
			b.press(time.Now())
			b.mu.Unlock()
		}
	}
}

func (b *Budget) wait(ctx context.Context, w *waiter) error {
	b.await(ctx, w)
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiting, w)
	if i < 0 { // it was decided at the same moment
		if w.refused {
			return ErrSpent
		}
		return nil
	}
	b.waiting = slices.Delete(b.waiting, i, i+1)
	b.grant() // those behind it
	return ErrSpent
}

// order sorts the waiters by who is served first: mail that has come before mail that is
// coming; of the latter, mail that has begun before mail that has not; of each, clients
// that hold no more than their fair part before those that hold more; and all by age.
// So the oldest mail comes to its end, which it would not if they took turns, and a
// client that sends much at once does not hold up others. The fair part is that of one
// client if all that hold memory or wait for it had the same.
func (b *Budget) order() {
	clients := map[netip.Prefix]struct{}{}
	for c := range b.byClient {
		clients[c] = struct{}{}
	}
	for _, w := range b.waiting {
		if w.kind == Reading {
			clients[w.share.client] = struct{}{}
		}
	}
	if b.fairPart = b.size; len(clients) > 1 {
		b.fairPart = b.Most(Reading) / int64(len(clients))
	}
	for _, w := range b.waiting {
		w.rank = 0
		if w.kind == Reading {
			w.rank = 1
			if w.share.held == 0 {
				w.rank = 3
			}
			if b.beyondPart(w.share) {
				w.rank++
			}
		}
	}
	slices.SortStableFunc(b.waiting, func(x, y *waiter) int {
		if x.rank != y.rank || !x.begun() {
			return cmp.Compare(x.rank, y.rank)
		}
		return cmp.Compare(x.share.begun, y.share.begun)
	})
}

// beyondPart reports whether a share's client holds more than its fair part.
func (b *Budget) beyondPart(s *Share) bool { return b.byClient[s.client] > b.fairPart }

// begun reports whether a waiter is for mail that is coming, and holds something.
func (w *waiter) begun() bool { return w.kind == Reading && w.share.held > 0 }

// grant serves the waiters, in order. The first for which there is no room holds up all
// behind it, or large mail would never get its turn; but one of the backlog holds up
// only the backlog.
func (b *Budget) grant() {
	defer b.admit()
	if len(b.waiting) == 0 {
		b.fairPart = b.size
		return
	}
	b.order()
	var left []*waiter
	blocked, backlogBlocked := false, false
	for _, w := range b.waiting {
		if blocked || w.kind == Backlog && backlogBlocked || !b.fits(w) {
			left = append(left, w)
			if w.kind == Backlog {
				backlogBlocked = true
			} else {
				blocked = true
			}
			continue
		}
		b.move(w)
		close(w.granted)
	}
	b.waiting = left
	b.breakDeadlock()
}

// breakDeadlock ends a wait that would have no end: when all memory is held by mail that
// waits for more, it refuses mail that is still coming, from the end of the line, until
// the first in line can go on.
func (b *Budget) breakDeadlock() {
	moving := b.ofMail()
	for _, w := range b.waiting {
		moving -= w.share.held
	}
	if moving > 0 || len(b.waiting) == 0 {
		return
	}
	for freed, last := int64(0), len(b.waiting)-1; last > 0 && !b.fitsAfter(b.waiting[0], freed); last-- {
		w := b.waiting[last]
		if !w.begun() {
			continue
		}
		b.waiting = slices.Delete(b.waiting, last, last+1)
		freed += w.share.held
		w.refused = true
		close(w.granted)
	}
}

// press makes slow clients give way to the first in line or, without a line, to the first
// that waits to begin: those that hold the most, and only if that is enough.
func (b *Budget) press(now time.Time) {
	slow, line := b.slow(now), b.waiting
	if len(line) == 0 {
		line = b.announced
	}
	for _, w := range line {
		freed, n := int64(0), 0
		for ; n < len(slow) && !b.fitsAfter(w, freed); n++ {
			freed += slow[n].held
		}
		switch {
		case b.fitsAfter(w, freed):
			for _, s := range slow[:n] {
				if !s.pressed.Swap(true) {
					b.gaveWay.Inc()
				}
				s.wake()
			}
			return
		case w.kind != Backlog:
			return // it holds up all behind it
		}
	}
}

// slow returns the shares of clients that have not needed more for some time, the
// largest first.
func (b *Budget) slow(now time.Time) (list []*Share) {
	for s := range b.reading {
		waits := slices.ContainsFunc(b.waiting, func(w *waiter) bool { return w.share == s })
		if s.wake != nil && now.Sub(s.grown) >= slowAfter && !waits {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(x, y *Share) int { return cmp.Compare(y.held, x.held) })
	return list
}

// Announce says how much a share will hold for Reading, before it holds any of it. It
// waits until there is room for that beside all that others hold or have announced.
// So no more mails begin than can come to their end; otherwise the youngest of too many
// would be refused only after their clients have sent everything.
//
// What others have only announced refuses nobody: when ctx ends, the error is ErrSpent
// only if there is no room beside what they hold.
func (s *Share) Announce(ctx context.Context, n int64) error {
	if s == nil || n <= small {
		return nil
	}
	b := s.budget
	w := &waiter{share: s, kind: Reading, n: n, granted: make(chan struct{})}
	b.mu.Lock()
	b.announced = append(b.announced, w)
	b.admit()
	b.press(time.Now())
	b.mu.Unlock()
	b.await(ctx, w)
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.announced, w)
	if i < 0 {
		return nil
	}
	b.announced = slices.Delete(b.announced, i, i+1)
	defer b.admit() // those behind it
	if !b.fits(w) {
		return ErrSpent
	}
	b.expect(w)
	return nil
}

// admit lets announced mails begin, in order, as long as there is room.
func (b *Budget) admit() {
	if len(b.announced) == 0 {
		return
	}
	for ahead := b.ahead(time.Now()); len(b.announced) > 0 && b.fitsAfter(b.announced[0], -ahead); b.announced = b.announced[1:] {
		w := b.announced[0]
		b.expect(w)
		ahead += w.n
		close(w.granted)
	}
}

func (b *Budget) expect(w *waiter) {
	w.share.full, w.share.grown = w.n, time.Now()
	b.expected[w.share] = struct{}{}
}

// ahead is how much of what was announced is still to come. Slow clients do not count:
// theirs may never come.
func (b *Budget) ahead(now time.Time) (n int64) {
	for s := range b.expected {
		if now.Sub(s.grown) < slowAfter {
			n += max(0, s.full-s.held)
		}
	}
	return n
}
