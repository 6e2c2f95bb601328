package auth

import (
	"cmp"
	"net/netip"
	"slices"
)

// maxKept bounds Logins: what is written to disk, and often.
const maxKept = 1000

// A Login is a user and the address, or IPv6 /64, from which the user has
// logged in. From is the zero Prefix for a unix socket.
type Login struct {
	User string
	From netip.Prefix
}

// Logins are those by which users are known, in one order: the last thousand
// at most. They are for Remember after a restart.
func (c *Checker) Logins() []Login {
	c.mu.Lock()
	names := make(map[uint64]string, len(c.users))
	for name := range c.users {
		names[c.guesses.id(name)] = name
	}
	c.mu.Unlock()
	var logins []Login
	for _, k := range c.guesses.logins() {
		if name, ok := names[k.user]; ok && len(logins) < maxKept {
			logins = append(logins, Login{name, k.from})
		}
	}
	slices.SortFunc(logins, func(a, b Login) int {
		return cmp.Or(cmp.Compare(a.User, b.User), a.From.Addr().Compare(b.From.Addr()), cmp.Compare(a.From.Bits(), b.From.Bits()))
	})
	return logins
}

// Remember makes users known as Logins said.
func (c *Checker) Remember(logins []Login) {
	for _, l := range logins {
		c.guesses.remember(l)
	}
}

// logins are who is known, last used first.
func (g *guesses) logins() []key {
	g.mu.Lock()
	defer g.mu.Unlock()
	keys := g.known.Keys()
	slices.Reverse(keys)
	return keys
}

func (g *guesses) remember(l Login) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.known.put(key{g.id(l.User), l.From})
}
