package app

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/logs"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
)

// planted are the words that no line may have: secrets, and what mails say.
func planted() []string {
	return []string{"planted-key", "planted-webhook-secret", "planted-admin-token", "planted-password",
		"planted subject", "planted body", "planted-header", base64.StdEncoding.EncodeToString([]byte("\x00app\x00planted-password"))}
}

// planting is a daemon in which everything that is secret is one of those
// words, with its log at the level that says most.
func planting(t *testing.T, box *sandbox.Server) (*config.Config, *App, *journal) {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("planted-password"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	text := toml(t, fmt.Sprintf("[[user]]\nname = \"app\"\npassword_hash = %q\n[admin]\naddress = \"127.0.0.1:0\"\n[delivery]\nretry_first = \"1s\"\nretry_max = \"1s\"\nmax_age = \"3s\"\n", hash))
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"NEXUSPROMAIL_API_KEY": "planted-key", "NEXUSPROMAIL_API_URL": box.URL(), "FROM_EMAIL": "relay@sandbox.example",
		"WEBHOOK_SECRET": "planted-webhook-secret", "SMTP2REST_ADMIN_TOKEN": "planted-admin-token"}
	c, err := config.Load(config.Source{Path: path, NeedAPI: true, Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
	if err != nil {
		t.Fatal(err)
	}
	j := &journal{}
	log := logs.New(logs.Options{W: j, Settings: logs.Settings{Format: logs.JSON, Level: slog.LevelDebug}})
	a := New(Options{Config: c, Version: "v0.0.0-test", Log: log.Logger})
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stop(a, patience); log.Close() })
	return c, a, j
}

// Whatever happens, the log has the ids and neither a secret nor a word of a
// mail.
func TestTheLogKeepsSecrets(t *testing.T) {
	box := newSandbox(t)
	c, a, log := planting(t, box)
	mail := "From: shop@sandbox.example\r\nSubject: planted subject\r\nX-Secret: planted-header\r\nMessage-ID: <1@x>\r\n\r\nplanted body\r\n.\r\n"
	smtp := func(steps ...[2]string) {
		t.Helper()
		cl := dial(t, a.Addrs()[0].String())
		cl.want("220 ")
		for _, s := range steps {
			cl.send(s[0])
			cl.want(s[1])
		}
		_ = cl.conn.Close()
	}
	hello, data := [2]string{"EHLO client.test\r\n", "250 "}, [2]string{"DATA\r\n", "354 "}
	from := [2]string{"MAIL FROM:<shop@sandbox.example>\r\n", "250 "}
	rcpt := func(to string) [2]string { return [2]string{"RCPT TO:<" + to + ">\r\n", "250 "} }
	// Logins, right and wrong; credentials on a line where none belong.
	good, bad := base64.StdEncoding.EncodeToString([]byte("\x00app\x00planted-password")), base64.StdEncoding.EncodeToString([]byte("\x00app\x00planted-password-wrong"))
	smtp(hello, [2]string{"AUTH PLAIN " + bad + "\r\n", "535 "}, [2]string{"AUTH PLAIN " + good + "\r\n", "235 "}, from, rcpt("bob@example.net"), data, [2]string{mail, "250 "})
	smtp(hello, [2]string{"planted-password\r\n", "5"}, [2]string{"MAIL FROM:<planted body>\r\n", "5"})
	// Every end a mail can come to.
	smtp(hello, from, rcpt("eve@example.net"), rcpt("suppressed+3@example.net"), data, [2]string{mail, "250 "})
	for _, tt := range [][2]string{
		{"invalid@example.net", "554 "}, {"suppressed@example.net", "550 "}, {"suppressed+2@example.net", "550 "},
		{"down@example.net", "250 2.0.0 queued"}, {"nojson@example.net", "250 2.0.0 queued"},
		{"forbidden@example.net", "250 2.0.0 queued"}, // opens the breaker
	} {
		smtp(hello, from, rcpt(tt[0]), data, [2]string{mail, tt[1]})
	}
	operate(t, c)
	until(t, func() bool { return strings.Contains(log.String(), `"outcome":"dropped"`) })
	if err := stop(a, patience); err != nil {
		t.Errorf("Stop: %v", err)
	}
	said := log.String()
	for _, secret := range planted() {
		for line := range strings.Lines(said) {
			if strings.Contains(line, secret) {
				t.Errorf("%q is in the log: %s", secret, line)
			}
		}
	}
	for _, want := range []string{`"outcome":"accepted"`, `"outcome":"refused"`, `"outcome":"unavailable"`, `"outcome":"unauthorized"`, `"message_id":"msg_`, `"to":"bob@example.net"`, `"session":"`} {
		if !strings.Contains(said, want) {
			t.Errorf("the log has no %s", want)
		}
	}
	if t.Failed() {
		t.Log(said)
	}
}

// operate does what an operator does.
func operate(t *testing.T, c *config.Config) {
	t.Helper()
	client, err := admin.Dial(t.Context(), AdminSocket(c))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for name, f := range map[string]func() error{
		"status": func() error { _, err := client.Status(ctx); return err },
		"hold":   func() error { _, err := client.Hold(ctx, admin.Filter{All: true}); return err },
		"raw":    func() error { _, err := client.Raw(ctx, "nothing"); return ignore(err) },
		"page":   func() error { _, err := client.Ask(ctx, admin.Metrics); return err },
	} {
		if err := f(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := client.Drop(ctx, admin.Filter{All: true}); err != nil {
		t.Errorf("drop: %v", err)
	}
}

func ignore(error) error { return nil }

// A message that is said in other words one day must not begin to be summed up
// unnoticed.
func TestWhatIsAlwaysWrittenIsSaid(t *testing.T) {
	var source strings.Builder
	for _, pattern := range []string{"*.go", "../*/*.go", "../store/*/*.go", "../../smtpd/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if !strings.HasSuffix(name, "_test.go") && name != "log.go" {
				source.WriteString(read(t, name))
			}
		}
	}
	for _, message := range append(always(), byClient()...) {
		if !strings.Contains(source.String(), fmt.Sprintf("%q", message)) {
			t.Errorf("nobody says %q", message)
		}
	}
}
