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

// Rate is a number in a time: after a rest all at once, then evenly. The zero
// Rate is no bound.
type Rate struct {
	Number int
	Per    time.Duration
}

// Bounds reports whether there is a bound.
func (r Rate) Bounds() bool { return r.Number > 0 && r.Per > 0 }

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

	compare func(hash, password string) bool // bcrypt's

	mu        sync.Mutex
	users     map[string]*User
	costliest string                       // of the users' hashes
	most      int                          // its cost
	right     map[string][sha256.Size]byte // by user
}

// New checks the users as Replace does.
func New(o Options) (*Checker, error) {
	c := &Checker{
		right:   map[string][sha256.Size]byte{},
		compare: matches,
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
	most, costliest := 0, nobodysHash(cost)
	for _, u := range users {
		its, err := CheckHash(u.Hash)
		switch {
		case u.Name == "":
			return errors.New("auth: a user without a name")
		case err != nil:
			return fmt.Errorf("auth: user %q: %w", u.Name, err)
		case table[u.Name] != nil:
			return fmt.Errorf("auth: user %q is there twice", u.Name)
		}
		table[u.Name] = &u
		if its > most {
			most, costliest = its, u.Hash
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, before := range c.users {
		if now := table[name]; now == nil || now.Hash != before.Hash {
			delete(c.right, name)
		}
	}
	c.users, c.costliest, c.most = table, costliest, most
	return nil
}

// nobodysHash is a hash of a cost that no password is known to have.
func nobodysHash(cost int) string {
	return fmt.Sprintf("$2a$%02d$......................0123456789012345678901234567890", cost)
}

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

// Result is what came of one attempt.
type Result struct {
	User    *User         // nil when the attempt failed
	ShutOut bool          // too many have failed: this one may not have been looked at
	Delay   time.Duration // how long the client is to wait for the reply
	Known   bool          // there is such a user: the name is fit for a log, and no password in the wrong place
}

// Check looks at one attempt of a client at an address, which is the zero Addr
// for a unix socket. Neither the result nor the time it takes, with its delay,
// tells a user who does not exist from a wrong password. The error is the
// context's.
func (c *Checker) Check(ctx context.Context, addr netip.Addr, said Credentials) (Result, error) {
	began := time.Now()
	user, hash := c.look(said.User)
	v := Result{Known: user != nil}
	a, shutOut, err := c.begin(ctx, addr, said.User)
	switch {
	case err != nil:
		return v, err
	case shutOut:
		v.ShutOut, v.Delay = true, c.guesses.longest()
		return v, nil
	}
	right, err := c.matches(ctx, user, hash, said.Password)
	switch {
	case err != nil:
		c.guesses.end(a)
		return v, err
	case right:
		c.guesses.right(a)
		v.User = user
		return v, nil
	}
	v.Delay, v.ShutOut = c.guesses.wrong(a, time.Now())
	if v.ShutOut { // as those who were not looked at
		v.Delay = max(0, v.Delay-time.Since(began))
	}
	return v, nil
}

// begin waits until it is clear whether an attempt may be looked at.
func (c *Checker) begin(ctx context.Context, addr netip.Addr, user string) (a attempt, out bool, err error) {
	for {
		a, s, landed := c.guesses.begin(addr, user, time.Now())
		if s != mustWait {
			return a, s == shutOut, nil
		}
		select {
		case <-landed:
		case <-ctx.Done():
			return a, false, ctx.Err()
		}
	}
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
	right := c.compare(hash, password)
	if !right {
		c.makeUp(hash, password)
	}
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

// makeUp does the work by which a hash is cheaper than the costliest. As each
// step of cost doubles the work, those from the hash's cost up to the one below
// the costliest are what is missing.
func (c *Checker) makeUp(hash, password string) {
	its, err := CheckHash(hash)
	if err != nil {
		return // it was checked when it came
	}
	c.mu.Lock()
	most := c.most
	c.mu.Unlock()
	for ; its < most; its++ {
		c.compare(nobodysHash(its), password)
	}
}
