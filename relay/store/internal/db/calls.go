package db

import "sync"

// Calls counts a store's calls that are under way, so that its end can wait for
// them. The zero value is a store that is open.
type Calls struct {
	mu     sync.RWMutex
	closed bool
	under  sync.WaitGroup
}

// Enter begins a call, which Leave ends. It is false once the store was closed.
func (c *Calls) Enter() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return false
	}
	c.under.Add(1)
	return true
}

// Leave ends a call.
func (c *Calls) Leave() { c.under.Done() }

// Close lets no more calls begin and waits for those under way. It says whether
// it is the first to do so.
func (c *Calls) Close() (first bool) {
	c.mu.Lock()
	first = !c.closed
	c.closed = true
	c.mu.Unlock()
	c.under.Wait()
	return first
}
