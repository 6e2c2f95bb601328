package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/sendmail"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// fakeSMTP answers each command with what the test says, by its beginning;
// "." is the end of a mail. "hang up" closes.
type fakeSMTP struct {
	net.Listener
	replies map[string]string
	wg      sync.WaitGroup

	mu   sync.Mutex
	said []string // by clients, with the mail's content
}

func fake(t *testing.T, network, address string, replies map[string]string) *fakeSMTP {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeSMTP{Listener: l, replies: replies}
	f.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() { f.serve(conn) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); f.wg.Wait() })
	return f
}

func (f *fakeSMTP) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	if !f.answer(conn, "greeting", "220 fake ESMTP") {
		return
	}
	content := false
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		line := lines.Text()
		f.mu.Lock()
		f.said = append(f.said, line)
		f.mu.Unlock()
		switch verb, _, _ := strings.Cut(line, " "); {
		case content && line != ".":
			continue
		case line == "DATA":
			content = f.says(line) == ""
			if !f.answer(conn, line, "354 go on") {
				return
			}
			continue
		case verb == "EHLO":
			line, verb = "EHLO", "250-fake\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE"
			if !f.answer(conn, line, verb) {
				return
			}
			continue
		}
		content = false
		if !f.answer(conn, line, "250 2.0.0 ok") || line == "QUIT" {
			return
		}
	}
}

func (f *fakeSMTP) says(line string) string {
	for begin, r := range f.replies {
		if strings.HasPrefix(line, begin) {
			return r
		}
	}
	return ""
}

func (f *fakeSMTP) answer(conn net.Conn, line, otherwise string) bool {
	r := f.says(line)
	if r == "hang up" {
		return false
	}
	if r == "" {
		r = otherwise
	}
	_, err := fmt.Fprintf(conn, "%s\r\n", r)
	return err == nil
}

// heard is what clients said, without the header that differs each time.
func (f *fakeSMTP) heard() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.said, "\n")
}

// sendmailTo runs sendmail in this process.
func sendmailTo(t *testing.T, server, stdin string, args ...string) harness.Result {
	t.Helper()
	var out, errs bytes.Buffer
	term := &terminal.Terminal{In: strings.NewReader(stdin), Out: &out, Err: &errs, Env: func(name string) (string, bool) {
		return map[string]string{"SMTP2REST_SMTP": server}[name], name == "SMTP2REST_SMTP"
	}}
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	code := cli.Run(ctx, term, append([]string{"sendmail"}, args...))
	return harness.Result{Out: out.String(), Err: errs.String(), Code: code}
}

// nobodyListens is an address where a daemon was.
func nobodyListens(t *testing.T) string {
	return harness.FreeAddress(t)
}

// Each class of replies has its exit code, at each command it can come at.
func TestSendmailExitCodes(t *testing.T) {
	for _, c := range []struct {
		at, reply string
		code      int
		says      string
	}{
		{"", "", 0, ""},
		{"greeting", "421 4.7.0 too many connections", 75, "421 4.7.0 too many connections"},
		{"greeting", "554 5.7.1 go away", 77, "554 5.7.1 go away"},
		{"greeting", "hang up", 75, "try again later"},
		{"greeting", "HTTP/1.1 400 Bad Request", 75, "try again later"},
		{"MAIL", "451 4.3.0 local error", 75, "sender <shop@example.com>: 451 4.3.0 local error"},
		{"MAIL", "553 5.7.1 <shop@example.com> is not allowed as a sender here", 77, "not allowed"},
		{"MAIL", "530 5.7.0 authentication required", 77, "530"},
		{"MAIL", "553 5.1.7 bad address syntax", 65, "553"},
		{"MAIL", "552 5.3.4 message too large", 65, "552"},
		{"MAIL", "503 5.5.1 what", 76, "503"},
		{"RCPT TO:<eve", "550 5.1.1 no such user", 67, "recipient <eve@example.net>: 550 5.1.1 no such user"},
		{"RCPT TO:<eve", "550 5.7.1 suppressed", 77, "recipient <eve@example.net>: 550 5.7.1 suppressed"},
		{"RCPT TO:<eve", "450 4.2.1 later", 75, "450 4.2.1"},
		{"RCPT TO:<bob", "452 4.5.3 too many recipients", 75, "452 4.5.3"},
		{"RCPT TO:<eve", "hang up", 75, "recipient <eve@example.net>"},
		{"RCPT", "550 nobody", 67, "550 nobody"},
		{"DATA", "554 5.5.1 no", 76, "mail: 554 5.5.1"},
		{"DATA", "451 4.3.2 later", 75, "mail: 451"},
		{".", "554 5.6.0 refused by the API: bad", 65, "mail: 554 5.6.0 refused by the API: bad"},
		{".", "550 5.7.1 suppressed: <bob@example.net>", 77, "mail: 550 5.7.1"},
		{".", "452 4.3.1 out of storage", 75, "mail: 452 4.3.1"},
		{".", "554 what", 69, "mail: 554 what"},
		{".", "hang up", 75, "mail: the daemon does not go on, try again later"},
		{"QUIT", "hang up", 0, ""}, // the mail is taken
	} {
		t.Run(c.at+" "+c.reply, func(t *testing.T) {
			replies := map[string]string{c.at: c.reply}
			if c.at == "" {
				replies = nil
			}
			f := fake(t, "tcp", "127.0.0.1:0", replies)
			got := sendmailTo(t, f.Addr().String(), "Subject: s\n\nb\n", "-i", "-f", "shop@example.com", "bob@example.net", "eve@example.net")
			if got.Code != c.code || !strings.Contains(got.Err, c.says) || strings.Count(got.Err, "\n") != min(c.code, 1) {
				t.Errorf("%d, %q; want %d, %q", got.Code, got.Err, c.code, c.says)
			}
			if refused := strings.HasPrefix(c.at, "RCPT"); refused == strings.Contains(f.heard(), "DATA") && c.at != "greeting" && c.at != "MAIL" {
				t.Errorf("one recipient was refused: %v, and the client said\n%s", refused, f.heard())
			}
		})
	}
}

func TestSendmailWithoutADaemon(t *testing.T) {
	got := sendmailTo(t, nobodyListens(t), "Subject: s\n\nb\n", "root")
	if got.Code != 75 || !strings.Contains(got.Err, "sendmail: smtp2rest does not answer at 127.0.0.1:") || got.Out != "" {
		t.Errorf("%+v", got)
	}
	got = sendmailTo(t, filepath.Join(t.TempDir(), "socket"), "Subject: s\n\nb\n", "root")
	if got.Code != 75 {
		t.Errorf("%+v", got)
	}
	got = sendmailTo(t, nobodyListens(t), "", "-bs")
	if got.Code != 75 || !strings.HasPrefix(got.Out, "421 4.3.2 ") {
		t.Errorf("%+v", got)
	}
}

func TestSendmailIsWrong(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "shadow")
	if err := os.WriteFile(secret, []byte("root:$6$planted:19000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		server, stdin, args string
		code                int
		says                string
	}{
		{"", "", "", 64, "no recipients"},
		{"", "", "-bd", 64, "would start a daemon"},
		{"", "", "-y root", 64, "no option"},
		{"", "To: a b c\n\n", "-t", 65, "not an address"},
		{"", "Subject: s\n\n", "-t", 65, "no recipients in To, Cc or Bcc"},
		{"nowhere", "", "root", 78, "neither host:port nor"},
		{"", "", "-C /nonexistent root", 78, "/nonexistent"},
		{"", "", "-C " + secret + " root", 78, "line 1"},
	} {
		got := sendmailTo(t, c.server, c.stdin, strings.Fields(c.args)...)
		if got.Code != c.code || !strings.Contains(got.Err, c.says) || strings.Contains(got.Err, "planted") {
			t.Errorf("%s: %+v, want %d, %q", c.args, got, c.code, c.says)
		}
	}
}

// What goes over the wire, whole.
func TestSendmailDialogue(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	f := fake(t, "unix", socket, nil)
	conf := filepath.Join(t.TempDir(), "sendmail.conf")
	if err := os.WriteFile(conf, []byte("server = "+socket+"\ndomain = web1.example.com\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := sendmailTo(t, "", "To: bob@example.net\nBcc: eve@example.net\nSubject: s\nFrom: x@y\nDate: d\nMessage-ID: <m>\n\n.\n..\nend", "-v", "-t", "-i", "-f", "cron", "-C", conf)
	if got.Code != 0 || !strings.Contains(got.Out, "C: RCPT TO:<eve@example.net>") {
		t.Fatalf("%+v", got)
	}
	want := "EHLO web1.example.com\nMAIL FROM:<cron@web1.example.com> BODY=8BITMIME SIZE=84\nRCPT TO:<bob@example.net>\nRCPT TO:<eve@example.net>\nDATA\n" +
		"To: bob@example.net\nSubject: s\nFrom: x@y\nDate: d\nMessage-ID: <m>\n\n..\n...\nend\n.\nQUIT"
	if f.heard() != want {
		t.Errorf("the client said\n%s\nwant\n%s", f.heard(), want)
	}
}

// A daemon that takes a hundred recipients at once gets the rest in a second
// mail, and a failure there says who has the first.
func TestSendmailInSeveralTransactions(t *testing.T) {
	f := fake(t, "tcp", "127.0.0.1:0", map[string]string{"RCPT TO:<c@": "452 4.5.3 too many recipients"})
	got := sendmailTo(t, f.Addr().String(), "b\n", "a@x", "b@x", "c@x")
	if got.Code != 75 || !strings.Contains(got.Err, "(it was sent to a@x, b@x)") || strings.Count(f.heard(), "DATA") != 1 {
		t.Errorf("%+v after\n%s", got, f.heard())
	}
}

func TestSendmailWithAnAddressBeyondASCII(t *testing.T) {
	f := fake(t, "tcp", "127.0.0.1:0", nil) // which has no SMTPUTF8
	if got := sendmailTo(t, f.Addr().String(), "b\n", "zoë@example.net"); got.Code != 69 || !strings.Contains(got.Err, "not ASCII") {
		t.Errorf("%+v", got)
	}
	s := harness.ServeSandbox(t, "")
	if got := sendmailTo(t, s.SMTP, "b\n", "zoë@example.net"); got.Code != 0 {
		t.Errorf("%+v", got)
	}
}

// 150 recipients are more than the daemon takes at once.
func TestSendmailToManyThroughTheRelay(t *testing.T) {
	s := harness.ServeSandbox(t, "[queue]\nmode = \"disk\"\n")
	var to []string
	for i := range 150 {
		to = append(to, fmt.Sprintf("u%d@example.net", i))
	}
	if got := sendmailTo(t, s.SMTP, "To: "+strings.Join(to, ",\n ")+"\n\nb\n", "-t"); got.Code != 0 {
		t.Fatalf("%+v", got)
	}
	if n := len(harness.CallsTo(t, s.Sandbox, "u149@example.net")); n != 1 {
		t.Errorf("the last one got it %d times", n)
	}
}

func TestSendmailSpeaksSMTP(t *testing.T) {
	s := harness.ServeSandbox(t, "")
	got := sendmailTo(t, s.SMTP, "EHLO x\r\nMAIL FROM:<zoe@sandbox.example>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\nSubject: s\r\n\r\nb\r\n.\r\nQUIT\r\n", "-bs")
	if got.Code != 0 || !regexp.MustCompile(`(?s)^220 .*\r\n354 .*\r\n250 2\.0\.0 accepted .*\r\n221 `).MatchString(got.Out) {
		t.Errorf("%+v", got)
	}
}

// The program that is called sendmail, as cron calls it.
func TestSendmailByItsName(t *testing.T) {
	s := harness.ServeSandbox(t, "")
	env := harness.Environ(t, "SMTP2REST_SMTP="+s.SMTP)
	mail := "From: root (Cron Daemon)\nTo: bob@example.net\nSubject: Cron <root@web1> backup.sh\nContent-Type: text/plain; charset=UTF-8\n\n3 files copied\n.\nGrüße\n"
	got := harness.ExecuteTool(t, env, mail, harness.Linked(t, "sendmail"), strings.Fields("-FCronDaemon -i -odi -oem -oi -t -f root")...)
	if got.Code != 0 || got.All() != "" {
		t.Fatalf("%+v", got)
	}
	calls := harness.CallsTo(t, s.Sandbox, "bob@example.net")
	if len(calls) != 1 || calls[0].Body.Subject != "Cron <root@web1> backup.sh" || calls[0].Body.From.Name != "Cron Daemon" || calls[0].Body.Text != "3 files copied\n.\nGrüße\n" {
		t.Errorf("%+v", calls)
	}
	got = harness.ExecuteTool(t, env, "b\n", harness.Linked(t, "sendmail"), "suppressed@example.net")
	if got.Code != 77 || !strings.Contains(got.Err, "sendmail: mail: 550 5.7.1 suppressed") {
		t.Errorf("%+v", got)
	}
	got = harness.ExecuteTool(t, env, "", harness.Linked(t, "mailq"))
	if got.Code != 69 && got.Code != 0 || strings.Contains(got.Err, "no recipients") {
		t.Errorf("mailq: %+v", got)
	}
}

// mailq prints the queue of the daemon that the settings lead to.
func TestMailq(t *testing.T) {
	env := harness.Environ(t, "NEXUSPROMAIL_API_KEY=k", "FROM_EMAIL=relay@sandbox.example")
	p := harness.Launch(t, env, "serve", "--config", harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n[api]\nurl = \"http://"+nobodyListens(t)+"\"\n"))
	smtp := p.Await(p.Err, `listening.*address=(127\.0\.0\.1:\d+)`)
	if got := sendmailTo(t, smtp, "b\n", "bob@example.net"); got.Code != 0 {
		t.Fatalf("%+v", got)
	}
	got := harness.ExecuteTool(t, env, "", harness.Linked(t, "mailq"))
	if got.Code != 0 || !strings.Contains(got.Out, "bob@example.net") {
		t.Errorf("%+v", got)
	}
	if flushed := harness.ExecuteTool(t, env, "", harness.Linked(t, "sendmail"), "-q"); flushed.Code != 0 {
		t.Errorf("%+v", flushed)
	}
}

func TestCalledAs(t *testing.T) {
	for called, want := range map[string]string{
		"/usr/sbin/sendmail -t": "sendmail -t", "mailq -v": "sendmail -bp -v", "/usr/bin/newaliases": "sendmail -bi",
		"smtp2rest serve": "serve", "smtp2rest": "", "": "",
	} {
		if got := sendmail.CalledAs(strings.Fields(called)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %q", called, got)
		}
	}
}

// A local name goes all the way: completed in MAIL and RCPT, resolved by the
// table and the file, which is read again when it changes.
func TestLocalNamesThroughTheRelay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "aliases")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("postmaster: root\n")
	p := harness.Launch(t, harness.Environ(t), "serve", "--sandbox", "--config", harness.ConfigFile(t,
		"alias_file = \""+file+"\"\nqualify_domain = \"sandbox.example\"\n[aliases]\nroot = [\"ops@example.net\", \"zoe@example.net\"]\n[[listener]]\naddress = \"127.0.0.1:0\"\n"))
	s := harness.Relay{Process: p, SMTP: p.Await(p.Out, `SMTP +(127\.0\.0\.1:\d+)`), Sandbox: p.Await(p.Out, `sandbox +http://(127\.0\.0\.1:\d+)/api`)}
	harness.Dial(t, s.SMTP).Do("", "220", "EHLO x", "250", "MAIL FROM:<root>", "250", "RCPT TO:<MAILER-DAEMON>", "250", "RCPT TO:<postmaster>", "250",
		"DATA", "354", "From: root\r\nSubject: s\r\n\r\nb\r\n.", "250 2.0.0 accepted")
	for to, n := range map[string]int{"ops@example.net": 1, "zoe@example.net": 1, "MAILER-DAEMON@sandbox.example": 1} {
		calls := harness.CallsTo(t, s.Sandbox, to)
		if len(calls) != n || calls[0].Body.From.Email != "root@sandbox.example" {
			t.Errorf("%s got %+v", to, calls)
		}
	}
	write("postmaster: root\nbackup: eve@example.net\n")
	if got := sendmailTo(t, s.SMTP, "Subject: s\n\nb\n", "backup"); got.Code != 0 || len(harness.CallsTo(t, s.Sandbox, "eve@example.net")) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestNewaliases(t *testing.T) {
	file := filepath.Join(t.TempDir(), "aliases")
	for text, want := range map[string]harness.Result{
		"root: ops@example.net\n": {Out: file + ": all good; aliases: 1.\n"},
		"root: |/bin/x\n":         {Err: "sendmail: " + file + ": line 1: root: \"|/bin/x\" is a program: an alias leads to addresses only\n", Code: 78},
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := harness.ExecuteTool(t, harness.Environ(t), "", harness.Linked(t, "newaliases"), "-oA"+file); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if got := harness.ExecuteTool(t, harness.Environ(t), "", harness.Linked(t, "newaliases")); got.Code != 78 || !strings.Contains(got.Err, "no aliases were checked") {
		t.Errorf("%+v", got)
	}
	if got := harness.ExecuteTool(t, harness.Environ(t), "", harness.Linked(t, "newaliases"), "-oA"+file+"x"); got.Code != 78 || !strings.Contains(got.Err, "no such file") {
		t.Errorf("%+v", got)
	}
}
