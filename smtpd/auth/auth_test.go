package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/smtp2rest/smtp2rest/smtpd/policy"
)

// quick is a hash that costs next to nothing.
func quick(t testing.TB, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

func newChecker(t *testing.T) *Checker {
	t.Helper()
	c, err := New(Options{Users: []User{{Name: "ann", Hash: quick(t, "right")}, {Name: "bob", Hash: quick(t, "bob's")}}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var (
	here     = netip.MustParseAddr("192.0.2.1")
	near     = netip.MustParseAddr("192.0.2.2")
	far      = netip.MustParseAddr("198.51.100.1")
	nearSix  = netip.MustParseAddr("2001:db8:1:1::2")
	sameSix  = netip.MustParseAddr("2001:db8:1:1::3")
	otherSix = netip.MustParseAddr("2001:db8:1:2::3")
)

// try is how an attempt ends: "in", "out" when shut out, or the delay.
func try(t *testing.T, c *Checker, from netip.Addr, user, password string) string {
	t.Helper()
	v, err := c.Check(t.Context(), from, Credentials{user, password})
	switch {
	case err != nil:
		t.Fatal(err)
	case v.User != nil && v.User.Name == user:
		return "in"
	case v.ShutOut:
		return "out"
	}
	return v.Delay.String()
}

func TestCheck(t *testing.T) {
	c := newChecker(t)
	for _, tt := range []struct{ user, password, want string }{
		{"ann", "right", "in"}, {"ann", "right", "in"}, {"ann", "bob's", "500ms"}, {"ann", "", "1s"}, {"ANN", "right", "2s"}, {"nobody", "right", "4s"}, {"nobody", "", "8s"}, {"", "", "8s"},
	} {
		if got := try(t, c, here, tt.user, tt.password); got != tt.want {
			t.Errorf("%q %q: %s, want %s", tt.user, tt.password, got, tt.want)
		}
	}
}

// Guessing gets slower, then ends for a while.
func TestGuessing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChecker(t)
		for i, want := range []string{"500ms", "1s", "2s", "4s", "8s", "8s", "8s", "8s", "8s", "out", "out"} {
			if got := try(t, c, here, "ann", "wrong"); got != want {
				t.Errorf("attempt %d: %s, want %s", i, got, want)
			}
		}
		steps := []struct {
			after      time.Duration
			from       netip.Addr
			user, pass string
			want       string
		}{
			{0, here, "ann", "right", "out"}, // a guess that is right is not told
			{0, here, "bob", "bob's", "out"}, // the address, whatever the user
			{0, near, "ann", "right", "in"},
			{0, far, "ann", "right", "in"},
			{0, netip.Addr{}, "ann", "right", "in"},
			{15*time.Minute - 1, here, "ann", "right", "out"},
			{1, here, "ann", "right", "in"},
		}
		for i, s := range steps {
			time.Sleep(s.after)
			if got := try(t, c, s.from, s.user, s.pass); got != s.want {
				t.Errorf("step %d: %s, want %s", i, got, s.want)
			}
		}
	})
}

// Whoever has logged in from an address is not shut out there by others'
// wrong passwords, at the same address or in its network, but by those for
// that very user.
func TestOthersGuesses(t *testing.T) {
	c := newChecker(t)
	if got := try(t, c, here, "ann", "right"); got != "in" {
		t.Fatal(got)
	}
	for range 10 {
		_ = try(t, c, here, "bob", "wrong")
		_ = try(t, c, near, "ann", "wrong")
		_ = try(t, c, here.Next().Next(), "ann", "wrong")
		_ = try(t, c, far, "ann", "wrong")
	}
	for user, want := range map[string]string{"ann": "in", "bob": "out"} {
		if got := try(t, c, here, user, map[string]string{"ann": "right", "bob": "bob's"}[user]); got != want {
			t.Errorf("%s: %s, want %s", user, got, want)
		}
	}
	// A whole network that guesses one user's password is shut out as one.
	if got := try(t, c, netip.MustParseAddr("192.0.2.99"), "ann", "right"); got != "out" {
		t.Errorf("a neighbour: %s", got)
	}
	if got := try(t, c, netip.MustParseAddr("192.0.2.99"), "bob", "bob's"); got != "in" {
		t.Errorf("a neighbour, as another user: %s", got)
	}
	for range 9 {
		_ = try(t, c, here, "ann", "wrong")
	}
	if got := try(t, c, here, "ann", "wrong"); got != "out" {
		t.Errorf("the tenth wrong password: %s", got)
	}
}

// One IPv6 client has a /64.
func TestGuessingSix(t *testing.T) {
	c := newChecker(t)
	for range 10 {
		_ = try(t, c, nearSix, "ann", "wrong")
	}
	if a, b := try(t, c, sameSix, "ann", "right"), try(t, c, otherSix, "ann", "right"); a != "out" || b != "in" {
		t.Errorf("the same /64: %s, another: %s", a, b)
	}
}

// A right password does not wipe out the wrong ones before it.
func TestRightForgivesNothing(t *testing.T) {
	c := newChecker(t)
	for range 9 {
		_ = try(t, c, here, "ann", "wrong")
		if got := try(t, c, here, "bob", "bob's"); got != "in" {
			t.Fatal(got)
		}
	}
	if got := try(t, c, here, "ann", "wrong"); got != "out" {
		t.Errorf("the tenth: %s", got)
	}
}

// The tables have an end, and forget what was longest out of use.
func TestTableIsBounded(t *testing.T) {
	table := newTable(3)
	k := func(n uint64) key { return key{user: n} }
	for n := range uint64(3) {
		table.put(k(n)).failures = int(n) + 1
	}
	_ = table.get(k(0))
	for n := range uint64(100) {
		table.put(k(0))
		table.put(k(n + 10))
	}
	if table.Len() != 3 || table.get(k(0)).failures != 1 || table.get(k(1)) != nil {
		t.Errorf("%d entries, %v", table.Len(), table.get(k(0)))
	}
	c := newChecker(t)
	addr := netip.MustParseAddr("10.0.0.0")
	for range maxRemembered + 100 {
		addr = addr.Next()
		a, _, _ := c.guesses.begin(addr, addr.String(), time.Now())
		c.guesses.wrong(a, time.Now())
	}
	if g := c.guesses; g.address.Len() != maxRemembered || g.networks.Len() != maxRemembered || g.known.Len() != 0 || len(g.running) != 0 {
		t.Errorf("%d, %d, %d, %d", g.address.Len(), g.networks.Len(), g.known.Len(), len(g.running))
	}
}

func TestCheckWhenStopped(t *testing.T) {
	c := newChecker(t)
	for range cap(c.slots) {
		c.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if v, err := c.Check(ctx, here, Credentials{"ann", "right"}); !errors.Is(err, context.Canceled) || v.User != nil {
		t.Errorf("%+v, %v", v, err)
	}
}

// A user who does not exist is compared with the costliest hash there is.
func TestUnknownUserCostsAsMuch(t *testing.T) {
	dear, err := bcrypt.GenerateFromPassword([]byte("x"), bcrypt.MinCost+3)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Options{Users: []User{{Name: "a", Hash: quick(t, "x")}, {Name: "b", Hash: string(dear)}, {Name: "c", Hash: quick(t, "x")}}})
	if err != nil || c.costliest != string(dear) {
		t.Fatal(err, c.costliest)
	}
	for range cap(c.slots) {
		c.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // who would be told at once would not see it
	if _, err := c.Check(ctx, here, Credentials{"nobody", "x"}); !errors.Is(err, context.Canceled) {
		t.Errorf("an unknown user is not looked at: %v", err)
	}
}

func TestBadUsers(t *testing.T) {
	good := quick(t, "x")
	for name, users := range map[string][]User{
		"without a name":   {{Hash: good}},
		"two users":        {{Name: "a", Hash: good}, {Name: "a", Hash: good}},
		"no bcrypt":        {{Name: "a", Hash: "hunter2"}},
		"this is not":      {{Name: "a", Hash: good[:59]}},
		"bcrypt hash":      {{Name: "a", Hash: "$1$" + good[3:]}},
		"has a cost of 31": {{Name: "a", Hash: strings.Replace(good, "$04$", "$31$", 1)}},
	} {
		if name == "no bcrypt" {
			name = "user \"a\": this is not a bcrypt hash"
		}
		_, err := New(Options{Users: users})
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whoever is replaced has to log in again, unless the password is the same.
func TestReplace(t *testing.T) {
	c := newChecker(t)
	login := func(user, password string) *User {
		v, err := c.Check(t.Context(), here, Credentials{user, password})
		if err != nil {
			t.Fatal(err)
		}
		return v.User
	}
	ann, bob := login("ann", "right"), login("bob", "bob's")
	bobs := *bob
	bobs.Rules.DenySenders = policy.List{{}}
	if err := c.Replace([]User{{Name: "ann", Hash: "hunter2"}}); err == nil || c.Current(ann) != ann {
		t.Errorf("a wrong list: %v", err)
	}
	if err := c.Replace([]User{{Name: "ann", Hash: quick(t, "new")}, bobs, {Name: "eve", Hash: quick(t, "eve's")}}); err != nil {
		t.Fatal(err)
	}
	if c.Current(ann) != nil {
		t.Error("ann is the same with another password")
	}
	if now := c.Current(bob); now == nil || len(now.Rules.DenySenders) != 1 {
		t.Errorf("bob is %+v", now)
	}
	for _, tt := range []struct {
		user, password string
		in             bool
	}{{"ann", "right", false}, {"ann", "new", true}, {"bob", "bob's", true}, {"eve", "eve's", true}} {
		if got := login(tt.user, tt.password); (got != nil) != tt.in {
			t.Errorf("%s %s: %v", tt.user, tt.password, got)
		}
	}
	if err := c.Replace(nil); err != nil || login("bob", "bob's") != nil || c.Current(bob) != nil {
		t.Errorf("bob logs in though nobody may: %v", err)
	}
}

func TestHash(t *testing.T) {
	hash, err := Hash("correct horse")
	if err != nil || matches(hash, "battery") {
		t.Errorf("%s, %v", hash, err)
	}
	if got, err := CheckHash(hash); got != cost || err != nil {
		t.Errorf("%d, %v", got, err)
	}
	// htpasswd writes $2y$.
	if !matches(strings.Replace(hash, "$2a$", "$2y$", 1), "correct horse") {
		t.Error("$2y$ is not taken")
	}
	for _, bad := range []string{"", strings.Repeat("x", 73), "a\x00b", "a\n"} {
		if _, err := Hash(bad); err == nil {
			t.Errorf("%q has a hash", bad)
		}
	}
}

func TestCredentialsAreNotShown(t *testing.T) {
	said := Credentials{"ann", "hunter2"}
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "said", said)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		fmt.Fprintf(&b, verb+verb, said, struct{ C Credentials }{said})
	}
	if strings.Contains(b.String(), "hunter2") || strings.Contains(b.String(), "68756e") {
		t.Error(b.String())
	}
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestConverse(t *testing.T) {
	wants := errors.New("the connection ended")
	for _, tt := range []struct {
		arg     string
		answers []string
		want    Credentials
		asked   string
		err     error
	}{
		{"PLAIN " + b64("\x00ann\x00right"), nil, Credentials{"ann", "right"}, "", nil},
		{"plain", []string{b64("\x00ann\x00right")}, Credentials{"ann", "right"}, "|", nil},
		{"PLAIN " + b64("ann\x00ann\x00right"), nil, Credentials{"ann", "right"}, "", nil},
		{"PLAIN " + b64("bob\x00ann\x00right"), nil, Credentials{}, "", ErrMalformed},
		{"PLAIN " + b64("\x00\x00right"), nil, Credentials{}, "", ErrMalformed},
		{"PLAIN " + b64("\x00ann"), nil, Credentials{}, "", ErrMalformed},
		{"PLAIN " + b64("\x00ann\x00a\x00b"), nil, Credentials{}, "", ErrMalformed},
		{"PLAIN =", nil, Credentials{}, "", ErrMalformed},
		{"PLAIN hunter2!", nil, Credentials{}, "", ErrBase64},
		{"PLAIN", []string{"*"}, Credentials{}, "|", ErrCancelled},
		{"PLAIN", nil, Credentials{}, "|", wants},
		{"LOGIN", []string{b64("ann"), b64("right")}, Credentials{"ann", "right"}, "Username:|Password:|", nil},
		{"Login " + b64("ann"), []string{b64("right")}, Credentials{"ann", "right"}, "Password:|", nil},
		{"LOGIN =", []string{b64("right")}, Credentials{}, "Password:|", ErrMalformed},
		{"LOGIN", []string{"*"}, Credentials{}, "Username:|", ErrCancelled},
		{"LOGIN", []string{b64("ann"), "*"}, Credentials{}, "Username:|Password:|", ErrCancelled},
		{"LOGIN", []string{"ann@b.test"}, Credentials{}, "Username:|", ErrBase64},
		{"LOGIN", []string{b64("ann"), ""}, Credentials{"ann", ""}, "Username:|Password:|", nil},
		{"CRAM-MD5", nil, Credentials{}, "", ErrMechanism},
		{"", nil, Credentials{}, "", ErrMechanism},
	} {
		var asked strings.Builder
		got, err := Converse(tt.arg, func(challenge string) (string, error) {
			text, _ := base64.StdEncoding.DecodeString(challenge)
			asked.WriteString(string(text) + "|")
			if len(tt.answers) == 0 {
				return "", wants
			}
			a := tt.answers[0]
			tt.answers = tt.answers[1:]
			return a, nil
		})
		if got != tt.want || !errors.Is(err, tt.err) || asked.String() != tt.asked {
			t.Errorf("%s: %v (user %q), %v, asked %q", tt.arg, got, got.User, err, &asked)
		}
	}
}

// FuzzConverse: whatever a client says, an exchange ends after two questions,
// with an error or a user, and no error tells what was said.
func FuzzConverse(f *testing.F) {
	f.Add("PLAIN "+b64("\x00ann\x00right"), "", "")
	f.Add("LOGIN", b64("ann"), b64("right"))
	f.Add("LOGIN =", "*", "=")
	f.Fuzz(func(t *testing.T, arg, first, second string) {
		asked := 0
		got, err := Converse(arg, func(string) (string, error) {
			asked++
			return []string{first, second}[asked-1], nil
		})
		known := errors.Is(err, ErrMechanism) || errors.Is(err, ErrBase64) || errors.Is(err, ErrMalformed) || errors.Is(err, ErrCancelled)
		if asked > 2 || (err == nil) != (got.User != "") || err != nil && !known {
			t.Errorf("user %q, %v after %d questions", got.User, err, asked)
		}
	})
}
