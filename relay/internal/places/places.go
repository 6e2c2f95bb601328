// Package places bounds how many of something are under way at once, by a
// number that can change while they are. relay/pace holds calls to it and
// relay/deliver attempts.
package places

import "sync"

// most is the largest number there can be. The places of a channel of empty
// structs take no memory.
const most = 1 << 16

// Places are a number of places, taken one by one.
type Places struct {
	free chan struct{}

	mu    sync.Mutex
	size  int
	owing int // places that are taken still and will not be there when they are returned
}

// New returns n free places; at least 1.
func New(n int) *Places {
	p := &Places{free: make(chan struct{}, most)}
	p.Resize(n)
	return p
}

// Free is received from to take a place.
func (p *Places) Free() <-chan struct{} { return p.free }

// Return gives a place back.
func (p *Places) Return() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.owing > 0 {
		p.owing--
		return
	}
	p.free <- struct{}{} // there is room: it was taken from there
}

// Resize changes how many there are. Whoever has one keeps it; of those that
// are too many none is given away again.
func (p *Places) Resize(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n = min(max(n, 1), most)
	for ; p.size < n; p.size++ {
		if p.owing > 0 {
			p.owing--
		} else {
			p.free <- struct{}{}
		}
	}
	for ; p.size > n; p.size-- {
		select {
		case <-p.free:
		default:
			p.owing++
		}
	}
}

// Size is how many there are.
func (p *Places) Size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size
}

// Taken is how many are taken. After a Resize it can be more than there are.
func (p *Places) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size + p.owing - len(p.free)
}
