package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
)

func TestStatusOfAStoppedQueue(t *testing.T) {
	r := typed(t, &screen{}, "status", "--data-dir", queueDir(t))
	if r.code != terminal.ExitStopped || !strings.HasPrefix(r.out, "stopped: no daemon runs; 5 recipients wait; nothing is lost\n\n") ||
		!strings.Contains(r.out, "start smtp2rest") {
		t.Errorf("%+v", r)
	}
	if r := typed(t, &screen{}, "status", "--data-dir", t.TempDir()); r.code != terminal.ExitStopped || !strings.Contains(r.err, "no daemon answers: there is no queue in ") {
		t.Errorf("nothing there: %+v", r)
	}
	if r := typed(t, &screen{}, "status", "--socket", "/nonexistent"); r.code != terminal.ExitStopped {
		t.Errorf("no socket: %+v", r)
	}
}

func TestStatusInWords(t *testing.T) {
	dir := queueDir(t)
	serveQueue(t, dir, admin.SocketIn(dir))
	r := typed(t, &screen{}, "status", "--data-dir", dir)
	want := `^degraded: the API refuses the key since \d\d:\d\d; 5 recipients wait; nothing is lost\n\ndaemon +v1, running for 0s\n`
	if r.code != terminal.ExitFailed || !regexp.MustCompile(want).MatchString(r.out) || r.err != "" {
		t.Errorf("%+v", r)
	}
	r = typed(t, &screen{}, "status", "--data-dir", dir, "--json")
	var s admin.Status
	if err := json.Unmarshal([]byte(r.out), &s); err != nil || r.code != terminal.ExitFailed || s.State != admin.StateDegraded || s.Notes[0].Level != admin.LevelTrouble {
		t.Errorf("%v %+v", err, r)
	}
}

// What is due is not sent while the API refuses the key, and flush says so.
func TestFlushSaysWhatStopsMail(t *testing.T) {
	dir := queueDir(t)
	serveQueue(t, dir, admin.SocketIn(dir))
	r := typed(t, &screen{}, "queue", "flush", "--data-dir", dir)
	want := `^\d+ recipients due now\.\nIt does not go out yet: the API refuses the key since \d\d:\d\d`
	if r.code != terminal.ExitOK || !regexp.MustCompile(want).MatchString(r.out) {
		t.Errorf("%+v", r)
	}
}

// The commands of a container that has a queue: by the environment alone, they
// find the daemon that has the same.
func TestStatusAndHealthcheckOfTheRealDaemon(t *testing.T) {
	_, env, _ := sandboxProcess(t)
	env = environ(t, env...)
	p := launch(t, env, "serve", "--config", configFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n"))
	p.await(p.err, `msg=listening address=(127\.0\.0\.1:\d+)`)
	for _, args := range [][]string{{"healthcheck"}, {"healthcheck", "--ready"}, {"status"}, {"status", "--json"}} {
		if r := execute(t, env, "", args...); r.code != terminal.ExitOK || r.err != "" {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if r := execute(t, env, "", "status"); !strings.HasPrefix(r.out, "fine: mail flows; nothing waits\n") {
		t.Errorf("%+v", r)
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if r := execute(t, env, "", "healthcheck"); r.code != terminal.ExitFailed || !strings.Contains(r.err, "smtp2rest healthcheck: no daemon answers") {
		t.Errorf("afterwards: %+v", r)
	}
	if r := execute(t, env, "", "status"); r.code != terminal.ExitStopped || !strings.HasPrefix(r.out, "stopped: no daemon runs; nothing waits\n") {
		t.Errorf("afterwards: %+v", r)
	}
}

// A container without a volume has nowhere to put a socket: the address is the
// way, and the same variables lead to it.
func TestHealthcheckByTheAddress(t *testing.T) {
	const token = "a-token-of-16-letters"
	_, env, _ := sandboxProcess(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file") // where the directory of the socket should be
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	env = environ(t, append(env, "XDG_RUNTIME_DIR="+file, "SMTP2REST_ADMIN_ADDRESS=:"+port, "SMTP2REST_ADMIN_TOKEN="+token)...)
	conf := configFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n[queue]\nmode = \"none\"\n")
	p := launch(t, env, "serve", "--config", conf)
	p.await(p.err, `msg=listening address=(127\.0\.0\.1:\d+)`)
	if r := execute(t, env, "", "healthcheck", "--config", conf); r.code != terminal.ExitOK {
		t.Errorf("healthcheck: %+v", r)
	}
	if r := execute(t, env, "", "status", "--config", conf); r.code != terminal.ExitOK || !strings.Contains(r.out, "mail flows") {
		t.Errorf("status: %+v", r)
	}
	bare := environ(t)
	if r := execute(t, bare, "", "healthcheck", "--address", address); r.code != terminal.ExitOK {
		t.Errorf("health needs no token: %+v", r)
	}
	if r := execute(t, bare, "", "status", "--address", address); r.code != terminal.ExitFailed || !strings.Contains(r.err, "the token is missing or wrong") {
		t.Errorf("status without the token: %+v", r)
	}
	if strings.Contains(p.err.String(), token) {
		t.Error("the token is in the log")
	}
}

// --watch asks again and again, and shows that the daemon came.
func TestWatch(t *testing.T) {
	_, env, _ := sandboxProcess(t)
	env = environ(t, env...)
	w := launch(t, env, "status", "--watch")
	w.await(w.out, `(no daemon answers)`)
	p := launch(t, env, "serve", "--config", configFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n"))
	p.await(p.err, `msg=listening address=(127\.0\.0\.1:\d+)`)
	begin := time.Now()
	w.await(w.out, `(fine: mail flows)`)
	if took := time.Since(begin); took > 6*time.Second {
		t.Errorf("it took %v", took)
	}
	w.signal(syscall.SIGINT)
	if code := w.exit(); code != terminal.ExitOK {
		t.Errorf("exit code %d", code)
	}
}
