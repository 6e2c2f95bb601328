package suppress

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

// Split makes of one Store a Store for each account, so that what one account learns
// says nothing about another. In the Store below, an address of an account is behind
// '@', the account's name and '/'; those of the default account are as they were before
// there were others. No normalised address begins with '@'.
type Split struct {
	store Store

	mu       sync.Mutex
	watchers map[string]Watcher // by what is before the addresses
}

// NewSplit returns a Split. Nobody else may Attach to the store.
func NewSplit(s Store) *Split { return &Split{store: s, watchers: map[string]Watcher{}} }

// Of returns the Store of an account; "" is the default one.
func (s *Split) Of(account string) Store {
	if account == "" {
		return part{s, ""}
	}
	return part{s, "@" + account + "/"}
}

// Set implements Watcher.
func (s *Split) Set(e Entry) {
	if w, prefix := s.watcher(e.Address); w != nil {
		e.Address = e.Address[len(prefix):]
		w.Set(e)
	}
}

// Unset implements Watcher.
func (s *Split) Unset(address string) {
	if w, prefix := s.watcher(address); w != nil {
		w.Unset(address[len(prefix):])
	}
}

func (s *Split) watcher(address string) (Watcher, string) {
	prefix := prefixOf(address)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watchers[prefix], prefix
}

// prefixOf returns what is before an address.
func prefixOf(address string) string {
	if !strings.HasPrefix(address, "@") {
		return ""
	}
	return address[:strings.IndexByte(address, '/')+1]
}

// part is the Store of one account.
type part struct {
	*Split
	prefix string
}

var _ Store = part{}

// inside returns an entry as the Store below has it.
func (p part) inside(e Entry) Entry {
	e.Address = p.prefix + e.Address
	return e
}

// Attach implements Store. The Store below tells of all entries each time, which is
// no news to those that were attached before.
func (p part) Attach(ctx context.Context, w Watcher) error {
	p.mu.Lock()
	p.watchers[p.prefix] = w
	p.mu.Unlock()
	return p.store.Attach(ctx, p.Split)
}

// Entry implements Store.
func (p part) Entry(ctx context.Context, address string) (Entry, bool, error) {
	e, ok, err := p.store.Entry(ctx, p.prefix+address)
	e.Address = strings.TrimPrefix(e.Address, p.prefix)
	return e, ok, err
}

// Entries implements Store. Those of one account lie together in the Store below; the
// default account's are before and after all others.
func (p part) Entries(ctx context.Context, f Filter) ([]Entry, error) {
	limit := f.Limit
	if p.prefix != "" {
		f.After = p.prefix + f.After
	}
	var own []Entry
	for {
		all, err := p.store.Entries(ctx, f)
		if err != nil {
			return nil, err
		}
		skip, left := "", false
		for _, e := range all {
			f.After = e.Address
			if prefix := prefixOf(e.Address); prefix != p.prefix {
				skip, left = prefix, true
				break
			}
			e.Address = e.Address[len(p.prefix):]
			own = append(own, e)
		}
		switch {
		case limit > 0 && len(own) >= limit:
			return own[:limit], nil
		case left && p.prefix == "" && skip != "":
			f.After = "@\U0010FFFF" // behind all other accounts
		case left, limit == 0, len(all) < limit:
			return own, nil
		}
	}
}

// Put implements Store.
func (p part) Put(ctx context.Context, entries []Entry) error {
	inside := make([]Entry, len(entries))
	for i, e := range entries {
		inside[i] = p.inside(e)
	}
	return p.store.Put(ctx, inside)
}

// Remove implements Store.
func (p part) Remove(ctx context.Context, addresses []string, at time.Time) (int, error) {
	inside := make([]string, len(addresses))
	for i, a := range addresses {
		inside[i] = p.prefix + a
	}
	return p.store.Remove(ctx, inside, at)
}

// LearnSoon implements Store.
func (p part) LearnSoon(e Entry) { p.store.LearnSoon(p.inside(e)) }

// TakeEvent implements Store. The event's own address stays as it is: the history looks
// for it.
func (p part) TakeEvent(ctx context.Context, e relay.Event, address string, learnt *Entry) (bool, error) {
	if learnt != nil {
		inside := p.inside(*learnt)
		learnt = &inside
	}
	return p.store.TakeEvent(ctx, e, address, learnt)
}

// Tend implements Store.
func (p part) Tend(ctx context.Context, now, forget time.Time) (bool, error) {
	return p.store.Tend(ctx, now, forget)
}
