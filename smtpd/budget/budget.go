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

// small reservations are those that need not stand in line, up to a sixteenth
// of the budget: a password reset does not wait behind an attachment.
const small = 256 << 10

// A Budget is safe for concurrent use.
type Budget struct {
	size int64

	mu      sync.Mutex
	used    int64
	of      [Backlog + 1]int64 // of used, by kind
	little  int64              // of what is for Reading, in small shares
	begun   uint64             // shares that ever held something
	waiting []*waiter          // in the order in which they are served
}

// waiter is a share that wants to hold more.
type waiter struct {
	share   *Share
	kind    Kind
	n       int64
	refused bool // read after granted is closed
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
	begun  uint64 // orders shares by when they began to hold something
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
	case ctx.Err() != nil:
		b.mu.Unlock()
		return ErrSpent
	}
	b.waiting = slices.Insert(b.waiting, b.place(w), w)
	b.unlock()
	b.mu.Unlock()
	return b.wait(ctx, w)
}

// Release gives everything back. It may be called more than once.
func (s *Share) Release() { _ = s.Hold(context.Background(), Reading, 0) } // less always works

func (b *Budget) wait(ctx context.Context, w *waiter) error {
	select {
	case <-w.granted:
		return w.verdict()
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiting, w)
	if i < 0 {
		return w.verdict() // at the same moment
	}
	b.waiting = slices.Delete(b.waiting, i, i+1)
	b.grant() // whoever stood behind it
	return ErrSpent
}

func (w *waiter) verdict() error {
	if w.refused {
		return ErrSpent
	}
	return nil
}

// before orders waiters: what has come before what is coming, of that what has
// begun before what has not, and each by age. So the oldest mail comes to its
// end, where turns would bring none there.
func (w *waiter) before(other *waiter) bool {
	if a, b := w.rank(), other.rank(); a != b {
		return a < b
	}
	return w.rank() == 1 && w.share.begun < other.share.begun
}

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
	if i := slices.IndexFunc(b.waiting, w.before); i >= 0 {
		return i
	}
	return len(b.waiting)
}

// ownTurn reports whether nobody stands before a new waiter.
func (b *Budget) ownTurn(w *waiter) bool { return b.place(w) == 0 }

// unlock sees to it that there is an end to the waiting: when all that mail
// holds is held by mail that waits for more, the youngest that are still coming
// have to give up what they have, so that the first in line goes on.
func (b *Budget) unlock() {
	moving := b.of[Reading] + b.of[Dealing] + b.of[Backlog]
	for _, w := range b.waiting {
		moving -= w.share.held
	}
	if moving > 0 {
		return
	}
	for freed := int64(0); !b.fitsAfter(b.waiting[0], freed); {
		youngest := -1
		for i, w := range b.waiting[1:] {
			if w.rank() == 1 && (youngest < 0 || w.share.begun > b.waiting[youngest].share.begun) {
				youngest = i + 1
			}
		}
		if youngest < 0 {
			return // what is held is not held by mail
		}
		w := b.waiting[youngest]
		b.waiting = slices.Delete(b.waiting, youngest, youngest+1)
		freed += w.share.held
		w.refused = true
		close(w.granted)
	}
}

// fits reports whether a share may become what its waiter wants.
func (b *Budget) fits(w *waiter) bool { return b.fitsAfter(w, 0) }

// fitsAfter is fits when so much more that is for Reading was given back.
func (b *Budget) fitsAfter(w *waiter, freed int64) bool {
	others := b.used - w.share.held - freed
	kin := b.of[w.kind]
	if w.share.kind == w.kind {
		kin -= w.share.held
	}
	if w.kind == Reading {
		kin -= freed
	}
	switch {
	case others+w.n > b.size:
		return false
	case w.kind == Reading:
		return kin+w.n <= b.Most(Reading) || w.n <= small && b.little-w.share.little()+w.n <= b.size/16
	case w.kind == Backlog:
		return kin == 0 || kin+w.n <= b.size/4
	}
	return true
}

func (b *Budget) move(w *waiter) {
	s := w.share
	if s.held == 0 && w.n > 0 {
		b.begun++
		s.begun = b.begun
	}
	b.used += w.n - s.held
	b.of[s.kind] -= s.held
	b.of[w.kind] += w.n
	b.little -= s.little()
	s.kind, s.held = w.kind, w.n
	b.little += s.little()
}

// little is what a small share holds for Reading.
func (s *Share) little() int64 {
	if s.kind == Reading && s.held <= small {
		return s.held
	}
	return 0
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
