package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/serve"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
)

// call is what a sandbox lists of a call.
type call struct {
	To        string          `json:"to"`
	Status    int             `json:"status"`
	MessageID string          `json:"message_id"`
	Raw       json.RawMessage `json:"body"`

	Body struct {
		From, ReplyTo       struct{ Email, Name string }
		Subject, HTML, Text string
	} `json:"-"`
}

// callsTo asks a sandbox over HTTP, as a person would.
func callsTo(t *testing.T, sandbox, to string) []call {
	t.Helper()
	resp, err := http.Get("http://" + sandbox + "/sandbox/calls?to=" + url.QueryEscape(to))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	defer http.DefaultClient.CloseIdleConnections()
	var calls []call
	if err := json.NewDecoder(resp.Body).Decode(&calls); err != nil {
		t.Fatal(err)
	}
	for i := range calls {
		if err := json.Unmarshal(calls[i].Raw, &calls[i].Body); err != nil {
			t.Fatal(err)
		}
	}
	return calls
}

// The two commands of a newcomer: serve --sandbox and, in another terminal,
// what it says to try.
func TestServeSandboxAndWhatItSaysToTry(t *testing.T) {
	s := serveSandbox(t, "")
	for _, want := range []string{"send --server " + s.smtp + " --to bob@example.net", "curl http://" + s.sandbox + "/sandbox/calls"} {
		if !strings.Contains(s.out.String(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
	r := execute(t, environ(t), "", "send", "--server", s.smtp, "--to", "bob@example.net", "--subject", "Grüße", "--text", "Schöne Grüße")
	if r.code != 0 || !regexp.MustCompile(`(?m)^  S: 250 2\.0\.0 accepted [0-9a-v]{20} msg_`).MatchString(r.out) {
		t.Errorf("%+v", r)
	}
	calls := callsTo(t, s.sandbox, "bob@example.net")
	if len(calls) != 1 || calls[0].Status != 200 || calls[0].Body.Subject != "Grüße" || strings.TrimSpace(calls[0].Body.Text) != "Schöne Grüße" ||
		!strings.Contains(r.out, calls[0].MessageID) {
		t.Errorf("the sandbox got %+v, the client was told\n%s", calls, r.out)
	}
	r = execute(t, environ(t), "", "send", "--server", s.smtp, "--to", "suppressed@example.net,eve@example.net", "--from", "shop@sandbox.example")
	if r.code != 1 || !strings.Contains(r.out, "except <suppressed@example.net>") {
		t.Errorf("%+v", r)
	}
	r = execute(t, environ(t), "", "send", "--server", s.smtp, "--to", "suppressed@example.net,eve@example.net")
	if r.code != 1 || !strings.Contains(r.out, "550 5.7.1 <suppressed@example.net>") || !strings.Contains(r.out, "250 2.0.0 accepted") || !strings.Contains(r.err, "not everything was taken") {
		t.Errorf("%+v", r)
	}
	s.signal(syscall.SIGINT)
	if code := s.exit(); code != 0 {
		t.Errorf("Ctrl-C ends it with %d", code)
	}
}

// Whoever's port 8525 is taken must not be shown somebody else's calls.
func TestServeSandboxSaysWhatIsTaken(t *testing.T) {
	if l, err := net.Listen("tcp", "127.0.0.1:8525"); err == nil {
		defer func() { _ = l.Close() }()
	} // else somebody has it already
	env := environ(t)
	p := launch(t, env, "serve", "--sandbox", "--config", configFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n"))
	box := p.await(p.out, `sandbox +http://(127\.0\.0\.1:\d+)/api`)
	p.await(p.err, `(note: 127\.0\.0\.1:8525 is taken by another program, so the sandbox is at `+regexp.QuoteMeta(box)+`)`)
	p.await(p.err, `(note: environment SMTP2REST_DATA_DIR is not used: with --sandbox the queue is in a directory of its own and thrown away)`)
	p.await(p.out, `(curl http://`+regexp.QuoteMeta(box)+`/sandbox/calls)`)
	line := strings.Fields(p.await(p.out, `WEBHOOK_SECRET=(\S+ .*webhook test --url \S+)`))
	wantOut(t, execute(t, append(env, "WEBHOOK_SECRET="+line[0]), "", "webhook", "test", "--url", line[len(line)-1]), 0, "the event was taken", "")
}

// The scratch queue of a sandboxed relay goes with it.
func TestServeSandboxLeavesNothingBehind(t *testing.T) {
	env := environ(t)
	p := launch(t, env, "serve", "--sandbox", "--config", configFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n"))
	p.await(p.out, `SMTP +(127\.0\.0\.1:\d+)`)
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	home := strings.TrimPrefix(env[1], "HOME=")
	if left, err := filepath.Glob(filepath.Join(home, "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// sandboxProcess runs the sandbox alone.
func sandboxProcess(t *testing.T, args ...string) (p *process, env []string, address string) {
	t.Helper()
	p = launch(t, environ(t), append([]string{"sandbox", "--listen", "127.0.0.1:0"}, args...)...)
	line := p.await(p.out, `(?m)^ +(NEXUSPROMAIL_API_URL=\S+ NEXUSPROMAIL_API_KEY=\S+) `)
	env = append(strings.Fields(line), "FROM_EMAIL=hello@mail.example.com", "FROM_NAME=Your App", "SMTP2REST_DATA_DIR="+filepath.Join(t.TempDir(), "data"))
	return p, env, p.await(p.out, `http://(127\.0\.0\.1:\d+)/`)
}

// A file for the listener, the vendor's variables for the rest: what the
// sandbox says to point a relay at it with is enough.
func TestServeWithAFileAndTheEnvironment(t *testing.T) {
	_, env, sandbox := sandboxProcess(t, "--key", plantedKey)
	file := configFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\nlevel = \"debug\"\n")
	relayOf(t, env, sandbox, "serve", "--config", file)
}

// As a sidecar has it: no file at all.
func TestServeWithTheEnvironmentAlone(t *testing.T) {
	_, env, sandbox := sandboxProcess(t, "--key", plantedKey)
	relayOf(t, env, sandbox, "serve")
}

// relayOf runs a relay, sends a mail from an address that is not verified, and
// stops it.
func relayOf(t *testing.T, env []string, sandbox string, args ...string) {
	t.Helper()
	p := launch(t, environ(t, env...), args...)
	m := p.err.await(regexp.MustCompile(`"?msg"?[=:]"?listening"?[ ,]"?address"?[=:]"?(127\.0\.0\.1:\d+)`))
	if m == nil {
		if strings.Contains(p.err.String(), "uses this port") {
			t.Skip("port 2525, the default, is taken on this machine: ", p.err)
		}
		t.Fatal("it does not listen")
	}
	r := execute(t, environ(t), "", "send", "--server", m[1], "--from", "cron@web1", "--to", "bob@example.net")
	if r.code != 0 {
		t.Errorf("%+v", r)
	}
	calls := callsTo(t, sandbox, "bob@example.net")
	if len(calls) != 1 || calls[0].Status != 200 || calls[0].Body.From.Email != "hello@mail.example.com" {
		t.Errorf("the sandbox got %+v", calls)
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if said := p.out.String() + p.err.String(); strings.Contains(said, "PlantedKey") || !strings.Contains(said, "stopped") {
		t.Errorf("it says\n%s", said)
	}
}

// Another program's port is told as such, and whose it is.
func TestServeOnAPortThatIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	r := execute(t, environ(t, "NEXUSPROMAIL_API_KEY="+plantedKey, "FROM_EMAIL=hello@mail.example.com"), "",
		"serve", "--config", configFile(t, fmt.Sprintf("[[listener]]\naddress = %q\n", l.Addr())))
	if r.code != 1 || !strings.Contains(r.err, fmt.Sprintf("(pid %d) uses this port", os.Getpid())) || strings.Contains(r.all(), "PlantedKey") {
		t.Errorf("%+v", r)
	}
}

// open gets as far as the content.
func (c *client) open(to string) {
	c.t.Helper()
	c.do("", "220 ", "EHLO client.test", "250 ", "MAIL FROM:<shop@sandbox.example>", "250 ", "RCPT TO:<"+to+">", "250 ", "DATA", "354 ")
}

// SIGTERM: idle clients are told, a mail that is being handed over is finished,
// and the exit code is 0.
func TestSIGTERMWithClientsConnected(t *testing.T) {
	s := serveSandbox(t, "")
	idle, busy := dial(t, s.smtp), dial(t, s.smtp)
	idle.do("", "220 ")
	busy.open("bob@example.net")
	s.signal(syscall.SIGTERM)
	idle.do("", "421 4.3.2 ")
	busy.do("From: shop@sandbox.example\r\nSubject: s\r\n\r\nb\r\n.", "250 2.0.0 accepted ")
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A second signal does not wait for anybody.
func TestASecondSignalEndsItAtOnce(t *testing.T) {
	s := serveSandbox(t, "")
	idle, busy := dial(t, s.smtp), dial(t, s.smtp)
	idle.do("", "220 ")
	busy.open("bob@example.net") // and says no more
	s.signal(syscall.SIGTERM)
	idle.do("", "421 4.3.2 ") // the first has been heard
	begin := time.Now()
	s.signal(syscall.SIGTERM) // as timeout(1) does: not meant
	s.signal(syscall.SIGINT)
	if code := s.exit(); code != terminal.ExitFailed {
		t.Errorf("exit code %d, want %d", code, terminal.ExitFailed)
	}
	if took := time.Since(begin); took > serve.DrainTime/2 {
		t.Errorf("it took %s: the drain was waited for", took)
	}
}

// The sandbox's flags do what they say.
func TestSandboxFlags(t *testing.T) {
	p, _, address := sandboxProcess(t, "--key", "k1", "--path", "/v1/api/send", "--fail-500", "1")
	const body = `{"to":{"email":"bob@example.net"},"from":{"email":"a@b.example"},"subject":"s","html":"h"}`
	for _, tt := range []struct {
		path, key string
		status    int
	}{
		{"/api/v1/api/send", "k1", 500},
		{"/api/v1/api/send", "sandbox-key", 401},
		{"/api/v1/transactional/send", "k1", 404},
	} {
		req, err := http.NewRequest(http.MethodPost, "http://"+address+tt.path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+tt.key)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%s with %s is answered %d, want %d", tt.path, tt.key, resp.StatusCode, tt.status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// What the help of the sandbox lists is what it does; its own tests play each.
func TestSandboxHelpListsTheMagicRecipients(t *testing.T) {
	out := execute(t, environ(t), "", "sandbox", "--help").out
	for _, magic := range []string{"suppressed@", "invalid@", "ratelimited", "down", "slow", "timeout", "hardbounce@", "complaint@"} {
		if !regexp.MustCompile(`(?m)^  ` + magic).MatchString(out) {
			t.Errorf("%s is not listed", magic)
		}
	}
}

var (
	anyPort     = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	anyID       = regexp.MustCompile(`\b[0-9a-v]{20}\b`)
	anyMsgID    = regexp.MustCompile(`\bmsg_[0-9a-z]+`)
	anyDuration = regexp.MustCompile(`(?m)^  took .*$`)
	anyDate     = regexp.MustCompile(`20\d\d-\d\d-\d\d|\d{1,2} [A-Z][a-z]+ 20\d\d`)
)

// normal is a transcript without what differs from run to run.
func normal(s string) string {
	s = anyPort.ReplaceAllString(s, "127.0.0.1:PORT")
	s = anyMsgID.ReplaceAllString(s, "msg_ID")
	s = anyID.ReplaceAllString(s, "ID")
	s = anyDuration.ReplaceAllString(s, "  took TIME")
	return anyDate.ReplaceAllString(s, "DATE")
}

// The demo goes as it should, says so with exit code 0, and reads as it does in
// the README, which shows a real run.
func TestDemo(t *testing.T) {
	env := environ(t)
	r := execute(t, env, "", "demo")
	if r.code != 0 || r.err != "" {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	golden(t, "demo.txt", normal(r.out))
	home := strings.TrimPrefix(env[1], "HOME=")
	if left, err := filepath.Glob(filepath.Join(home, "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}

	path := filepath.Join("..", "..", "docs", "demo.md")
	before, block, after := demoIn(t, path)
	if *update && normal(block) != normal(r.out) {
		if err := os.WriteFile(path, []byte(before+r.out+after), 0o644); err != nil {
			t.Fatal(err)
		}
		block = r.out
	}
	if got, want := normal(block), normal(r.out); got != want {
		t.Errorf("docs/demo.md shows another run than the demo's, at %s\n'go test ./cmd/smtp2rest -update' writes it anew", firstDifference(got, want))
	}
	_, excerpt, _ := demoIn(t, filepath.Join("..", "..", "README.md"))
	if got := normal(excerpt); !strings.Contains(normal(r.out), got) {
		t.Errorf("README.md shows a scene that the demo has not: copy it from docs/demo.md\n%s", got)
	}
}

// demoIn cuts out the transcript in a document.
func demoIn(t *testing.T, path string) (before, block, after string) {
	t.Helper()
	const open, end = "<!-- demo -->\n```\n", "\n```\n"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(text)
	i := strings.Index(doc, open)
	if i < 0 {
		t.Fatalf("%s has no %q", path, open)
	}
	i += len(open)
	n := strings.Index(doc[i:], end)
	if n < 0 {
		t.Fatalf("the demo's block in %s has no end", path)
	}
	return doc[:i], doc[i : i+n+1], doc[i+n+1:]
}
