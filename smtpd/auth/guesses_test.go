package auth

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// busy takes every place for a check, until it is told to give them back.
func busy(c *Checker) (giveBack func()) {
	for range cap(c.slots) {
		c.slots <- struct{}{}
	}
	return func() {
		for range cap(c.slots) {
			<-c.slots
		}
	}
}

// Guesses on many connections at once are no more guesses than one after the
// other: the eleventh is not looked at, though ten were not answered when it
// came.
func TestGuessesAtOnce(t *testing.T) {
	for name, from := range map[string]func(i int) netip.Addr{
		"from an address": func(int) netip.Addr { return here },
		"from a network":  func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) },
		"from a user's own": func(i int) netip.Addr {
			return far
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newChecker(t)
				allowed := 10
				switch name {
				case "from a network":
					allowed = 20
				case "from a user's own":
					if got := try(t, c, far, "bob", "bob's"); got != "in" {
						t.Fatal(got)
					}
				}
				giveBack := busy(c)
				var all sync.WaitGroup
				var mu sync.Mutex
				got := map[string]int{}
				guess := func(i int, password string) {
					all.Go(func() {
						how := try(t, c, from(i), "bob", password)
						mu.Lock()
						defer mu.Unlock()
						got[how]++
					})
					synctest.Wait() // it has its place in the line
				}
				for i := range allowed {
					guess(i, "wrong")
				}
				guess(allowed, "bob's")
				giveBack()
				all.Wait()
				if got["in"] > 0 {
					t.Errorf("the guess after %d was looked at: %v", allowed, got)
				}
			})
		})
	}
}

// A program that opens many connections at once, each with the right password,
// is let in on every one.
func TestRightAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChecker(t)
		giveBack := busy(c)
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if got := try(t, c, here, "bob", "bob's"); got != "in" {
					t.Error(got)
				}
			})
		}
		synctest.Wait()
		giveBack()
		all.Wait()
	})
}

// Who stops waiting has guessed nothing.
func TestGuessGivenUp(t *testing.T) {
	c := newChecker(t)
	giveBack := busy(c)
	for range 30 {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Check(ctx, here, Credentials{"bob", "wrong"}); err == nil {
			t.Fatal("no error")
		}
	}
	giveBack()
	if got := try(t, c, here, "bob", "bob's"); got != "in" {
		t.Error(got)
	}
}

// What a stranger sees of guesses is the same whether a name is a user's or
// not, and whether that user is known at the stranger's address or not: what
// the reply is, and how long it takes.
func TestNamesLookAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type seen struct {
			out  bool
			took time.Duration
		}
		var first []seen
		for _, name := range []string{"nobody", "ann", "bob"} { // bob has logged in from here
			c := newChecker(t)
			if got := try(t, c, here, "bob", "bob's"); got != "in" {
				t.Fatal(got)
			}
			var all []seen
			for _, guess := range []string{"x", "y", name, name, name, name, name, name, name, name, "z", name, name} {
				began := time.Now()
				v, err := c.Check(t.Context(), here, Credentials{guess, "wrong"})
				if err != nil || v.User != nil {
					t.Fatal(v, err)
				}
				all = append(all, seen{v.ShutOut, time.Since(began) + v.Delay})
			}
			if first == nil {
				first = all
			}
			if fmt.Sprint(all) != fmt.Sprint(first) {
				t.Errorf("%s: %v\nnobody: %v", name, all, first)
			}
		}
	})
}

// Behind the address of somebody who guesses, those who have logged in from
// there go on; their own wrong passwords look like anybody's.
func TestKnownBehindOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChecker(t)
		if got := try(t, c, here, "bob", "bob's"); got != "in" {
			t.Fatal(got)
		}
		for range 10 {
			_ = try(t, c, here, "nobody", "wrong")
		}
		for _, tt := range []struct {
			wrong int
			want  string
		}{{9, "in"}, {10, "out"}} {
			for range tt.wrong {
				if got := try(t, c, here, "bob", "wrong"); got != "out" {
					t.Errorf("a wrong password: %s", got)
				}
			}
			if got := try(t, c, here, "bob", "bob's"); got != tt.want {
				t.Errorf("after %d wrong passwords the right one is %s", tt.wrong, got)
			}
		}
	})
}

// A wrong password costs the same work whatever the user's hash costs.
func TestWorkIsTheSame(t *testing.T) {
	var users []User
	for i := range 4 {
		hash, err := bcrypt.GenerateFromPassword([]byte("x"), bcrypt.MinCost+i)
		if err != nil {
			t.Fatal(err)
		}
		users = append(users, User{Name: fmt.Sprint("user", i), Hash: string(hash)})
	}
	c, err := New(Options{Users: users})
	if err != nil {
		t.Fatal(err)
	}
	work := 0
	c.compare = func(hash, _ string) bool {
		cost, err := bcrypt.Cost([]byte(hash))
		if err != nil {
			t.Fatal(err)
		}
		work += 1 << cost
		return false
	}
	for _, name := range []string{"user0", "user1", "user2", "user3", "nobody"} {
		work = 0
		_ = try(t, c, here, name, "wrong")
		if want := 1 << (bcrypt.MinCost + 3); work != want {
			t.Errorf("%s: %d, want %d", name, work, want)
		}
	}
}

// Who has logged in from where can be kept, and told to another Checker.
func TestLoginsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := newChecker(t)
		for _, addr := range []netip.Addr{here, nearSix, {}} {
			_ = try(t, before, addr, "bob", "bob's")
		}
		_ = try(t, before, here, "ann", "right")
		kept := before.Logins()
		want := "[{ann 192.0.2.1/32} {bob invalid Prefix} {bob 192.0.2.1/32} {bob 2001:db8:1:1::/64}]"
		if got := fmt.Sprint(kept); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		after := newChecker(t)
		after.Remember(append(kept, Login{User: "eve", From: kept[1].From}))
		if got := fmt.Sprint(after.Logins()); got != want {
			t.Errorf("after a restart %s, want %s", got, want)
		}
		for range 10 {
			_ = try(t, after, here, "nobody", "wrong")
		}
		if a, b := try(t, after, here, "bob", "bob's"), try(t, after, near, "ann", "right"); a != "in" || b != "in" {
			t.Errorf("bob: %s, ann: %s", a, b)
		}
		if err := after.Replace(nil); err != nil || len(after.Logins()) != 0 {
			t.Errorf("of users who are gone: %v, %v", after.Logins(), err)
		}
	})
}

// What is kept has a bound, and is what was used last.
func TestKeptLoginsAreBounded(t *testing.T) {
	c := newChecker(t)
	addr := netip.MustParseAddr("10.0.0.0")
	for range maxKept + 100 {
		addr = addr.Next()
		_ = try(t, c, addr, "bob", "bob's")
	}
	kept := c.Logins()
	if first, _ := netip.MustParseAddr("10.0.0.101").Prefix(32); len(kept) != maxKept || kept[0].From != first {
		t.Errorf("%d, from %v", len(kept), kept[0])
	}
	c.Remember(append(kept, kept...))
	if len(c.Logins()) != maxKept {
		t.Errorf("%d", len(c.Logins()))
	}
}
