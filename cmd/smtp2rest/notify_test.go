package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/notify"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// TestNotified: the program tells of a key that is refused, and as status does.
func TestNotified(t *testing.T) {
	var mu sync.Mutex
	var posts []notify.Notification
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var n notify.Notification
		if err := json.Unmarshal(body, &n); err != nil || r.Header.Get("X-SMTP2REST-Signature") == "" {
			t.Errorf("posted %s, %v", body, err)
		}
		mu.Lock()
		defer mu.Unlock()
		posts = append(posts, n)
	}))
	defer hook.Close()
	_, env, _ := harness.SandboxProcess(t)
	env = harness.Environ(t, append(env, "NEXUSPROMAIL_API_KEY=not-the-key", "SMTP2REST_NOTIFY_SECRET=whsec_of-the-hook")...)
	p := harness.Launch(t, env, "serve", "--config", harness.ConfigFile(t, fmt.Sprintf(
		"[[listener]]\naddress = \"127.0.0.1:0\"\n[notify]\nmail = [\"ops@example.com\"]\nurl = %q\n", hook.URL+"/a-secret-path")))
	at := p.Await(p.Err, `msg=listening address=(127\.0\.0\.1:\d+)`)
	if r := harness.Execute(t, env, "", "send", "--to", "bob@example.net", "--server", at); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	harness.PollUntil(t, "somebody is told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(posts) > 0
	})
	p.Await(p.Err, `(msg=notified by=webhook)`)
	var s admin.Status
	if err := json.Unmarshal([]byte(harness.Execute(t, env, "", "status", "--json").Out), &s); err != nil {
		t.Fatal(err)
	}
	if got, want := posts[0].News[0], s.Warnings[0]; got.Name != want.Cause || want.Cause != admin.CauseKeyRefused || got.Why != want.Why || !got.Since.Equal(want.Since) {
		t.Errorf("told %+v, and status says %+v", got, want)
	}
	if log := p.Err.String(); strings.Contains(log, "whsec_of-the-hook") || strings.Contains(log, "a-secret-path") {
		t.Error("the log has the secret, or the address")
	}
}

// TestTheHandlerOfTheDocument: it takes what the program posts, and nothing else.
func TestTheHandlerOfTheDocument(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "notify.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, handler, found := strings.Cut(string(text), "<!-- handler -->\n```python\n")
	handler, _, closed := strings.Cut(handler, "```")
	address := harness.FreeAddress(t)
	host, port := harness.HostPort(t, address)
	changed := strings.Replace(handler, `("127.0.0.1", 8027)`, fmt.Sprintf("(%q, %s)", host, port), 1)
	if !found || !closed || changed == handler {
		t.Fatal("docs/notify.md has no handler")
	}
	cmd := exec.Command(harness.Tool(t, "python3"), "-c", changed)
	cmd.Env = append(os.Environ(), "NOTIFY_SECRET=whsec_right")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	env := harness.Environ(t, "FROM_EMAIL=relay@sandbox.example")
	conf := harness.ConfigFile(t, fmt.Sprintf("[notify]\nurl = \"http://%s/\"\n", address))
	test := func(secret string) harness.Result {
		return harness.Execute(t, append(env, "SMTP2REST_NOTIFY_SECRET="+secret), "", "notify", "test", "--config", conf)
	}
	harness.PollUntil(t, "the handler listens", func() bool { return !strings.Contains(test("whsec_wrong").Err, "refused") })
	wantOut(t, test("whsec_wrong"), terminal.ExitFailed, "", "notify.url did not take it: HTTP 401")
	wantOut(t, test("whsec_right"), 0, "notify.url took the notification ntf_", "")
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "this is a test") {
	}
	if lines.Text() != "this is a test" {
		t.Errorf("the handler printed %q", lines.Text())
	}
}
