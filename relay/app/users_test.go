package app

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
)

// The users' file is read again when it changed, and only when it is right;
// who was in before is let in as long as the password is the same.
func TestUsersAreReadAgain(t *testing.T) {
	hash := func(password string) string {
		t.Helper()
		h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		return string(h)
	}
	file := filepath.Join(t.TempDir(), "users")
	write := rewriter(t, file)
	write("ann:" + hash("1") + "\n")
	c := load(t, "https://api.example.com/api", "users_file = \""+file+"\"\n[[user]]\nname = \"eve\"\npassword_hash = \""+hash("eve's")+"\"\nsenders = [\"@e.test\"]\n")
	var log strings.Builder
	p := parts{opt: Options{Config: c, Log: slog.New(slog.NewTextHandler(&log, nil))}}
	u, err := p.users()
	if err != nil {
		t.Fatal(err)
	}
	var last *auth.User
	login := func(user, password string, want bool) {
		t.Helper()
		v, err := u.Check(t.Context(), netip.MustParseAddr("127.0.0.1"), auth.Credentials{User: user, Password: password})
		if err != nil || (v.User != nil) != want {
			t.Errorf("%s with %s: %+v, %v", user, password, v, err)
		}
		if v.User != nil {
			last = v.User
		}
	}
	login("ann", "1", true)
	if now := u.Current(last); now == nil {
		t.Error("ann is gone")
	}
	write("ann:" + hash("2") + "\nbob:" + hash("3") + "\n")
	if u.Current(last) != nil {
		t.Error("ann is let in with her old password")
	}
	login("ann", "1", false)
	login("ann", "2", true)
	login("bob", "3", true)
	write("eve:" + hash("4") + "\n")
	login("bob", "3", true)
	write("bob:hunter2\n")
	login("bob", "3", true)
	if n := strings.Count(log.String(), "cannot be read again"); n != 2 || strings.Contains(log.String(), "hunter2") {
		t.Errorf("a wrong file is told of %d times:\n%s", n, &log)
	}
	write("")
	login("bob", "3", false)
	login("eve", "eve's", true)
	if last.Rules.Sender.Permits("x@f.test") || !last.Rules.From.Permits("x@e.test") {
		t.Errorf("eve's rules are %+v", last.Rules)
	}
}
