package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/serve"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// The two commands of a newcomer: serve --sandbox and, in another terminal,
// what it says to try.
func TestServeSandboxAndWhatItSaysToTry(t *testing.T) {
	s := harness.ServeSandbox(t, "")
	for _, want := range []string{"send --server " + s.SMTP + " --to bob@example.net", "curl http://" + s.Sandbox + "/sandbox/calls"} {
		if !strings.Contains(s.Out.String(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
	r := harness.Execute(t, harness.Environ(t), "", "send", "--server", s.SMTP, "--to", "bob@example.net", "--subject", "Grüße", "--text", "Schöne Grüße")
	if r.Code != 0 || !regexp.MustCompile(`(?m)^  S: 250 2\.0\.0 accepted [0-9a-v]{20} msg_`).MatchString(r.Out) {
		t.Errorf("%+v", r)
	}
	calls := harness.CallsTo(t, s.Sandbox, "bob@example.net")
	if len(calls) != 1 || calls[0].Status != 200 || calls[0].Body.Subject != "Grüße" || strings.TrimSpace(calls[0].Body.Text) != "Schöne Grüße" ||
		!strings.Contains(r.Out, calls[0].MessageID) {
		t.Errorf("the sandbox got %+v, the client was told\n%s", calls, r.Out)
	}
	r = harness.Execute(t, harness.Environ(t), "", "send", "--server", s.SMTP, "--to", "suppressed@example.net,eve@example.net", "--from", "shop@sandbox.example")
	if r.Code != 1 || !strings.Contains(r.Out, "except <suppressed@example.net>") {
		t.Errorf("%+v", r)
	}
	r = harness.Execute(t, harness.Environ(t), "", "send", "--server", s.SMTP, "--to", "suppressed@example.net,eve@example.net")
	if r.Code != 1 || !strings.Contains(r.Out, "550 5.7.1 <suppressed@example.net>") || !strings.Contains(r.Out, "250 2.0.0 accepted") || !strings.Contains(r.Err, "not every recipient was accepted") {
		t.Errorf("%+v", r)
	}
	s.Signal(syscall.SIGINT)
	if code := s.Exit(); code != 0 {
		t.Errorf("Ctrl-C ends it with %d", code)
	}
}

// Whoever's port 8525 is taken must not be shown somebody else's calls.
func TestServeSandboxSaysWhatIsTaken(t *testing.T) {
	if l, err := net.Listen("tcp", "127.0.0.1:8525"); err == nil {
		defer func() { _ = l.Close() }()
	} // else somebody has it already
	env := harness.Environ(t)
	p := harness.Launch(t, env, "serve", "--sandbox", "--config", harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n"))
	box := p.Await(p.Out, `sandbox +http://(127\.0\.0\.1:\d+)/api`)
	p.Await(p.Err, `(note: 127\.0\.0\.1:8525 is taken by another program, so the sandbox is at `+regexp.QuoteMeta(box)+`)`)
	p.Await(p.Err, `(note: environment SMTP2REST_DATA_DIR is not used: with --sandbox the queue is in a directory of its own and thrown away)`)
	p.Await(p.Out, `(curl http://`+regexp.QuoteMeta(box)+`/sandbox/calls)`)
	line := strings.Fields(p.Await(p.Out, `WEBHOOK_SECRET=(\S+ .*webhook test --url \S+)`))
	wantOut(t, harness.Execute(t, append(env, "WEBHOOK_SECRET="+line[0]), "", "webhook", "test", "--url", line[len(line)-1]), 0, "the event was taken", "")
}

// The scratch queue of a sandboxed relay goes with it.
func TestServeSandboxLeavesNothingBehind(t *testing.T) {
	env := harness.Environ(t)
	p := harness.Launch(t, env, "serve", "--sandbox", "--config", harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n"))
	p.Await(p.Out, `SMTP +(127\.0\.0\.1:\d+)`)
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	home := strings.TrimPrefix(env[1], "HOME=")
	if left, err := filepath.Glob(filepath.Join(home, "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// A file for the listener, the vendor's variables for the rest: what the
// sandbox says to point a relay at it with is enough.
func TestServeWithAFileAndTheEnvironment(t *testing.T) {
	_, env, sandbox := harness.SandboxProcess(t, "--key", harness.PlantedKey)
	file := harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\nlevel = \"debug\"\n")
	relayOf(t, env, sandbox, "serve", "--config", file)
}

// As a sidecar has it: no file at all.
func TestServeWithTheEnvironmentAlone(t *testing.T) {
	_, env, sandbox := harness.SandboxProcess(t, "--key", harness.PlantedKey)
	relayOf(t, env, sandbox, "serve")
}

// relayOf runs a relay, sends a mail from an address that is not verified, and
// stops it.
func relayOf(t *testing.T, env []string, sandbox string, args ...string) {
	t.Helper()
	p := harness.Launch(t, harness.Environ(t, env...), args...)
	m := p.Err.Await(regexp.MustCompile(`"?msg"?[=:]"?listening"?[ ,]"?address"?[=:]"?(127\.0\.0\.1:\d+)`))
	if m == nil {
		if strings.Contains(p.Err.String(), "uses this port") {
			t.Skip("port 2525, the default, is taken on this machine: ", p.Err)
		}
		t.Fatal("it does not listen")
	}
	r := harness.Execute(t, harness.Environ(t), "", "send", "--server", m[1], "--from", "cron@web1", "--to", "bob@example.net")
	if r.Code != 0 {
		t.Errorf("%+v", r)
	}
	calls := harness.CallsTo(t, sandbox, "bob@example.net")
	if len(calls) != 1 || calls[0].Status != 200 || calls[0].Body.From.Email != "hello@mail.example.com" {
		t.Errorf("the sandbox got %+v", calls)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if said := p.Out.String() + p.Err.String(); strings.Contains(said, "PlantedKey") || !strings.Contains(said, "stopped") {
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
	r := harness.Execute(t, harness.Environ(t, "NEXUSPROMAIL_API_KEY="+harness.PlantedKey, "FROM_EMAIL=hello@mail.example.com"), "",
		"serve", "--config", harness.ConfigFile(t, fmt.Sprintf("[[listener]]\naddress = %q\n", l.Addr())))
	if r.Code != 1 || !strings.Contains(r.Err, fmt.Sprintf("(pid %d) uses this port", os.Getpid())) || strings.Contains(r.All(), "PlantedKey") {
		t.Errorf("%+v", r)
	}
}

// SIGTERM: idle clients are told, a mail that is being handed over is finished,
// and the exit code is 0.
func TestSIGTERMWithClientsConnected(t *testing.T) {
	s := harness.ServeSandbox(t, "")
	idle, busy := harness.Dial(t, s.SMTP), harness.Dial(t, s.SMTP)
	idle.Do("", "220 ")
	busy.Open("bob@example.net")
	s.Signal(syscall.SIGTERM)
	idle.Do("", "421 4.3.2 ")
	busy.Do("From: shop@sandbox.example\r\nSubject: s\r\n\r\nb\r\n.", "250 2.0.0 accepted ")
	if code := s.Exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A second signal does not wait for anybody.
func TestASecondSignalEndsItAtOnce(t *testing.T) {
	s := harness.ServeSandbox(t, "")
	idle, busy := harness.Dial(t, s.SMTP), harness.Dial(t, s.SMTP)
	idle.Do("", "220 ")
	busy.Open("bob@example.net") // and says no more
	s.Signal(syscall.SIGTERM)
	idle.Do("", "421 4.3.2 ") // the first has been heard
	begin := time.Now()
	s.Signal(syscall.SIGTERM) // as timeout(1) does: not meant
	s.Signal(syscall.SIGINT)
	if code := s.Exit(); code != terminal.ExitFailed {
		t.Errorf("exit code %d, want %d", code, terminal.ExitFailed)
	}
	if took := time.Since(begin); took > serve.DrainTime/2 {
		t.Errorf("it took %s: the drain was waited for", took)
	}
}

// The sandbox's flags do what they say.
func TestSandboxFlags(t *testing.T) {
	p, _, address := harness.SandboxProcess(t, "--key", "k1", "--path", "/v1/api/send", "--fail-500", "1")
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
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// What the help of the sandbox lists is what it does; its own tests play each.
func TestSandboxHelpListsTheMagicRecipients(t *testing.T) {
	out := harness.Execute(t, harness.Environ(t), "", "sandbox", "--help").Out
	for _, magic := range []string{"suppressed@", "invalid@", "ratelimited", "down", "slow", "timeout", "hardbounce@", "complaint@"} {
		if !regexp.MustCompile(`(?m)^  ` + magic).MatchString(out) {
			t.Errorf("%s is not listed", magic)
		}
	}
}

// The sandbox plays the provider that is named.
func TestSandboxOfAnUnknownProvider(t *testing.T) {
	r := harness.Execute(t, harness.Environ(t), "", "sandbox", "--provider", "nexusmail")
	if r.Code != 2 || !strings.Contains(r.Err, `there is no provider "nexusmail"; did you mean "nexuspromail"?`) {
		t.Errorf("%+v", r)
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
	env := harness.Environ(t)
	r := harness.Execute(t, env, "", "demo")
	if r.Code != 0 || r.Err != "" {
		t.Errorf("exit code %d\n%s%s", r.Code, r.Out, r.Err)
	}
	golden(t, "demo.txt", normal(r.Out))
	home := strings.TrimPrefix(env[1], "HOME=")
	if left, err := filepath.Glob(filepath.Join(home, "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}

	path := filepath.Join("..", "..", "docs", "demo.md")
	before, block, after := demoIn(t, path)
	if *update && normal(block) != normal(r.Out) {
		if err := os.WriteFile(path, []byte(before+r.Out+after), 0o644); err != nil {
			t.Fatal(err)
		}
		block = r.Out
	}
	if got, want := normal(block), normal(r.Out); got != want {
		t.Errorf("docs/demo.md shows another run than the demo's, at %s\n'go test ./cmd/smtp2rest -update' writes it anew", firstDifference(got, want))
	}
	_, excerpt, _ := demoIn(t, filepath.Join("..", "..", "README.md"))
	if got := normal(excerpt); !strings.Contains(normal(r.Out), got) {
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
