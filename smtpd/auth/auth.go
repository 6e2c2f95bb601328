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
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd/policy"
)

// User is someone who may log in.
type User struct {
	Name  string
	Hash  string       // bcrypt's
	Rules policy.Rules // that bind the user besides the listener's
	Rate  Rate         // of recipients; zero is that of all users
}

// Rate is a number in a time.
type Rate struct {
	Number int
	Per    time.Duration
}

// Credentials are what a client said. No verb of fmt, and no log, shows them.
type Credentials struct{ User, Password string }

// Format shows nothing.
func (Credentials) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("(credentials)")) }

// LogValue shows nothing.
func (Credentials) LogValue() slog.Value { return slog.StringValue("(credentials)") }

// Options are what a Checker is made from. Zero fields take the default.
type Options struct {
	Users    []User
	Delay    time.Duration // after a first wrong password, doubled by each further one up to 16 times; 500 ms
	Failures int           // wrong passwords after which one is shut out; 10
	ShutOut  time.Duration // how long after the last of them; 15 min
}

// A Checker knows the users, and who was wrong lately. It is safe for
// concurrent use.
type Checker struct {
	slots   chan struct{} // for checks at once: bcrypt is slow by design, and must not take every processor
	guesses *guesses

	// What was right is remembered under a key of this process: a program that
	// logs in for each of its mails must not cost a bcrypt each time.
	secret [32]byte

	mu        sync.Mutex
	users     map[string]*User
	costliest string                       // of the users' hashes
	right     map[string][sha256.Size]byte // by user
}

// New checks the users as Replace does.
func New(o Options) (*Checker, error) {
	c := &Checker{
		right:   map[string][sha256.Size]byte{},
		slots:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		guesses: newGuesses(cmp.Or(o.Delay, 500*time.Millisecond), cmp.Or(o.Failures, 10), cmp.Or(o.ShutOut, 15*time.Minute)),
	}
	_, _ = rand.Read(c.secret[:]) // it does not fail
	if err := c.Replace(o.Users); err != nil {
		return nil, err
	}
	return c, nil
}

// Replace puts these users in the place of those before. Who has guessed, and
// who has logged in from where, stays known. An error changes nothing; it names
// the user who is wrong, and never shows a hash.
func (c *Checker) Replace(users []User) error {
	table := map[string]*User{}
	most, costliest := 0, nobodysHash
	for _, u := range users {
		cost, err := CheckHash(u.Hash)
		switch {
		case u.Name == "":
			return errors.New("auth: a user without a name")
		case err != nil:
			return fmt.Errorf("auth: user %q: %w", u.Name, err)
		case table[u.Name] != nil:
			return fmt.Errorf("auth: user %q is there twice", u.Name)
		}
		table[u.Name] = &u
		if cost > most {
			most, costliest = cost, u.Hash
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, before := range c.users {
		if now := table[name]; now == nil || now.Hash != before.Hash {
			delete(c.right, name)
		}
	}
	c.users, c.costliest = table, costliest
	return nil
}

// nobodysHash is what a password is compared with where there are no users. No
// password is known to have it.
const nobodysHash = "$2a$10$......................0123456789012345678901234567890"

// Current is the user as the table has them now, for one who logged in before;
// nil when they are not there any more, or have another password.
func (c *Checker) Current(u *User) *User {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.users[u.Name]
	if now == nil || now.Hash != u.Hash {
		return nil
	}
	return now
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
	user, hash := c.look(said.User)
	v := Verdict{Known: user != nil}
	if c.guesses.shutOut(addr, said.User, time.Now()) {
		v.ShutOut = true
		return v, nil
	}
	right, err := c.matches(ctx, user, hash, said.Password)
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

// look finds a user, nil for nobody, and the hash to compare with.
func (c *Checker) look(name string) (user *User, hash string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if user = c.users[name]; user != nil {
		return user, user.Hash
	}
	return nil, c.costliest
}

// matches is false for no user, after the time it takes for one.
func (c *Checker) matches(ctx context.Context, user *User, hash, password string) (bool, error) {
	mac := hmac.New(sha256.New, c.secret[:])
	_, _ = mac.Write([]byte(password)) // it does not fail
	digest := [sha256.Size]byte(mac.Sum(nil))
	if user != nil {
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
	defer c.mu.Unlock()
	if c.users[user.Name] == user { // else it was replaced meanwhile
		c.right[user.Name] = digest
	}
	return true, nil
}
