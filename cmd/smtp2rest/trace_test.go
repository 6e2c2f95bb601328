package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// told is a relay whose history is looked at, restarted on the same data.
type told struct {
	t       *testing.T
	env     []string
	file    string
	sandbox string
	dir     string
	*harness.Process
	smtp string
}

func newTold(t *testing.T, more string) *told {
	t.Helper()
	_, env, sandbox := harness.SandboxProcess(t)
	env = harness.Environ(t, env...)
	s := &told{t: t, env: env, sandbox: sandbox}
	for _, e := range env {
		if dir, ok := strings.CutPrefix(e, "SMTP2REST_DATA_DIR="); ok {
			s.dir = dir
		}
	}
	s.file = harness.ConfigFile(t, `
[[listener]]
address = "127.0.0.1:0"
[history]
subjects = true
[delivery]
wait = "3s"
retry_first = "200ms"
retry_max = "400ms"
[bounce]
grace = "1s"
postmaster = "none"
[mail]
attachments = "strip"
`+more)
	s.start()
	return s
}

func (s *told) start() {
	s.t.Helper()
	s.Process = harness.Launch(s.t, s.env, "serve", "--config", s.file)
	s.smtp = s.Await(s.Err, `msg=listening address=(127\.0\.0\.1:\d+)`)
}

func (s *told) stop() {
	s.t.Helper()
	s.Signal(syscall.SIGTERM)
	if code := s.Exit(); code != 0 {
		s.t.Fatalf("exit code %d", code)
	}
}

// hand hands a mail over and returns what its client was told last.
func (s *told) hand(from, id string, to ...string) string {
	s.t.Helper()
	c := harness.Dial(s.t, s.smtp)
	c.Do("", "220", "EHLO app.example", "250", "MAIL FROM:<"+from+">", "250")
	for _, rcpt := range to {
		if reply := c.Say("RCPT TO:<" + rcpt + ">"); !strings.HasPrefix(reply, "250") {
			return reply
		}
	}
	c.Do("DATA", "354")
	return c.Say("From: <hello@mail.example.com>\r\nSubject: About " + id + "\r\nMessage-ID: <" + id + "@app.example>\r\n" +
		"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n" +
		"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nText.\r\n--b\r\n" +
		"Content-Type: application/pdf; name=report.pdf\r\nContent-Disposition: attachment; filename=report.pdf\r\n\r\npdf\r\n--b--\r\n.")
}

func (s *told) trace(name string) admin.Traced {
	s.t.Helper()
	r := harness.Execute(s.t, s.env, "", "trace", name, "--json")
	var out admin.Traced
	if err := json.Unmarshal([]byte(r.Out), &out); err != nil || r.Code != 0 {
		s.t.Fatalf("trace %s: %v %+v", name, err, r)
	}
	return out
}

// one is the recipient of a mail of one.
func (s *told) one(name string) (history.Mail, history.Recipient) {
	s.t.Helper()
	out := s.trace(name)
	if out.Mail == nil || len(out.Mail.Recipients) != 1 {
		s.t.Fatalf("trace %s tells %+v", name, out)
	}
	return *out.Mail, out.Mail.Recipients[0]
}

var idInReply = regexp.MustCompile(`[0-9a-v]{20}`)

// followed waits with trace --follow until nothing is left to do.
func (s *told) followed(name string) string {
	s.t.Helper()
	r := harness.Execute(s.t, s.env, "", "trace", name, "--follow")
	if r.Code != 0 {
		s.t.Fatalf("%+v", r)
	}
	return r.Out
}

// TestTrace: one mail accepted, one queued and then sent, one failed and
// bounced, one refused at DATA and one at RCPT; each by every name it has;
// while the relay runs, after it was killed, and while it is stopped.
func TestTrace(t *testing.T) {
	s := newTold(t, "")
	accepted := s.hand("shop@mail.example.com", "m1", "bob@example.net")
	queued := s.hand("shop@mail.example.com", "m2", "down+2@example.net")
	failed := s.hand("shop@mail.example.com", "m3", "ann@example.net", "invalid@example.net")
	refused := s.hand("shop@mail.example.com", "m4", "suppressed@example.net")
	atRcpt := s.hand("shop@mail.example.com", "m5", "suppressed@example.net")
	for _, e := range []struct{ got, want string }{
		{accepted, "250 2.0.0 accepted "}, {queued, "250 2.0.0 queued "}, {failed, "250 2.0.0 accepted "},
		{refused, "550 5.7.1 suppressed"}, {atRcpt, "550 5.7.1 <suppressed@example.net>"},
	} {
		if !strings.HasPrefix(e.got, e.want) {
			t.Fatalf("the client was told %q, want %q", e.got, e.want)
		}
	}
	follow := s.followed("m2@app.example")
	if !regexp.MustCompile(`(?s)received.*attempt 1: .*HTTP 500.*the client was told 250 2\.0\.0 queued.*attempt 3: sent: HTTP 200 msg_.*down\+2@example\.net sent\n$`).MatchString(follow) {
		t.Errorf("--follow says\n%s", follow)
	}
	id3 := idInReply.FindString(failed)
	s.followed(id3)
	bounced := s.awaitBounce(id3)

	check := func(when string) {
		t.Helper()
		apiID := harness.CallsTo(t, s.sandbox, "bob@example.net")[0].MessageID
		for _, name := range []string{idInReply.FindString(accepted), idInReply.FindString(accepted)[:16], "<m1@app.example>", "m1@app.example", apiID, "BOB@Example.net"} {
			m, r := s.one(name)
			if m.Reply != accepted || r.State != history.Sent || r.APIID != apiID || len(r.Steps) != 1 || r.Steps[0].Attempt.Status != 200 {
				t.Errorf("%s: %s tells %+v", when, name, m)
			}
			if m.Subject != "About m1" || m.Client.Helo != "app.example" || m.TraceParent == "" || m.Size == 0 || m.Author != "hello@mail.example.com" ||
				len(m.LeftOut) != 1 || m.LeftOut[0] != (history.LeftOut{Kind: "attachment_stripped", Detail: "1 (3 bytes)"}) {
				t.Errorf("%s: the head is %+v", when, m.Head)
			}
		}
		if _, r := s.one("m2@app.example"); r.State != history.Sent || len(r.Steps) != 3 || r.Steps[1].Attempt.Status != 500 {
			t.Errorf("%s: what was queued: %+v", when, r)
		}
		m := *s.trace("m3@app.example").Mail
		i := slices.IndexFunc(m.Recipients, func(r history.Recipient) bool { return r.Addr == "invalid@example.net" })
		if r := m.Recipients[i]; r.State != history.Failed || r.Steps[0].Attempt.Status != 422 || !strings.Contains(r.Steps[0].Words, "does not accept mail") ||
			r.Steps[1].What != history.StepTold || r.Steps[1].Text != bounced {
			t.Errorf("%s: what failed: %+v", when, r)
		}
		if b, r := s.one(bounced); b.BounceOf != id3 || r.Addr != "shop@mail.example.com" || r.State != history.Sent {
			t.Errorf("%s: its bounce: %+v", when, b)
		}
		if m, r := s.one("m4@app.example"); r.State != history.Refused || m.Reply != refused || r.Steps[0].Attempt.Status != 422 {
			t.Errorf("%s: what was refused: %+v", when, m)
		}
		list := s.trace("suppressed@example.net")
		isAtRcpt := func(m history.Mail) bool { return m.Reply == atRcpt && m.Recipients[0].State == history.Refused }
		if len(list.Matches) != 2 || !slices.ContainsFunc(list.Matches, isAtRcpt) { // both may have come in one millisecond
			t.Errorf("%s: refused at RCPT: %+v", when, list)
		}
		var first admin.Traced
		r := harness.Execute(t, s.env, "", "trace", "suppressed@example.net", "--state", "refused", "--since", "1h", "--limit", "1", "--json")
		if err := json.Unmarshal([]byte(r.Out), &first); err != nil || len(first.Matches) != 1 || !first.More {
			t.Errorf("%s: the first of them: %+v", when, r)
		}
		if r := harness.Execute(t, s.env, "", "trace", "suppressed@example.net", "--state", "sent"); r.Code == 0 {
			t.Errorf("%s: none of them was sent: %+v", when, r)
		}
		if r := harness.Execute(t, s.env, "", "trace", "06h"); r.Code == 0 || !strings.Contains(r.Err, "give at least four characters of the id") {
			t.Errorf("%+v", r)
		}
		if r := harness.Execute(t, s.env, "", "trace", "nobody@example.net"); r.Code == 0 || !strings.Contains(r.Err, "neither in the queue nor in the history") {
			t.Errorf("%s: %+v", when, r)
		}
	}
	check("running")
	s.Signal(syscall.SIGKILL)
	s.Exit()
	s.start()
	check("after a kill")
	s.stop()
	check("stopped")
	r := harness.Execute(t, s.env, "", "history", "--state", "refused", "--json")
	var found []history.Mail
	if err := json.Unmarshal([]byte(r.Out), &found); err != nil || len(found) != 2 {
		t.Errorf("%v %+v", err, r)
	}
	if r := harness.Execute(t, s.env, "", "history", "--subject", "about M1", "--since", "1h"); !strings.Contains(r.Out, "bob@example.net") || strings.Count(r.Out, "\n") != 2 {
		t.Errorf("%+v", r)
	}
}

// A name without a domain leads to the mail that it was given for, when it was
// completed by the sender's domain.
func TestTraceOfALocalName(t *testing.T) {
	s := newTold(t, "")
	if said := s.hand("cron", "m1", "root"); !strings.HasPrefix(said, "250 2.0.0 accepted ") {
		t.Fatal(said)
	}
	for _, name := range []string{"root", "Root", "cron", "root@mail.example.com"} {
		if m, r := s.one(name); m.MessageID != "m1@app.example" || r.Addr != "root@mail.example.com" {
			t.Errorf("%s leads to %+v", name, m)
		}
	}
	if r := harness.Execute(t, s.env, "", "trace", "roo"); r.Code == 0 {
		t.Errorf("a part of a name leads to %s", r.Out)
	}
}

// An alias leads to the mail that was for it, and a client that was told to come
// again is not among those that were refused.
func TestTraceOfAnAliasAndOfADeferredMail(t *testing.T) {
	s := newTold(t, "[aliases]\nroot = [\"ops@example.com\"]\n[queue]\nmax_mails = 1\n")
	if said := s.hand("shop@mail.example.com", "m1", "root"); !strings.HasPrefix(said, "250 2.0.0 accepted ") {
		t.Fatal(said)
	}
	if m, r := s.one("root"); m.MessageID != "m1@app.example" || r.Addr != "ops@example.com" {
		t.Errorf("root leads to %+v", m)
	}
	if said := s.hand("shop@mail.example.com", "m2", "down@example.net"); !strings.HasPrefix(said, "250 2.0.0 queued ") {
		t.Fatal(said)
	}
	if said := s.hand("shop@mail.example.com", "m3", "down@example.net"); !strings.HasPrefix(said, "452 4.3.1 ") {
		t.Fatal(said)
	}
	if m, r := s.one("m3@app.example"); r.State != history.Deferred || !strings.HasPrefix(m.Reply, "452 ") {
		t.Errorf("what was deferred: %+v", m)
	}
}

// awaitBounce waits until the sender of a mail was told, and returns by what.
func (s *told) awaitBounce(id string) string {
	s.t.Helper()
	for deadline := time.Now().Add(harness.Patience); time.Now().Before(deadline); {
		for _, r := range s.trace(id).Mail.Recipients {
			for _, step := range r.Steps {
				if step.What == history.StepTold {
					s.followed(step.Text)
					return step.Text
				}
			}
		}
	}
	s.t.Fatalf("nobody is told of %s", id)
	return ""
}

// TestForget: an address is gone from the answers and from the files, while
// the relay runs and what is in the queue goes on unrecorded.
func TestForget(t *testing.T) {
	s := newTold(t, "")
	s.hand("shop@mail.example.com", "m1", "carol.secret@example.net")
	s.hand("shop@mail.example.com", "m2", "carol.secret@example.net", "zoe@example.net")
	s.hand("carol.secret@example.net", "m3", "zoe@example.net")
	waiting := idInReply.FindString(s.hand("carol.secret@example.net", "m4", "down@example.net"))
	if r := harness.Execute(t, s.env, "", "forget", "carol.secret@example.net"); r.Code != terminal.ExitUsage {
		t.Errorf("nobody was asked: %+v", r)
	}
	r := harness.Execute(t, s.env, "", "forget", "Carol.Secret@example.net", "--yes", "--json")
	var done admin.Forgotten
	if err := json.Unmarshal([]byte(r.Out), &done); err != nil || !done.Clean || done.Mails != 3 || done.Recipients != 1 {
		t.Fatalf("%v %+v", err, r)
	}
	if !slices.ContainsFunc(done.Queued, func(q admin.QueuedMail) bool { return q.ID == waiting }) {
		t.Errorf("mail in the queue is not named: %+v", done.Queued)
	}
	gone := func(when string) {
		t.Helper()
		for _, name := range []string{"records.db", "records.db-wal"} {
			b, err := os.ReadFile(filepath.Join(s.dir, name))
			if err == nil && bytes.Contains(bytes.ToLower(b), []byte("carol.secret")) {
				t.Errorf("%s: the address is in %s", when, name)
			}
		}
		if r := harness.Execute(t, s.env, "", "history", "--json"); strings.Contains(r.Out, "carol") || !strings.Contains(r.Out, "zoe@example.net") {
			t.Errorf("%s: %+v", when, r)
		}
	}
	gone("afterwards")
	s.Await(s.Err, `id=`+waiting+`.*outcome=unavailable.*attempt=[4-9]`) // tried again, and not recorded
	gone("later")
	s.stop()
	gone("stopped")
	if m := s.trace(waiting); m.Queue == nil || m.Mail == nil {
		t.Errorf("the queue still tells of its mail: %+v", m)
	}
}

// TestHistoryAgreesWithTheProvider: after a random life with a restart in it,
// each call that the provider answered is an attempt in the history, with the
// same answer and the same id, and no attempt was made up.
func TestHistoryAgreesWithTheProvider(t *testing.T) {
	s := newTold(t, "")
	kinds := []string{"bob", "suppressed", "invalid", "down+1", "down+2", "noid+1", "badrequest", "toolarge"}
	var everyone []string
	for n := range 25 {
		var to []string
		for i := range 1 + rand.IntN(3) {
			to = append(to, fmt.Sprintf("%s@n%d-%d.example", kinds[rand.IntN(len(kinds))], n, i))
		}
		if reply := s.hand("shop@mail.example.com", fmt.Sprint("r", n), to...); idInReply.MatchString(reply) || strings.HasPrefix(reply, "55") {
			everyone = append(everyone, to...)
		} else {
			t.Fatalf("the client was told %q", reply)
		}
	}
	s.stop()
	s.start()
	for _, to := range everyone {
		s.followed(to)
		_, r := s.recipient(to)
		var calls, attempts []string
		for _, c := range harness.CallsTo(t, s.sandbox, to) {
			calls = append(calls, fmt.Sprint(c.Status, " ", c.MessageID))
		}
		for _, step := range r.Steps {
			if a := step.Attempt; a != nil && a.Status != 0 {
				attempts = append(attempts, fmt.Sprint(a.Status, " ", a.MessageID))
			}
		}
		if !slices.Equal(calls, attempts) {
			t.Errorf("%s: the provider had %q, the history has %q", to, calls, attempts)
		}
		if sent := len(calls) > 0 && strings.HasPrefix(calls[len(calls)-1], "200 msg"); sent != (r.State == history.Sent) {
			t.Errorf("%s is %s after %q", to, r.State, calls)
		}
	}
}

func (s *told) recipient(to string) (history.Mail, history.Recipient) {
	s.t.Helper()
	m := *s.trace(to).Mail
	i := slices.IndexFunc(m.Recipients, func(r history.Recipient) bool { return r.Addr == to })
	if i < 0 {
		s.t.Fatalf("trace %s tells %+v", to, m)
	}
	return m, m.Recipients[i]
}
