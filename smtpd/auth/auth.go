// Package auth checks logins: users with bcrypt hashes, the exchanges of AUTH PLAIN and
// LOGIN, and the delays and bans for clients that guess passwords. smtpd sends and
// reads the lines, and keeps the clients waiting.
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

	"golang.org/x/crypto/bcrypt"

	"github.com/smtp2rest/smtp2rest/smtpd/policy"
)

// A User may log in.
type User struct {
	Name  string
	Hash  string       // bcrypt's
	Rules policy.Rules // that bind the user, besides the listener's
	Rate  Rate         // of recipients; the zero Rate is that of all users
}

// A Rate is a number in a time, such as 600 in an hour. After a rest the whole number
// may come at once, then one by one, evenly. The zero Rate is no bound.
type Rate struct {
	Number int
	Per    time.Duration
}

// Bounds reports whether there is a bound.
func (r Rate) Bounds() bool { return r.Number > 0 && r.Per > 0 }

// Credentials are what a client logs in with. No verb of fmt, and no log, shows them.
type Credentials struct{ User, Password string }

// Format shows nothing.
func (Credentials) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("(credentials)")) }

// LogValue shows nothing.
func (Credentials) LogValue() slog.Value { return slog.StringValue("(credentials)") }

// Options are what New makes a Checker from. Zero fields take the default.
type Options struct {
	Users    []User
	Delay    time.Duration // after the first wrong password, doubled by each further one up to 16 times; 500 ms
	Failures int           // the number of wrong passwords after which a client is shut out; 10
	ShutOut  time.Duration // for how long after the last of them; 15 min
}

// A Checker knows the users, and the wrong passwords of late. It is safe for
// concurrent use.
type Checker struct {
	slots   chan struct{} // for checks at once: bcrypt is slow by design, and must not take every processor
	guesses *guesses

	compare func(hash, password string) bool // bcrypt's; tests count its calls

	// A password that was right is kept as a digest under secret, which only this
	// process knows: a program that logs in for each mail must not cost a bcrypt
	// each time.
	secret [32]byte

	mu          sync.Mutex
	right       map[string][sha256.Size]byte // by user
	users       map[string]*User
	costliest   string // of the users' hashes
	highestCost int    // the cost of costliest
}

// New makes a Checker. It checks the users as Replace does.
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

// Replace replaces the users. What is known of guesses and of logins stays. An error
// changes nothing; it names the user that is wrong, and never shows a hash.
func (c *Checker) Replace(users []User) error {
	table := map[string]*User{}
	highest, costliest := 0, dummyHash(cost)
	for _, u := range users {
		c, err := CheckHash(u.Hash)
		switch {
		case u.Name == "":
			return errors.New("auth: a user without a name")
		case err != nil:
			return fmt.Errorf("auth: user %q: %w", u.Name, err)
		case table[u.Name] != nil:
			return fmt.Errorf("auth: there are two users %q", u.Name)
		}
		table[u.Name] = &u
		if c > highest {
			highest, costliest = c, u.Hash
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, before := range c.users {
		if now := table[name]; now == nil || now.Hash != before.Hash {
			delete(c.right, name)
		}
	}
	c.users, c.costliest, c.highestCost = table, costliest, highest
	return nil
}

// dummyHash returns a hash of a cost that no known password has.
func dummyHash(cost int) string {
	return fmt.Sprintf("$2a$%02d$......................0123456789012345678901234567890", cost)
}

// Current returns the present settings of a user who has logged in before. It is nil if
// the user is gone or has another password.
func (c *Checker) Current(u *User) *User {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.users[u.Name]
	if now == nil || now.Hash != u.Hash {
		return nil
	}
	return now
}

// A Result is the result of one login.
type Result struct {
	User    *User         // nil if the login failed
	ShutOut bool          // there were too many failures; this password may not have been checked
	Delay   time.Duration // how long the client has to wait for the reply
	Known   bool          // the user exists, so the name may be logged: it is no password in the wrong place
}

// Check checks one login of a client at an address, which is the zero Addr for a unix
// socket. Neither the result nor the time it takes, with its delay, tells whether a
// user exists. The error is the context's.
func (c *Checker) Check(ctx context.Context, addr netip.Addr, said Credentials) (Result, error) {
	began := time.Now()
	user, hash := c.look(said.User)
	result := Result{Known: user != nil}
	a, shutOut, err := c.begin(ctx, addr, said.User)
	switch {
	case err != nil:
		return result, err
	case shutOut:
		result.ShutOut, result.Delay = true, c.guesses.longest()
		return result, nil
	}
	right, err := c.matches(ctx, user, hash, said.Password)
	switch {
	case err != nil:
		c.guesses.end(a)
		return result, err
	case right:
		c.guesses.right(a)
		result.User = user
		return result, nil
	}
	result.Delay, result.ShutOut = c.guesses.wrong(a, time.Now())
	if result.ShutOut { // the reply takes as long as without a check
		result.Delay = max(0, result.Delay-time.Since(began))
	}
	return result, nil
}

// begin waits until it is clear whether a password may be checked.
func (c *Checker) begin(ctx context.Context, addr netip.Addr, user string) (a attempt, out bool, err error) {
	for {
		a, d, ended := c.guesses.begin(addr, user, time.Now())
		if d != mustWait {
			return a, d == shutOut, nil
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return a, false, ctx.Err()
		}
	}
}

// look finds a user, nil if there is none, and the hash to compare with.
func (c *Checker) look(name string) (user *User, hash string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if user = c.users[name]; user != nil {
		return user, user.Hash
	}
	return nil, c.costliest
}

// matches is false for a user who does not exist, after as much time as for one who does.
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

// makeUp does the work that a hash takes less than the costliest, so that all checks
// take as long. Each step of cost doubles the work: one check of each cost from the
// hash's up to the one below the costliest is what is missing.
func (c *Checker) makeUp(hash, password string) {
	cost, _ := CheckHash(hash) // Replace has checked it
	c.mu.Lock()
	highest := c.highestCost
	c.mu.Unlock()
	for ; cost < highest; cost++ {
		c.compare(dummyHash(cost), password)
	}
}

const (
	cost    = bcrypt.DefaultCost // about a twentieth of a second; each step doubles it
	maxCost = 14                 // about a second: above it one login could hold up all others
)

// Hash makes the hash of a password, which has at most 72 octets, for a User.
func Hash(password string) (string, error) {
	switch {
	case password == "":
		return "", errors.New("the password is empty")
	case len(password) > 72: // bcrypt looks at no more
		return "", errors.New("the password is longer than 72 octets")
	case strings.ContainsAny(password, "\x00\r\n"): // AUTH PLAIN cannot carry NUL
		return "", errors.New("the password has a control character in it")
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	return string(hash), err
}

// CheckHash returns the cost of a hash, or an error that says what is wrong with it. The
// error does not show the hash: it may be a password.
func CheckHash(hash string) (int, error) {
	c, err := bcrypt.Cost([]byte(hash))
	switch {
	case err != nil || len(hash) != 60 || !strings.HasPrefix(hash, "$2"):
		return 0, errors.New("this is not a bcrypt hash, which begins with $2; 'smtp2rest hash-password' makes one")
	case c > maxCost:
		return 0, fmt.Errorf("the hash has a cost of %d; at most %d can be checked in time", c, maxCost)
	}
	return c, nil
}

func matches(hash, password string) bool {
	return bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil
}
