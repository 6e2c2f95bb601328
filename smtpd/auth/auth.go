// Package auth decides who a client is: users with bcrypt hashes, the
// exchanges of AUTH PLAIN and LOGIN, and the slowing of those who guess. It
// knows no connection: smtpd carries the lines and keeps the clients waiting.
package auth

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"time"
)

// User is someone who may log in.
type User struct {
	Name    string
	Hash    string   // bcrypt's
	Senders []string // envelope senders, or "@domain"; none is any
}

// MaySend reports whether the user may use an envelope sender. One who is held
// to some addresses may not use the null sender either.
func (u *User) MaySend(from string) bool {
	if len(u.Senders) == 0 {
		return true
	}
	atDomain := from[max(0, strings.LastIndexByte(from, '@')):]
	for _, s := range u.Senders {
		if strings.EqualFold(s, from) || strings.HasPrefix(s, "@") && strings.EqualFold(s, atDomain) {
			return true
		}
	}
	return false
}

// Credentials are what a client said. No verb of fmt, and no log, shows them.
type Credentials struct{ User, Password string }

// Format shows nothing.
func (Credentials) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("(credentials)")) }

// LogValue shows nothing.
func (Credentials) LogValue() slog.Value { return slog.StringValue("(credentials)") }

// Options are what a Checker is made from. Zero fields take the default.
type Options struct {
	Users    []User        // at least one
	Delay    time.Duration // after a first wrong password, doubled by each further one up to 16 times; 500 ms
	Failures int           // wrong passwords after which one is shut out; 10
	ShutOut  time.Duration // how long after the last of them; 15 min
}

// A Checker knows the users, and who was wrong lately. It is safe for
// concurrent use.
type Checker struct {
	users     map[string]*User
	costliest string        // of the users' hashes
	slots     chan struct{} // for checks at once: bcrypt is slow by design, and must not take every processor
	guesses   *guesses

	// What was right is remembered under a key of this process: a program that
	// logs in for each of its mails must not cost a bcrypt each time.
	secret [32]byte
	mu     sync.Mutex
	right  map[string][sha256.Size]byte // by user
}

// New checks the users: an error names the one who is wrong, and never shows a
// hash.
func New(o Options) (*Checker, error) {
	if len(o.Users) == 0 {
		return nil, errors.New("auth: no users")
	}
	c := &Checker{
		users:   map[string]*User{},
		right:   map[string][sha256.Size]byte{},
		slots:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		guesses: newGuesses(cmp.Or(o.Delay, 500*time.Millisecond), cmp.Or(o.Failures, 10), cmp.Or(o.ShutOut, 15*time.Minute)),
	}
	_, _ = rand.Read(c.secret[:]) // it does not fail
	most := 0
	for _, u := range o.Users {
		cost, err := CheckHash(u.Hash)
		switch {
		case u.Name == "":
			return nil, errors.New("auth: a user without a name")
		case err != nil:
			return nil, fmt.Errorf("auth: user %q: %w", u.Name, err)
		case c.users[u.Name] != nil:
			return nil, fmt.Errorf("auth: user %q is there twice", u.Name)
		}
		c.users[u.Name] = &u
		if cost > most {
			most, c.costliest = cost, u.Hash
		}
	}
	return c, nil
}

// Verdict is what came of one attempt.
type Verdict struct {
	User    *User         // nil when the attempt failed
	ShutOut bool          // too many have failed: this one may not have been looked at
	Delay   time.Duration // how long the client is to wait for the reply
	Known   bool          // there is such a user: the name is fit for a log, and no password in the wrong place
}

// Check looks at one attempt of a client at an address, which is the zero Addr
// for a unix socket. It takes as long for a user who does not exist as for a
// wrong password. The error is the context's.
func (c *Checker) Check(ctx context.Context, addr netip.Addr, said Credentials) (Verdict, error) {
	user := c.users[said.User]
	v := Verdict{Known: user != nil}
	if c.guesses.shutOut(addr, said.User, time.Now()) {
		v.ShutOut = true
		return v, nil
	}
	right, err := c.matches(ctx, user, said.Password)
	if err != nil {
		return v, err
	}
	if right {
		c.guesses.right(addr, said.User)
		v.User = user
		return v, nil
	}
	v.Delay, v.ShutOut = c.guesses.wrong(addr, said.User, time.Now())
	return v, nil
}

// matches is false for no user, after the time it takes for one.
func (c *Checker) matches(ctx context.Context, user *User, password string) (bool, error) {
	mac := hmac.New(sha256.New, c.secret[:])
	_, _ = mac.Write([]byte(password)) // it does not fail
	digest := [sha256.Size]byte(mac.Sum(nil))
	hash := c.costliest
	if user != nil {
		hash = user.Hash
		c.mu.Lock()
		before, ok := c.right[user.Name]
		c.mu.Unlock()
		if ok && hmac.Equal(before[:], digest[:]) {
			return true, nil
		}
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	right := matches(hash, password)
	<-c.slots
	if !right || user == nil || password == "" {
		return false, nil
	}
	c.mu.Lock()
	c.right[user.Name] = digest
	c.mu.Unlock()
	return true, nil
}
