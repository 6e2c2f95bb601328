// Package slots limits how many things are under way at the same time, by a number
// that can change meanwhile. relay/pace limits API calls with it, relay/deliver
// attempts.
package slots

import "sync"

// most is the largest possible size of a Pool. The channel holds empty structs, so
// its size costs no memory.
const most = 1 << 16

// Pool is a pool of slots. It is safe for concurrent use.
type Pool struct {
	free chan struct{}

	mu     sync.Mutex
	size   int
	excess int // slots that are taken and will not be free when they are returned
}

// New returns a pool of n free slots, at least 1.
func New(n int) *Pool {
	p := &Pool{free: make(chan struct{}, most)}
	p.Resize(n)
	return p
}

// Free returns a channel. To take a slot, receive from it.
func (p *Pool) Free() <-chan struct{} { return p.free }

// Return returns a slot that was taken.
func (p *Pool) Return() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.excess > 0 {
		p.excess--
		return
	}
	p.free <- struct{}{} // never blocks: the slot was taken from here
}

// Resize changes the number of slots. Slots that are taken stay taken. If there are
// now too many, those are not given out again.
func (p *Pool) Resize(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n = min(max(n, 1), most)
	for ; p.size < n; p.size++ {
		if p.excess > 0 {
			p.excess--
		} else {
			p.free <- struct{}{}
		}
	}
	for ; p.size > n; p.size-- {
		select {
		case <-p.free:
		default:
			p.excess++
		}
	}
}

// Size returns the number of slots.
func (p *Pool) Size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size
}

// Taken returns how many slots are taken. After a Resize it can exceed Size.
func (p *Pool) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size + p.excess - len(p.free)
}
