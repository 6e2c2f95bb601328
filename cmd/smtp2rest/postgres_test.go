package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/relay/store/postgres/pgtest"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// sharing is a relay process that shares a database.
type sharing struct {
	*harness.Process
	env  []string
	smtp string
}

// shares starts a relay with a data directory of its own, for its socket.
func shares(t *testing.T, env []string, url string) sharing {
	env = append(append([]string{}, env...), "SMTP2REST_STORE_URL="+url, "SMTP2REST_DATA_DIR="+filepath.Join(t.TempDir(), "data"))
	p := harness.Launch(t, env, "serve", "--config", harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n[api]\nrate = 50\n[delivery]\nretry_first = \"200ms\"\n"))
	return sharing{p, env, p.Await(p.Err, `msg=listening address=(127\.0\.0\.1:\d+)`)}
}

// rcpt returns what a client is told of a recipient, and of a mail for it if there is one.
func (s sharing) rcpt(t *testing.T, to string) string {
	c := harness.Dial(t, s.smtp)
	defer func() { _ = c.Conn.Close() }() // who polls would have too many
	c.Do("", "220", "EHLO app.example", "250", "MAIL FROM:<hello@mail.example.com>", "250")
	if said := c.Say("RCPT TO:<" + to + ">"); said[0] != '2' {
		return said
	}
	c.Do("DATA", "354")
	return c.Say("Message-ID: <" + fmt.Sprint(time.Now().UnixNano()) + "@app.example>\r\nSubject: Hello\r\n\r\nHello.\r\n.")
}

func (s sharing) status(t *testing.T) (st admin.Status) {
	t.Helper()
	r := harness.Execute(t, s.env, "", "status", "--json")
	if err := json.Unmarshal([]byte(r.Out), &st); err != nil {
		t.Fatalf("%+v: %v", r, err)
	}
	return st
}

// TestServeWithPostgreSQL: two relays share queue, suppressions and history; a relay
// without its database says so, refuses for the time being, and goes on by itself.
func TestServeWithPostgreSQL(t *testing.T) {
	server := pgtest.Start(t)
	url := server.URL(server.Database())
	_, env, sandbox := harness.SandboxProcess(t)
	env = harness.Environ(t, env...)
	one, two := shares(t, env, url), shares(t, env, url)

	if said := one.rcpt(t, "bob@example.net"); !strings.HasPrefix(said, "250 ") {
		t.Errorf("a mail is answered %q", said)
	}
	harness.PollUntil(t, "the other relay knows the mail", func() bool {
		return strings.Contains(harness.Execute(t, two.env, "", "trace", "bob@example.net").Out, "sent")
	})
	// What the API says of somebody at one relay, the other knows at RCPT.
	if said := one.rcpt(t, "suppressed@example.net"); !strings.HasPrefix(said, "550 ") {
		t.Errorf("a suppressed recipient is answered %q", said)
	}
	c := harness.Dial(t, two.smtp)
	c.Do("", "220", "EHLO app.example", "250", "MAIL FROM:<hello@mail.example.com>", "250")
	harness.PollUntil(t, "the other relay refuses at RCPT", func() bool { return strings.HasPrefix(c.Say("RCPT TO:<suppressed@example.net>"), "550 ") })
	// What is queued at one is seen at the other.
	if said := one.rcpt(t, "down+3@example.net"); !strings.HasPrefix(said, "250 ") {
		t.Errorf("a mail for later is answered %q", said)
	}
	harness.PollUntil(t, "it was sent in the end", func() bool {
		calls := harness.CallsTo(t, sandbox, "down+3@example.net")
		return len(calls) > 0 && calls[len(calls)-1].Status == 200
	})
	if st := two.status(t); len(st.Relays) != 2 || !st.Relays[0].Alive || st.Relays[0].Version == "" {
		t.Errorf("the relays are %+v", st.Relays)
	} else if p := st.Pace; p.Relays != 2 || p.Rate != 50 || p.Share <= 0 || p.Share >= 50 {
		t.Errorf("the account's rate is %+v", p)
	}
	if r := harness.Execute(t, two.env, "", "status"); !strings.Contains(r.Out, "50 calls a second, as configured, ") || !strings.Contains(r.Out, " of them here, shared by 2 relays") {
		t.Errorf("status says %+v", r)
	}
	refused := harness.Execute(t, two.env, "", "migrate", "--from", "env:SMTP2REST_STORE_URL", "--to", "sqlite:"+filepath.Join(t.TempDir(), "x"))
	if refused.Code == 0 || !strings.Contains(refused.Err, "a relay runs on it") {
		t.Errorf("migrate beside a relay: %+v", refused)
	}

	server.Stop()
	if said := one.rcpt(t, "down+9@example.net"); said != "451 4.3.0 the queue cannot be reached, try again later" {
		t.Errorf("without a database a mail that the API does not take is answered %q", said)
	}
	harness.PollUntil(t, "the share of the rate is over", func() bool {
		r := harness.Execute(t, two.env, "", "status")
		return strings.Contains(r.Out, "none of them here for")
	})
	if said := two.rcpt(t, "eve@example.net"); said != "451 4.3.0 the queue cannot be reached, try again later" {
		t.Errorf("without a share of the rate a mail is answered %q", said)
	}
	harness.PollUntil(t, "status says that the database is gone", func() bool {
		r := harness.Execute(t, one.env, "", "status")
		return r.Code == terminal.ExitFailed && strings.Contains(r.All(), "see to the database postgres://postgres@/")
	})
	server.Restart()
	harness.PollUntil(t, "mail is queued again", func() bool { return strings.HasPrefix(one.rcpt(t, "down+1@example.net"), "250 ") })
	harness.PollUntil(t, "status is well", func() bool { return harness.Execute(t, one.env, "", "status").Code == 0 })

	// A restart finds everything.
	one.Signal(syscall.SIGTERM)
	if code := one.Exit(); code != 0 {
		t.Errorf("the first relay ended with %d", code)
	}
	again := shares(t, env, url)
	if said := again.rcpt(t, "suppressed@example.net"); !strings.HasPrefix(said, "550 ") {
		t.Errorf("after a restart a suppressed recipient is answered %q", said)
	}
	if r := harness.Execute(t, again.env, "", "trace", "bob@example.net"); !strings.Contains(r.Out, "sent") {
		t.Errorf("%+v", r)
	}
	for _, p := range []sharing{two, again} {
		p.Signal(syscall.SIGTERM)
		_ = p.Exit()
	}
	// Commands look into the database when no relay answers.
	if r := harness.Execute(t, again.env, "", "queue", "list", "--state", "sent"); r.Code != 0 || !strings.Contains(r.Out, "down+3@example.net") {
		t.Errorf("with all relays stopped: %+v", r)
	}
}

// TestMigrateKilled: a migration that is killed goes on where it was, there and back, and
// no relay starts on what was left.
func TestMigrateKilled(t *testing.T) {
	server := pgtest.Start(t)
	url := server.URL(server.Database())
	base := t.TempDir()
	first, last := filepath.Join(base, "first"), filepath.Join(base, "last")
	const mails = 300
	fillStore(t, first, mails)
	env := harness.Environ(t, "SMTP2REST_STORE_URL="+url, "NEXUSPROMAIL_API_KEY=k", "FROM_EMAIL=hello@mail.example.com")
	for _, way := range [][2]string{{"sqlite:" + first, "env:SMTP2REST_STORE_URL"}, {"env:SMTP2REST_STORE_URL", "sqlite:" + last}} {
		args := []string{"migrate", "--from", way[0], "--to", way[1]}
		p := harness.Launch(t, env, args...)
		p.Await(p.Err, `: \d+ (moved)`)
		if err := p.Cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = p.Exit()
		r := harness.Execute(t, env, "", args...)
		if r.Code != 0 || !strings.Contains(r.Out, fmt.Sprintf("Moved and compared: %d mails, 1 mark, 0 events", mails)) || !strings.Contains(r.Out, "1200 suppressions") {
			t.Fatalf("%v: %+v", args, r)
		}
	}
	serve := harness.Execute(t, append(env, "SMTP2REST_STORE_URL=", "SMTP2REST_DATA_DIR="+first), "", "serve")
	if serve.Code == 0 || !strings.Contains(serve.Err, "was moved to postgres://postgres@/") {
		t.Errorf("serve on what was left: %+v", serve)
	}
	list := harness.Execute(t, env, "", "queue", "status", "--data-dir", last)
	if list.Code != 0 || !strings.Contains(list.Out, fmt.Sprintf("%d waiting", mails)) {
		t.Errorf("%+v", list)
	}
}

func fillStore(t *testing.T, dir string, mails int) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.SQLite(dir), store.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	var all []queue.Mail
	for range mails {
		all = append(all, queue.NewMail(relay.Message{ID: relay.NewID(now), From: "s@x.example", ReceivedAt: now, Recipients: []string{"a@y.example"}, Raw: []byte("Subject: x\r\n\r\nx\r\n")}))
	}
	var entries []suppress.Entry
	for i := range 1200 {
		entries = append(entries, suppress.Entry{Address: fmt.Sprintf("a%d@x.example", i), Reason: suppress.Operator, Source: suppress.ByOperator, Since: now})
	}
	for _, err := range []error{s.Queue.Enqueue(t.Context(), all...), s.Records.Put(t.Context(), entries), s.Queue.SetMark(t.Context(), "x", "y"), s.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
}
