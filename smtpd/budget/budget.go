// Package budget bounds the memory of all mail in flight together: mail that is
// arriving, mail that is being dealt with, and mail that is delivered from the queue. It
// only counts; it allocates nothing. relay/app makes the one budget of the daemon.
package budget

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrSpent: there was not enough memory in time. Later there may be.
var ErrSpent = errors.New("the memory budget is spent")

// ErrTooLarge: there will never be so much; see Most.
var ErrTooLarge = errors.New("more than the memory budget")

// A Kind is a use of memory.
type Kind int

const (
	// Reading is for content that is still coming. It may take half of the budget, so
	// that what has come can always be dealt with.
	Reading Kind = iota
	// Dealing is for a mail that has come, and all that is made of it. It is served
	// before Reading, because it ends soon and then gives its memory back.
	Dealing
	// Backlog is for mail from the queue. It may take a quarter of the budget, or one
	// mail of any size: it can wait, and a client cannot.
	Backlog
)

// One mail at a time may be larger than its share, or mail that was announced as
// welcome would be refused for ever: for Dealing it takes more than there is, up to
// half as much again, and for Backlog, which was accepted once, as much as it
// needs. It counts as half of the budget, so that there is always room for it
// beside what is coming.

// small is the largest share that need not wait in line, up to a sixteenth of the budget
// for all of them: a password reset does not wait behind an attachment.
const small = 256 << 10

// A Budget is safe for concurrent use.
type Budget struct {
	size int64

	mu        sync.Mutex
	used      int64
	byKind    [Backlog + 1]int64     // of used
	byClient  map[netip.Prefix]int64 // of used for Reading; without zeros
	inSmall   int64                  // of used for Reading, in small shares
	begun     uint64                 // how many shares have ever held something
	reading   map[*Share]struct{}    // shares that hold something for Reading
	waiting   []*waiter              // in the order in which they were to be served the last time
	fairPart  int64                  // of one client, as of the last time
	expected  map[*Share]struct{}    // shares that have announced more than they hold
	announced []*waiter              // shares that wait to begin (Announce)
	large     *Share                 // the one that is larger than its share; nil: none
	rest      rest
	gaveWay   prometheus.Counter
}

// New returns a budget of so many bytes. Its metrics are registered at reg, which may be
// nil.
func New(size int64, reg prometheus.Registerer) *Budget {
	b := &Budget{size: size, fairPart: size, byClient: map[netip.Prefix]int64{}, reading: map[*Share]struct{}{}, expected: map[*Share]struct{}{}}
	b.register(reg)
	return b
}

// Most is the most that one mail may hold for a kind.
func (b *Budget) Most(k Kind) int64 {
	switch k {
	case Reading:
		return b.size / 2
	case Dealing:
		return b.size + b.size/2
	}
	return math.MaxInt64
}

// Overhead adds to what is used for other things than mail, such as connections. It is
// never refused; mail has what it leaves.
func (b *Budget) Overhead(change int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used += change
	b.grant()
}

// A Share is what one mail holds of a budget. One goroutine uses it. A nil Share may hold
// anything.
type Share struct {
	budget  *Budget
	client  netip.Prefix
	wake    func()
	pressed atomic.Bool // has to give way

	// The budget's lock guards the rest.
	kind  Kind
	held  int64
	asked int64     // what it holds this for: more than held, if it is the large one
	full  int64     // how much it will hold, if that was announced
	begun uint64    // orders shares by when they began to hold something
	grown time.Time // when it last got more
}

// Share returns a share that holds nothing and never has to give way.
func (b *Budget) Share() *Share { return &Share{budget: b} }

// ShareOf returns a share for what a client sends. While others wait for memory, a slow
// client has to give way: the budget calls wake, on any goroutine, and the user of the
// share finds Pressed true and has to release it. wake must not call the budget.
func (b *Budget) ShareOf(client netip.Prefix, wake func()) *Share {
	return &Share{budget: b, client: client, wake: wake}
}

// Most is the most that the share may hold for a kind.
func (s *Share) Most(k Kind) int64 {
	if s == nil {
		return math.MaxInt64
	}
	return s.budget.Most(k)
}

// Pressed reports whether the share has to give way to others.
func (s *Share) Pressed() bool { return s != nil && s.pressed.Load() }

// Hold makes the share hold n bytes in all, for a kind. Holding less, or as much, always
// succeeds. For more it waits until ctx ends, and then returns ErrSpent; it returns
// ErrTooLarge at once for what can never succeed. After an error the share holds what it
// held before.
func (s *Share) Hold(ctx context.Context, kind Kind, n int64) error {
	if s == nil {
		return nil
	}
	b := s.budget
	b.mu.Lock()
	now := b.waiter(s, kind, n)
	if b.atOnce(&now) {
		b.mu.Unlock()
		return nil
	}
	switch {
	case n > b.Most(kind):
		b.mu.Unlock()
		return ErrTooLarge
	case kind == Reading && s.pressed.Load(), ctx.Err() != nil:
		b.mu.Unlock()
		return ErrSpent
	}
	w := new(waiter) // now stays on the stack, because most shares need not wait
	*w = now
	w.granted = make(chan struct{})
	b.waiting = append(b.waiting, w)
	b.grant()
	b.press(time.Now())
	b.mu.Unlock()
	return b.wait(ctx, w)
}

// TryHold is Hold that does not wait. It reports whether the share holds n bytes now.
func (s *Share) TryHold(kind Kind, n int64) bool {
	if s == nil {
		return true
	}
	b := s.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.waiter(s, kind, n)
	return b.atOnce(&w)
}

// atOnce gives a share what it wants if it need not wait.
func (b *Budget) atOnce(w *waiter) bool {
	s := w.share
	if w.asked > s.asked {
		if w.asked > b.Most(w.kind) || w.kind == Reading && s.pressed.Load() || !b.fits(w) || w.asked > small && len(b.waiting) > 0 {
			return false
		}
	}
	b.move(w)
	b.grant()
	return true
}

// Release gives everything back. It may be called more than once.
func (s *Share) Release() { _ = s.Hold(context.Background(), Reading, 0) } // less always succeeds

// waiter returns a waiter for a share that is to hold n. What is larger than its share counts
// as half of all.
func (b *Budget) waiter(s *Share, kind Kind, n int64) waiter {
	w := waiter{share: s, kind: kind, n: n, asked: n}
	others := b.used - b.ofMail()
	switch {
	case n <= s.asked:
		w.n = min(n, s.held)
	case kind == Dealing && n > b.size-others, kind == Backlog && n > b.size/2:
		w.n = b.size / 2
	}
	return w
}

// ofMail returns what all mail holds.
func (b *Budget) ofMail() int64 { return b.byKind[Reading] + b.byKind[Dealing] + b.byKind[Backlog] }

// fits reports whether there is room for what a waiter wants.
func (b *Budget) fits(w *waiter) bool { return b.fitsAfter(w, 0) }

// fitsAfter is fits after so much memory for Reading has been given back.
func (b *Budget) fitsAfter(w *waiter, freed int64) bool {
	others := b.used - w.share.held - freed
	sameKind := b.byKind[w.kind]
	if w.share.kind == w.kind {
		sameKind -= w.share.held
	}
	if w.kind == Reading {
		sameKind -= freed
	}
	switch {
	case w.large() && (b.large != nil && b.large != w.share || b.ofMail()-w.share.held-freed+w.n > b.size):
		return false
	case !w.large() && others+w.n > b.size:
		return false
	case w.kind == Reading:
		return sameKind+w.n <= b.Most(Reading) || w.n <= small && b.inSmall-w.share.ifSmall()+w.n <= b.size/16 && !b.beyondPart(w.share)
	case w.kind == Backlog:
		return sameKind == 0 || sameKind+w.n <= b.size/4
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
	if w.n == 0 || w.kind != Reading { // it gave way, or its message has ended in time
		s.pressed.Store(false)
		delete(b.expected, s)
	}
	if b.large == s {
		b.large = nil
	}
	if w.large() {
		b.large = s
	}
	s.kind, s.held, s.asked = w.kind, w.n, w.asked
	b.count(s, 1)
	b.watch()
}

// count adds what a share holds to the sums, or subtracts it.
func (b *Budget) count(s *Share, sign int64) {
	b.used += sign * s.held
	b.byKind[s.kind] += sign * s.held
	b.inSmall += sign * s.ifSmall()
	if s.kind != Reading || s.held == 0 {
		return
	}
	if b.byClient[s.client] += sign * s.held; b.byClient[s.client] == 0 {
		delete(b.byClient, s.client)
	}
	if sign > 0 {
		b.reading[s] = struct{}{}
	} else {
		delete(b.reading, s)
	}
}

// ifSmall is what the share holds for Reading if it is small, else 0.
func (s *Share) ifSmall() int64 {
	if s.kind == Reading && s.held <= small {
		return s.held
	}
	return 0
}
