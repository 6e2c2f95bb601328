package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestStatusOfAStoppedQueue(t *testing.T) {
	r := typed(t, &screen{}, "status", "--data-dir", queueDir(t))
	if r.Code != terminal.ExitStopped || !strings.HasPrefix(r.Out, "stopped: no daemon runs; 5 recipients wait; nothing is lost\n\n") ||
		!strings.Contains(r.Out, "start smtp2rest") {
		t.Errorf("%+v", r)
	}
	if r := typed(t, &screen{}, "status", "--data-dir", t.TempDir()); r.Code != terminal.ExitStopped || !strings.Contains(r.Err, "no daemon answers, and there is no queue in ") {
		t.Errorf("nothing there: %+v", r)
	}
	if r := typed(t, &screen{}, "status", "--socket", "/nonexistent"); r.Code != terminal.ExitStopped {
		t.Errorf("no socket: %+v", r)
	}
}

// A command that only a daemon can answer does not deny the queue that is there.
func TestNobodyAnswers(t *testing.T) {
	dir := queueDir(t)
	config := harness.ConfigFile(t, fmt.Sprintf("[sender]\nemail = \"a@example.com\"\n[queue]\ndata_dir = %q\n[admin]\nsocket = \"/nonexistent/s\"\naddress = \"127.0.0.1:1\"\n", dir))
	r := typed(t, &screen{}, "reload", "--config", config)
	if r.Code != terminal.ExitStopped || !strings.Contains(r.Err, "no daemon answers on /nonexistent/s or 127.0.0.1:1; ") || strings.Contains(r.Err, "no queue") {
		t.Errorf("%+v", r)
	}
}

func TestStatusInWords(t *testing.T) {
	dir := queueDir(t)
	serveQueue(t, dir, admin.SocketIn(dir))
	r := typed(t, &screen{}, "status", "--data-dir", dir)
	want := `^degraded: the API refuses the key since \d\d:\d\d; 5 recipients wait; nothing is lost\n\ndaemon +v1, running for 0s\n`
	if r.Code != terminal.ExitFailed || !regexp.MustCompile(want).MatchString(r.Out) || r.Err != "" {
		t.Errorf("%+v", r)
	}
	r = typed(t, &screen{}, "status", "--data-dir", dir, "--json")
	var s admin.Status
	if err := json.Unmarshal([]byte(r.Out), &s); err != nil || r.Code != terminal.ExitFailed || s.State != admin.StateDegraded || s.Warnings[0].Level != admin.LevelTrouble {
		t.Errorf("%v %+v", err, r)
	}
}

// What is due is not sent while the API refuses the key, and flush says so.
func TestFlushSaysWhatStopsMail(t *testing.T) {
	dir := queueDir(t)
	serveQueue(t, dir, admin.SocketIn(dir))
	r := typed(t, &screen{}, "queue", "flush", "--data-dir", dir)
	want := `^\d+ recipients due now\.\nIt does not go out yet: the API refuses the key since \d\d:\d\d`
	if r.Code != terminal.ExitOK || !regexp.MustCompile(want).MatchString(r.Out) {
		t.Errorf("%+v", r)
	}
}

// The commands of a container that has a queue: by the environment alone, they
// find the daemon that has the same.
func TestStatusAndHealthcheckOfTheRealDaemon(t *testing.T) {
	_, env, _ := harness.SandboxProcess(t)
	env = harness.Environ(t, env...)
	p := harness.Launch(t, env, "serve", "--config", harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n"))
	p.Await(p.Err, `msg=listening address=(127\.0\.0\.1:\d+)`)
	for _, args := range [][]string{{"healthcheck"}, {"healthcheck", "--ready"}, {"status"}, {"status", "--json"}} {
		if r := harness.Execute(t, env, "", args...); r.Code != terminal.ExitOK || r.Err != "" {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if r := harness.Execute(t, env, "", "status"); !strings.HasPrefix(r.Out, "fine: mail flows; nothing waits\n") {
		t.Errorf("%+v", r)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if r := harness.Execute(t, env, "", "healthcheck"); r.Code != terminal.ExitFailed || !strings.Contains(r.Err, "smtp2rest healthcheck: no daemon answers") {
		t.Errorf("afterwards: %+v", r)
	}
	if r := harness.Execute(t, env, "", "status"); r.Code != terminal.ExitStopped || !strings.HasPrefix(r.Out, "stopped: no daemon runs; nothing waits\n") {
		t.Errorf("afterwards: %+v", r)
	}
}

// A container without a volume has nowhere to put a socket: the address is the
// way, and the same variables lead to it.
func TestHealthcheckByTheAddress(t *testing.T) {
	const token = "a-token-of-16-letters"
	_, env, _ := harness.SandboxProcess(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file") // where the directory of the socket should be
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	address := harness.FreeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	env = harness.Environ(t, append(env, "XDG_RUNTIME_DIR="+file, "SMTP2REST_ADMIN_ADDRESS=:"+port, "SMTP2REST_ADMIN_TOKEN="+token)...)
	conf := harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n[queue]\nmode = \"none\"\n")
	p := harness.Launch(t, env, "serve", "--config", conf)
	p.Await(p.Err, `msg=listening address=(127\.0\.0\.1:\d+)`)
	if r := harness.Execute(t, env, "", "healthcheck", "--config", conf); r.Code != terminal.ExitOK {
		t.Errorf("healthcheck: %+v", r)
	}
	if r := harness.Execute(t, env, "", "status", "--config", conf); r.Code != terminal.ExitOK || !strings.Contains(r.Out, "mail flows") {
		t.Errorf("status: %+v", r)
	}
	bare := harness.Environ(t)
	if r := harness.Execute(t, bare, "", "healthcheck", "--address", address); r.Code != terminal.ExitOK {
		t.Errorf("health needs no token: %+v", r)
	}
	if r := harness.Execute(t, bare, "", "status", "--address", address); r.Code != terminal.ExitFailed || !strings.Contains(r.Err, "the token is missing or wrong") {
		t.Errorf("status without the token: %+v", r)
	}
	if strings.Contains(p.Err.String(), token) {
		t.Error("the token is in the log")
	}
}

// --watch asks again and again, and shows that the daemon came.
func TestWatch(t *testing.T) {
	_, env, _ := harness.SandboxProcess(t)
	env = harness.Environ(t, env...)
	w := harness.Launch(t, env, "status", "--watch")
	w.Await(w.Out, `(no daemon answers)`)
	p := harness.Launch(t, env, "serve", "--config", harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n"))
	p.Await(p.Err, `msg=listening address=(127\.0\.0\.1:\d+)`)
	begin := time.Now()
	w.Await(w.Out, `(fine: mail flows)`)
	if took := time.Since(begin); took > 6*time.Second {
		t.Errorf("it took %v", took)
	}
	w.Signal(syscall.SIGINT)
	if code := w.Exit(); code != terminal.ExitOK {
		t.Errorf("exit code %d", code)
	}
}
