package app

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/smtpd/auth"
)

func hasher(t *testing.T) func(password string) string {
	return func(password string) string {
		t.Helper()
		h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		return string(h)
	}
}

// A user's own sender holds for mail that waited in the queue, also over a
// restart, as it is set then.
func TestOwnSenderSurvivesTheQueue(t *testing.T) {
	box := newSandbox(t)
	conf := toml(t, "[delivery]\nwait = \"0s\"\nretry_first = \"1s\"\n[[user]]\nname = \"app\"\npassword_hash = \""+hasher(t)("x")+"\"\n")
	send := func(from string, more func(address string)) {
		a, _ := newApp(load(t, box.URL(), conf+fmt.Sprintf("from = %q\nfrom_name = \"The app\"\n", from)))
		if err := a.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		more(a.Addrs()[0].String())
		if err := stop(a, patience); err != nil {
			t.Fatal(err)
		}
	}
	if err := box.SetOutage(sandbox.OutageUnavailable); err != nil {
		t.Fatal(err)
	}
	awaitCalls := func(enough func(sandbox.Stats) bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := box.WaitFor(ctx, enough); err != nil {
			t.Fatal(err)
		}
	}
	send("old@sandbox.example", func(address string) {
		c := dial(t, address)
		c.want("220 ")
		for _, step := range [][2]string{
			{"EHLO c", "250 "}, {"AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00app\x00x")), "235 "}, {"MAIL FROM:<root@localhost>", "250 "},
			{"RCPT TO:<bob@example.net>", "250 "}, {"DATA", "354 "}, {"From: root\r\n\r\nb\r\n.", "250 2.0.0 queued "},
		} {
			c.send(step[0] + "\r\n")
			c.want(step[1])
		}
		awaitCalls(func(s sandbox.Stats) bool { return s.Calls > 0 })
	})
	if err := box.SetOutage(sandbox.OutageNone); err != nil {
		t.Fatal(err)
	}
	send("new@sandbox.example", func(string) {
		awaitCalls(func(s sandbox.Stats) bool { return s.Accepted == 1 })
	})
	var froms []string
	for _, c := range box.Calls() {
		var body struct{ From struct{ Email, Name string } }
		if err := json.Unmarshal(c.Body, &body); err != nil {
			t.Fatal(err)
		}
		froms = append(froms, body.From.Email)
	}
	if froms[0] != "old@sandbox.example" || froms[len(froms)-1] != "new@sandbox.example" {
		t.Errorf("the API got mail from %v", froms)
	}
}

// The users' file is read again when it changed, and only when it is right;
// who was in before is let in as long as the password is the same.
func TestUsersAreReadAgain(t *testing.T) {
	hash := hasher(t)
	file := filepath.Join(t.TempDir(), "users")
	write := rewriter(t, file)
	write("ann:" + hash("1") + "\n")
	c := load(t, "https://api.example.com/api", "users_file = \""+file+"\"\n[[user]]\nname = \"eve\"\npassword_hash = \""+hash("eve's")+"\"\nsenders = [\"@e.test\"]\n")
	var log strings.Builder
	u, err := newUsers(c, slog.New(slog.NewTextHandler(&log, nil)))
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
	if last.Rules.AllowSenders.Has("x@f.test") || !last.Rules.AllowFrom.Has("x@e.test") {
		t.Errorf("eve's rules are %+v", last.Rules)
	}
}
