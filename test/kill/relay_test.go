package kill

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// killBinary is the real program, with the race detector if the environment
// asks for it.
func killBinary(t *testing.T, dir string) string {
	t.Helper()
	if os.Getenv("SMTP2REST_KILL_RACE") == "" {
		return harness.Binary(t)
	}
	path := filepath.Join(dir, "smtp2rest")
	if out, err := exec.Command("go", "build", "-race", "-o", path, harness.Program).CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	return path
}

// killRelay is one life of the relay: a process.
type killRelay struct {
	life    int
	config  string // a file
	cmd     *exec.Cmd
	log     *killLog
	started time.Time
	ended   chan struct{} // closed when the process is gone
	err     error         // how it ended, then
}

// killWorkers is how many attempts at queued mail a life makes at once: three
// quarters of its calls.
const killWorkers = 12

// killConfig is a configuration for a life.
func killConfig(data, wait, accounts string) string {
	return fmt.Sprintf(`hostname = "relay.example"
[api]
concurrency = 16
timeout = "1m" # however busy the machine is, no call is lost by it
rate = 20000
[sender]
email = "hello@mail.example.com"
[delivery]
wait = %q
retry_first = "50ms"
retry_max = "1s"
[queue]
data_dir = %q
[[listener]]
address = "127.0.0.1:0"
[log]
format = "json"
%s`, wait, data, accounts)
}

// startKillRelay starts the next life on the rig's data directory.
func (rig *killRig) start(wait string) *killRelay {
	rig.t.Helper()
	rig.life++
	config := filepath.Join(rig.dir, fmt.Sprintf("life-%d.toml", rig.life))
	if err := os.WriteFile(config, []byte(killConfig(rig.data, wait, rig.accounts.begin(rig))), 0o600); err != nil {
		rig.t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(rig.dir, fmt.Sprintf("life-%d.log", rig.life)))
	if err != nil {
		rig.t.Fatal(err)
	}
	r := &killRelay{life: rig.life, config: config, ended: make(chan struct{}), log: &killLog{to: out, ready: make(chan string, 1), reloads: make(chan string, 10)}}
	r.cmd = exec.Command(rig.binary, "serve", "--config", config)
	r.cmd.Env = []string{
		"NEXUSPROMAIL_API_KEY=sandbox-key", "NEXUSPROMAIL_API_URL=" + rig.provider.url(rig.life), "HOME=" + rig.dir,
	}
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	r.started = time.Now()
	if err := r.cmd.Start(); err != nil {
		rig.t.Fatal(err)
	}
	go func() {
		defer close(r.ended)
		r.err = errors.Join(r.cmd.Wait(), out.Close())
	}()
	rig.relay = r
	return r
}

// end sends a signal and waits for the process to be gone.
func (rig *killRig) end(r *killRelay, s syscall.Signal) {
	rig.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		rig.fail("life %d ended by itself: %v", r.life, err)
	}
	select {
	case <-r.ended:
	case <-time.After(30 * time.Second):
		rig.fail("life %d goes on after signal %v", r.life, s)
	}
	if bad := r.log.bad(); bad != "" {
		rig.fail("life %d logged: %s", r.life, bad)
	}
}

// killLog keeps what a life writes, finds in it the address it listens on,
// and what must never be there.
type killLog struct {
	to      io.Writer
	ready   chan string // the address, once
	reloads chan string // what came of each

	mu      sync.Mutex
	partial []byte
	crash   string
}

func (l *killLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, p...)
	for {
		line, rest, whole := bytes.Cut(l.partial, []byte("\n"))
		if !whole {
			break
		}
		l.partial = rest
		l.look(line)
	}
	return l.to.Write(p)
}

func (l *killLog) look(line []byte) {
	var entry struct{ Msg, Address, Cause string }
	if json.Unmarshal(line, &entry) != nil {
		l.crash = string(line) // all it writes is JSON, but the text of a crash
		return
	}
	switch entry.Msg {
	case "listening":
		l.ready <- entry.Address
	case "reloaded", notTaken:
		l.reloads <- entry.Msg
	case "an attempt cannot be recorded", "the mail cannot be queued", "a queued mail cannot be sent", "the queue cannot be read":
		l.crash = string(line)
	}
}

func (l *killLog) bad() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.crash
}
