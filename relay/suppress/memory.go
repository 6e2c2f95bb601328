package suppress

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/smtp2rest/smtp2rest/relay"
)

// memoryMax bounds the entries, and the ids of events, of a Memory.
const memoryMax = 100_000

// Memory is a Store in memory, for a relay without a data directory. When it is full,
// the oldest entry is dropped. The next call for that address teaches it again.
type Memory struct {
	mu      sync.Mutex
	watcher Watcher
	entries *simplelru.LRU[string, Entry] // the oldest is the one that was put first: nothing is looked up but by Peek
	removed *simplelru.LRU[string, time.Time]
	events  *simplelru.LRU[string, time.Time] // when they came
}

var _ Store = (*Memory)(nil)

// NewMemory returns an empty Memory of at most limit entries; 0 is 100,000.
func NewMemory(limit int) *Memory {
	limit = cmp.Or(limit, memoryMax)
	return &Memory{entries: newBounded[Entry](limit), removed: newBounded[time.Time](limit), events: newBounded[time.Time](limit)}
}

func newBounded[V any](limit int) *simplelru.LRU[string, V] {
	l, _ := simplelru.NewLRU[string, V](max(limit, 1), nil) // fails only for a size that is not positive
	return l
}

// Attach implements Store.
func (m *Memory) Attach(_ context.Context, w Watcher) error {
	m.watch(w)
	return nil
}

func (m *Memory) watch(w Watcher) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watcher = w
	for _, e := range m.entries.Values() {
		w.Set(e)
	}
}

// set changes an entry and tells the watcher. The lock must be held, as for unset.
func (m *Memory) set(e Entry) {
	oldest, _, _ := m.entries.GetOldest()
	if dropped := m.entries.Add(e.Address, e); dropped && m.watcher != nil {
		m.watcher.Unset(oldest)
	}
	if m.watcher != nil {
		m.watcher.Set(e)
	}
}

func (m *Memory) unset(address string) {
	m.entries.Remove(address)
	if m.watcher != nil {
		m.watcher.Unset(address)
	}
}

// Entry implements Store.
func (m *Memory) Entry(_ context.Context, address string) (Entry, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries.Peek(address)
	return e, ok, nil
}

// Entries implements Store.
func (m *Memory) Entries(_ context.Context, f Filter) ([]Entry, error) {
	m.mu.Lock()
	all := m.entries.Values()
	m.mu.Unlock()
	all = slices.DeleteFunc(all, func(e Entry) bool { return !f.Matches(e) })
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(a.Address, b.Address) })
	if f.Limit > 0 && len(all) > f.Limit {
		all = all[:f.Limit]
	}
	return all, nil
}

// Put implements Store.
func (m *Memory) Put(_ context.Context, entries []Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range entries {
		m.removed.Remove(e.Address)
		m.set(e)
	}
	return nil
}

// Remove implements Store.
func (m *Memory) Remove(_ context.Context, addresses []string, at time.Time) (n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range addresses {
		if _, ok := m.entries.Peek(a); ok {
			n++
		}
		m.unset(a)
		m.removed.Add(a, at)
	}
	return n, nil
}

// LearnSoon implements Store.
func (m *Memory) LearnSoon(e Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.learn(e, e.Since)
}

func (m *Memory) learn(e Entry, now time.Time) {
	old, known := m.entries.Peek(e.Address)
	removed, _ := m.removed.Peek(e.Address)
	switch merged, changed := Learn(old, e, removed, now); {
	case changed:
		m.set(merged)
	case m.watcher == nil:
	case known:
		m.watcher.Set(old)
	default:
		m.watcher.Unset(e.Address)
	}
}

// TakeEvent implements Store.
func (m *Memory) TakeEvent(_ context.Context, e relay.Event, _ string, learnt *Entry) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.events.Peek(e.ID); known {
		return false, nil
	}
	m.events.Add(e.ID, e.Received)
	if learnt != nil {
		m.learn(*learnt, e.Received)
	}
	return true, nil
}

// Tend implements Store.
func (m *Memory) Tend(_ context.Context, now, forget time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries.Values() {
		if e.Expired(now) {
			m.unset(e.Address)
		}
	}
	for _, times := range []*simplelru.LRU[string, time.Time]{m.events, m.removed} {
		for _, key := range times.Keys() {
			if at, _ := times.Peek(key); at.Before(forget) {
				times.Remove(key)
			}
		}
	}
	return false, nil
}
