// Package budget bounds the memory of all mail in flight together: what
// arrives, what is being dealt with and what is delivered from the queue. It
// counts; it does not allocate. smtpd reserves for what its clients send,
// relay/app makes the one budget and hands it to whoever else holds mail.
package budget

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

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
	of      [Backlog + 1]int64     // of used, by kind
	from    map[netip.Prefix]int64 // of what is for Reading, by client; without zeros
	little  int64                  // of what is for Reading, in small shares
	begun   uint64                 // shares that ever held something
	reading map[*Share]struct{}    // that hold something for Reading
	waiting []*waiter              // in the order in which they are served, as of the last time
	part    int64                  // of a client, as of the last time
	coming  map[*Share]struct{}    // of which more is expected
	gate    []*waiter              // that announced more than there seems to be
	gaveWay prometheus.Counter
}

// New returns a budget of so many bytes. Its use is registered at reg, which
// may be nil.
func New(size int64, reg prometheus.Registerer) *Budget {
	b := &Budget{size: size, part: size, from: map[netip.Prefix]int64{}, reading: map[*Share]struct{}{}, coming: map[*Share]struct{}{}}
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
	budget  *Budget
	client  netip.Prefix
	wake    func()
	pressed atomic.Bool // to give way

	// The rest is the budget's.
	kind  Kind
	held  int64
	full  int64     // what it is going to be, as far as was announced
	begun uint64    // orders shares by when they began to hold something
	grown time.Time // when it last came to hold more
}

// Share returns one that holds nothing, and that no other makes give way.
func (b *Budget) Share() *Share { return &Share{budget: b} }

// ShareOf is Share for what a client sends. While others wait for memory a slow
// client has to give way: wake is then called, on any goroutine, and must not
// call the budget. Whoever uses the share looks at Pressed after that, and
// releases it.
func (b *Budget) ShareOf(client netip.Prefix, wake func()) *Share {
	return &Share{budget: b, client: client, wake: wake}
}

// Pressed reports whether the share has to be released for others.
func (s *Share) Pressed() bool { return s != nil && s.pressed.Load() }

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
	case n > s.held && kind == Reading && s.pressed.Load():
		b.mu.Unlock()
		return ErrSpent
	case n <= s.held, n <= small && b.fits(w), len(b.waiting) == 0 && b.fits(w):
		b.move(w)
		b.grant()
		b.mu.Unlock()
		return nil
	case ctx.Err() != nil:
		b.mu.Unlock()
		return ErrSpent
	}
	b.waiting = append(b.waiting, w)
	b.grant()
	b.press(time.Now())
	b.mu.Unlock()
	return b.wait(ctx, w)
}

// Release gives everything back. It may be called more than once.
func (s *Share) Release() { _ = s.Hold(context.Background(), Reading, 0) } // less always works

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
		return kin+w.n <= b.Most(Reading) || w.n <= small && b.little-w.share.little()+w.n <= b.size/16 && !b.beyond(w.share)
	case w.kind == Backlog:
		return kin == 0 || kin+w.n <= b.size/4
	}
	return true
}

func (b *Budget) move(w *waiter) {
	s := w.share
	b.count(s, -1)
	if s.held == 0 && w.n > 0 {
		b.begun++
		s.begun = b.begun
	}
	if w.n > s.held {
		s.grown = time.Now()
	}
	if w.n == 0 || w.kind != Reading { // it gave way, or came to its end in time
		s.pressed.Store(false)
		delete(b.coming, s)
	}
	s.kind, s.held = w.kind, w.n
	b.count(s, 1)
}

// count takes what a share holds into the sums, or out of them.
func (b *Budget) count(s *Share, sign int64) {
	b.used += sign * s.held
	b.of[s.kind] += sign * s.held
	b.little += sign * s.little()
	if s.kind != Reading || s.held == 0 {
		return
	}
	if b.from[s.client] += sign * s.held; b.from[s.client] == 0 {
		delete(b.from, s.client)
	}
	if sign > 0 {
		b.reading[s] = struct{}{}
	} else {
		delete(b.reading, s)
	}
}

// little is what a small share holds for Reading.
func (s *Share) little() int64 {
	if s.kind == Reading && s.held <= small {
		return s.held
	}
	return 0
}
