package suppress

import (
	"cmp"
	"container/list"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

// memoryMax is how many entries, and how many ids of events, a Memory keeps.
const memoryMax = 100_000

// Memory is a Store that forgets with the process: for a relay without a data
// directory. An address that is forgotten costs one call more, which teaches
// it again. When it is full the oldest makes room.
type Memory struct {
	mu      sync.Mutex
	watcher Watcher
	entries *bounded[Entry]
	removed *bounded[time.Time]
	events  *bounded[time.Time] // when they came
}

var _ Store = (*Memory)(nil)

// NewMemory returns an empty Memory of at most limit entries; 0 is 100,000.
func NewMemory(limit int) *Memory {
	limit = cmp.Or(limit, memoryMax)
	return &Memory{entries: newBounded[Entry](limit), removed: newBounded[time.Time](limit), events: newBounded[time.Time](limit)}
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
	for _, e := range m.entries.values() {
		w.Set(e)
	}
}

// set, and unset, keep the watcher right. They are called with the lock held.
func (m *Memory) set(e Entry) {
	if out, full := m.entries.put(e.Address, e); full && m.watcher != nil {
		m.watcher.Unset(out)
	}
	if m.watcher != nil {
		m.watcher.Set(e)
	}
}

func (m *Memory) unset(address string) {
	m.entries.drop(address)
	if m.watcher != nil {
		m.watcher.Unset(address)
	}
}

// Entry implements Store.
func (m *Memory) Entry(_ context.Context, address string) (Entry, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries.get(address)
	return e, ok, nil
}

// Entries implements Store.
func (m *Memory) Entries(_ context.Context, f Filter) ([]Entry, error) {
	m.mu.Lock()
	all := m.entries.values()
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
		m.removed.drop(e.Address)
		m.set(e)
	}
	return nil
}

// Remove implements Store.
func (m *Memory) Remove(_ context.Context, addresses []string, at time.Time) (n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range addresses {
		if _, ok := m.entries.get(a); ok {
			n++
		}
		m.unset(a)
		m.removed.put(a, at)
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
	old, known := m.entries.get(e.Address)
	removed, _ := m.removed.get(e.Address)
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
	if _, known := m.events.get(e.ID); known {
		return false, nil
	}
	m.events.put(e.ID, e.Received)
	if learnt != nil {
		m.learn(*learnt, e.Received)
	}
	return true, nil
}

// Tend implements Store.
func (m *Memory) Tend(_ context.Context, now, forget time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries.values() {
		if e.Expired(now) {
			m.unset(e.Address)
		}
	}
	old := func(at time.Time) bool { return at.Before(forget) }
	m.events.dropIf(old)
	m.removed.dropIf(old)
	return false, nil
}

// bounded is a map that makes room by dropping what was put first.
type bounded[V any] struct {
	limit int
	byKey map[string]*list.Element
	order *list.List // of pair[V], oldest first
}

type pair[V any] struct {
	key   string
	value V
}

func newBounded[V any](limit int) *bounded[V] {
	return &bounded[V]{limit: limit, byKey: map[string]*list.Element{}, order: list.New()}
}

func (b *bounded[V]) get(key string) (v V, ok bool) {
	e, ok := b.byKey[key]
	if ok {
		v = e.Value.(pair[V]).value
	}
	return v, ok
}

// put returns the key that had to make room, if one had to.
func (b *bounded[V]) put(key string, v V) (out string, full bool) {
	b.drop(key)
	if full = len(b.byKey) >= b.limit; full {
		out = b.order.Front().Value.(pair[V]).key
		b.drop(out)
	}
	b.byKey[key] = b.order.PushBack(pair[V]{key, v})
	return out, full
}

func (b *bounded[V]) drop(key string) {
	if e, ok := b.byKey[key]; ok {
		b.order.Remove(e)
		delete(b.byKey, key)
	}
}

func (b *bounded[V]) dropIf(f func(V) bool) {
	for _, key := range slices.Collect(maps.Keys(b.byKey)) {
		if v, _ := b.get(key); f(v) {
			b.drop(key)
		}
	}
}

func (b *bounded[V]) values() []V {
	all := make([]V, 0, len(b.byKey))
	for e := b.order.Front(); e != nil; e = e.Next() {
		all = append(all, e.Value.(pair[V]).value)
	}
	return all
}
