// Package budget bounds the memory of all mail in flight together: what
// arrives, what is being dealt with and what is delivered from the queue. It
// counts; it does not allocate. smtpd reserves for what its clients send,
// relay/app makes the one budget and hands it to whoever else holds mail.
package budget

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrSpent says that there was no memory in time: later there may be.
var ErrSpent = errors.New("the memory budget is spent")

// ErrTooLarge says that the whole budget is not enough.
var ErrTooLarge = errors.New("more than the memory budget")

// Kind is what memory is held for.
type Kind int

const (
	// Reading is content that is still coming. It may take half of the budget,
	// so that what has come can always be dealt with.
	Reading Kind = iota
	// Dealing is a mail that has come, with all that is made of it. It goes
	// before Reading: it ends soon, and then gives its memory back.
	Dealing
	// Backlog is mail from the queue. It may take a quarter of the budget, or
	// one mail: it can wait, and a client cannot.
	Backlog
)

// small reservations are those that need not stand in line: a password reset
// does not wait behind an attachment.
const small = 256 << 10

// A Budget is safe for concurrent use.
type Budget struct {
	size int64

	mu      sync.Mutex
	used    int64
	of      [Backlog + 1]int64 // of used, by kind
	waiting []*waiter          // by rank, each rank in its order
}

// waiter is a share that wants to hold more.
type waiter struct {
	share   *Share
	kind    Kind
	n       int64
	granted chan struct{}
}

// New returns a budget of so many bytes. Its use is registered at reg, which
// may be nil.
func New(size int64, reg prometheus.Registerer) *Budget {
	b := &Budget{size: size}
	b.measure(reg)
	return b
}

// Most is the most that may be held as a kind.
func (b *Budget) Most(k Kind) int64 {
	if k == Reading {
		return b.size / 2
	}
	return b.size
}

// Overhead changes what is used for other things than mail, such as
// connections. It is never refused; mail has to make do with what it leaves.
func (b *Budget) Overhead(change int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used += change
	b.grant()
}

// Share is what one mail holds of a budget. One goroutine uses it. A nil Share
// holds anything.
type Share struct {
	budget *Budget
	kind   Kind
	held   int64
}

// Share returns one that holds nothing.
func (b *Budget) Share() *Share { return &Share{budget: b} }

// Hold makes the share one of n bytes in all, for a kind. To hold less, or as
// much, always works. For more it waits until ctx ends, and then returns
// ErrSpent, or ErrTooLarge at once for what can never be; the share is then
// what it was.
func (s *Share) Hold(ctx context.Context, kind Kind, n int64) error {
	if s == nil {
		return nil
	}
	b := s.budget
	w := &waiter{share: s, kind: kind, n: n, granted: make(chan struct{})}
	b.mu.Lock()
	switch {
	case n > s.held && n > b.Most(kind):
		b.mu.Unlock()
		return ErrTooLarge
	case n <= s.held, n <= small && b.fits(w), b.ownTurn(w) && b.fits(w):
		b.move(w)
		b.grant()
		b.mu.Unlock()
		return nil
	case ctx.Err() != nil, b.stuck(w):
		b.mu.Unlock()
		return ErrSpent
	}
	b.waiting = slices.Insert(b.waiting, b.place(w), w)
	b.mu.Unlock()
	return b.wait(ctx, w)
}

// Release gives everything back. It may be called more than once.
func (s *Share) Release() { _ = s.Hold(context.Background(), Reading, 0) } // less always works

func (b *Budget) wait(ctx context.Context, w *waiter) error {
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiting, w)
	if i < 0 {
		return nil // granted at the same moment
	}
	b.waiting = slices.Delete(b.waiting, i, i+1)
	b.grant() // whoever stood behind it
	return ErrSpent
}

// rank is who is served first: what has come before what is coming, and of
// that what has begun before what has not.
func (w *waiter) rank() int {
	switch {
	case w.kind != Reading:
		return 0
	case w.share.held > 0:
		return 1
	}
	return 2
}

// place is where in the line a new waiter stands.
func (b *Budget) place(w *waiter) int {
	i := slices.IndexFunc(b.waiting, func(other *waiter) bool { return other.rank() > w.rank() })
	if i < 0 {
		return len(b.waiting)
	}
	return i
}

// ownTurn reports whether nobody stands before a new waiter.
func (b *Budget) ownTurn(w *waiter) bool { return b.place(w) == 0 }

// stuck reports whether a new waiter would be the last one to stop: all that
// mail holds would be held by mail that waits for more. It has to give up what
// it has, so that the others go on.
func (b *Budget) stuck(w *waiter) bool {
	moving := b.of[Reading] + b.of[Dealing] + b.of[Backlog] - w.share.held
	for _, other := range b.waiting {
		moving -= other.share.held
	}
	return w.share.held > 0 && moving == 0
}

// fits reports whether a share may become what its waiter wants.
func (b *Budget) fits(w *waiter) bool {
	others := b.used - w.share.held
	kin := b.of[w.kind]
	if w.share.kind == w.kind {
		kin -= w.share.held
	}
	switch {
	case others+w.n > b.size:
		return false
	case w.kind == Reading && w.n > small:
		return kin+w.n <= b.Most(Reading)
	case w.kind == Backlog:
		return kin == 0 || kin+w.n <= b.size/4
	}
	return true
}

func (b *Budget) move(w *waiter) {
	s := w.share
	b.used += w.n - s.held
	b.of[s.kind] -= s.held
	b.of[w.kind] += w.n
	s.kind, s.held = w.kind, w.n
}

// grant serves who waits, in order. The first that has to go on waiting holds
// up all behind it, or large mail would never get its turn; but what waits for
// a share of the backlog holds up only the backlog.
func (b *Budget) grant() {
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
}
