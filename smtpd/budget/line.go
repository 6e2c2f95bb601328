package budget

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"
)

const (
	// slowAfter is how long a client that sends may need no more memory before
	// it counts as slow. Memory is asked for in pieces of 256 KiB at the most, so
	// a client is never slow at 90 KB a second.
	slowAfter = 3 * time.Second

	// lookAgain is how often who waits looks for slow ones.
	lookAgain = 500 * time.Millisecond
)

// waiter is a share that wants to hold more.
type waiter struct {
	share   *Share
	kind    Kind
	n       int64
	rank    int  // as of the last time
	refused bool // read after granted is closed
	granted chan struct{}
}

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
		case <-look.C: // who was fast may be slow now
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
	if i < 0 {
		return w.result() // at the same moment
	}
	b.waiting = slices.Delete(b.waiting, i, i+1)
	b.grant() // whoever stood behind it
	return ErrSpent
}

func (w *waiter) result() error {
	if w.refused {
		return ErrSpent
	}
	return nil
}

// order puts who waits in the order in which they are served: what has come
// before what is coming; of that what has begun before what has not; of each,
// who has its part or less before who has more; and all by age. So the oldest
// mail comes to its end, where turns would bring none there, and nobody who
// sends much at once holds up others. A part is that of one client, when all
// who have some or wait have the same.
func (b *Budget) order() {
	clients := map[netip.Prefix]struct{}{}
	for c := range b.from {
		clients[c] = struct{}{}
	}
	for _, w := range b.waiting {
		if w.kind == Reading {
			clients[w.share.client] = struct{}{}
		}
	}
	if b.part = b.size; len(clients) > 1 {
		b.part = b.Most(Reading) / int64(len(clients))
	}
	for _, w := range b.waiting {
		w.rank = 0
		if w.kind == Reading {
			w.rank = 1
			if w.share.held == 0 {
				w.rank = 3
			}
			if b.beyond(w.share) {
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

// beyond reports whether a share's client has more than its part while others
// want theirs.
func (b *Budget) beyond(s *Share) bool { return b.from[s.client] > b.part }

// begun is for what is coming, and holds something.
func (w *waiter) begun() bool { return w.kind == Reading && w.share.held > 0 }

// grant serves who waits, in order. The first that has to go on waiting holds
// up all behind it, or large mail would never get its turn; but what waits for
// a share of the backlog holds up only the backlog.
func (b *Budget) grant() {
	defer b.admit()
	if len(b.waiting) == 0 {
		b.part = b.size
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
	b.unlock()
}

// unlock sees to it that there is an end to the waiting: when all that mail
// holds is held by mail that waits for more, the last in line of those that are
// still coming have to give up what they have, so that the first goes on.
func (b *Budget) unlock() {
	moving := b.of[Reading] + b.of[Dealing] + b.of[Backlog]
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

// press has slow clients give way to the first in line, or at the gate, as far
// as that lets it go on: those that hold the most.
func (b *Budget) press(now time.Time) {
	slow, line := b.slow(now), b.waiting
	if len(line) == 0 {
		line = b.gate
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

// slow are the shares of clients that have not needed more for some time, the
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
