package smtpd

import (
	"encoding/base64"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
)

// withUsers lets ann log in with the password hunter2, in the clear as well.
func withUsers(t testing.TB, o auth.Options) func(*Options) {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("hunter2"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	o.Users = []auth.User{{Name: "ann", Hash: string(hash)}}
	users, err := auth.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return func(s *Options) { s.Users, s.Listeners[0].AuthWithoutTLS = users, true }
}

func plain(user, password string) string {
	return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password))
}

// The log tells who logged in and who failed to, and shows nothing that can be
// a password: not in the place of a name either.
func TestLoginLog(t *testing.T) {
	var log records
	set := withUsers(t, auth.Options{Delay: 1})
	s := start(t, &fakeBackend{}, func(o *Options) {
		set(o)
		o.Log = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	c := dial(t, s)
	encoded := base64.StdEncoding.EncodeToString([]byte("hunter2"))
	c.want("220 ")
	c.do("EHLO c", "250 ", plain("ann", "hunter3"), "535 ", plain("hunter2", "x"), "535 ", plain("hunter2", "hunter2")+"!", "501 ",
		"AUTH LOGIN hunter2", "501 ", "AUTH hunter2 x", "504 ", "AUTH LOGIN", "334 ", "hunter2", "501 ", "AUTH LOGIN "+encoded, "334 ", encoded, "535 ",
		plain("ann", "hunter2"), "235 ", "QUIT", "221 ")
	waitFor(t, s, 0)
	stopWithin(t, s, patience)
	var causes, users []string
	for _, r := range log.all(t) {
		if cause, ok := r["cause"].(string); ok {
			causes = append(causes, cause)
		}
		if r["msg"] == "logged in" {
			users = append(users, r["user"].(string))
		}
	}
	if strings.Join(causes, ";") != "as user ann" || strings.Join(users, ";") != "ann" {
		t.Errorf("failed: %q, logged in: %q", causes, users)
	}
	for _, secret := range []string{"hunter", encoded, strings.TrimRight(encoded, "="), "AGFubg"} {
		if strings.Contains(log.buf.String(), secret) {
			t.Errorf("%q in %s", secret, log.buf.String())
		}
	}
}

// A user who is taken away, or gets another password, sends no further mail on
// a connection that is open, and one whose rules change has the new ones.
func TestUsersChangeUnderASession(t *testing.T) {
	set := withUsers(t, auth.Options{})
	var users *auth.Checker
	s := start(t, &fakeBackend{}, func(o *Options) {
		set(o)
		o.Listeners[0].RequireAuth = true
		users = o.Users.(*auth.Checker)
	})
	c := dial(t, s)
	c.want("220 ")
	c.do("EHLO c", "250 ", plain("ann", "hunter2"), "235 ", "MAIL FROM:<a@b.test>", "250 ", "RSET", "250 ")
	v, err := users.Check(t.Context(), netip.Addr{}, auth.Credentials{User: "ann", Password: "hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	ann := *v.User
	ann.Rules.DenySenders = patterns("a@b.test")
	if err := users.Replace([]auth.User{ann}); err != nil {
		t.Fatal(err)
	}
	c.do("MAIL FROM:<a@b.test>", "553 5.7.1", "MAIL FROM:<c@b.test>", "250 ")
	if err := users.Replace(nil); err != nil {
		t.Fatal(err)
	}
	// What has begun may end.
	c.do("RCPT TO:<c@d.test>", "250 ", "DATA", "354 ", ".", "250 ", "MAIL FROM:<c@b.test>", "530 5.7.0", plain("ann", "hunter2"), "535 ")
}

// The backend is told who sends.
func TestEnvelopeHasUser(t *testing.T) {
	b := &fakeBackend{}
	c := dial(t, start(t, b, withUsers(t, auth.Options{})))
	c.want("220 ")
	send := []string{"MAIL FROM:<a@b.test>", "250 ", "RCPT TO:<c@d.test>", "250 ", "DATA", "354 ", ".", "250 "}
	c.do("HELO c", "250 ")
	c.do(send...)
	c.do(plain("ann", "hunter2"), "235 ")
	c.do(send...)
	if got := b.took(); got[0].env.Client.User != "" || got[1].env.Client.User != "ann" {
		t.Errorf("users %q and %q", got[0].env.Client.User, got[1].env.Client.User)
	}
}

// A client that is made to wait for its reply does not hold up the end.
func TestStopDuringDelay(t *testing.T) {
	s := start(t, &fakeBackend{}, withUsers(t, auth.Options{Delay: time.Hour}))
	c := dial(t, s)
	c.want("220 ")
	c.do("HELO c", "250 ")
	waitForSession(t, s, func(c *conn) bool { return c.idle })
	c.send(plain("ann", "x") + "\r\n")
	waitForSession(t, s, func(c *conn) bool { return !c.idle })
	stopWithin(t, s, patience)
	if l := c.line(); !strings.HasPrefix(l, "535 ") && !strings.HasPrefix(l, "421 4.3.2") {
		t.Errorf("got %q", l)
	}
}

// Wrong passwords count in all connections of an address together.
func TestGuessingInManyConnections(t *testing.T) {
	s := start(t, &fakeBackend{}, withUsers(t, auth.Options{Delay: 1, Failures: 5}))
	for i := range 8 {
		c := dial(t, s)
		c.want("220 ")
		c.do("HELO c", "250 ")
		c.send(plain("ann", "x") + "\r\n")
		want := "535 "
		if i >= 4 {
			want = "421 4.7.0"
		}
		c.want(want)
	}
}
