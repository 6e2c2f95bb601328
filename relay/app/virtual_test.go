package app

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/internal/memnet"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// world is a daemon without its sockets, and the sandbox, in virtual time: the
// wiring, the store on a real disk and HTTP are the daemon's own. SMTP and the
// operator's socket are left out, because who waits for a real socket holds up
// the time of a synctest bubble.
type world struct {
	t     *testing.T
	conf  *config.Config
	dir   string // of the queue; another one after each kill
	dirs  int
	log   *journal
	box   *sandbox.Server
	net   *memnet.Listener
	hooks *memnet.Listener // what the relay posts to hooks.example; a test serves it
	boots []time.Time

	mu  sync.Mutex
	now *process // nil while there is none
}

// process is one life of the daemon.
type process struct {
	*daemon
	*core
	ctx     context.Context // ends when sessions are cut off
	cut     context.CancelFunc
	clients sync.WaitGroup
	dead    bool // killed: no client has had an answer since
}

// inVirtualTime runs f with a daemon that is up.
func inVirtualTime(t *testing.T, settings string, f func(w *world)) {
	t.Helper()
	inVirtualWorld(t, settings, nil, f)
}

// inVirtualWorld is inVirtualTime with a sandbox that has further accounts.
func inVirtualWorld(t *testing.T, settings string, further map[string]sandbox.Options, f func(w *world)) {
	t.Helper()
	dir := memoryDir(t)
	conf := load(t, "http://127.0.0.1:9/api", fmt.Sprintf("[queue]\ndata_dir = %q\nkeep_sent = \"30d\"\nmin_free = 0\n%s", dir, settings))
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, conf: conf, dir: filepath.Join(dir, "0"), log: &journal{}, net: memnet.Listen(), hooks: memnet.Listen()}
		w.box = sandbox.New(sandbox.Options{Key: "planted-key", Keep: 10_000, Accounts: further})
		server := &http.Server{Handler: w.box.Handler()}
		served := make(chan error, 1)
		go func() { served <- server.Serve(w.net) }()
		w.boot()
		defer func() {
			if w.now != nil {
				w.stop(time.Minute)
			}
			_ = w.box.Stop(context.Background())
			_ = server.Close()
			<-served
		}()
		f(w)
	})
}

// memoryDir is a directory in memory where there is one: thousands of commits
// that wait for a disk are most of such a test's time, and no test of a disk.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "smtp2rest-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// boot starts a process on what is in the data directory.
func (w *world) boot() {
	w.t.Helper()
	conf := *w.conf
	conf.Queue.DataDir = w.dir
	log := slog.New(slog.NewTextHandler(w.log, nil))
	p := &process{daemon: newDaemon(Options{Config: &conf, Version: "test", Log: log, dial: w.dial}, newRegistry("test"), &health{})}
	p.ctx, p.cut = context.WithCancel(context.Background())
	var err error
	p.core, err = p.build(p.ctx)
	w.must(err)
	w.boots = append(w.boots, time.Now())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = p
}

// dial leads to the sandbox, and to the hooks.
func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if strings.HasPrefix(address, "hooks.example:") {
		return w.hooks.Dial(ctx, network, address)
	}
	return w.net.Dial(ctx, network, address)
}

// leave takes the process away from new clients.
func (w *world) leave() *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.now
	w.now = nil
	return p
}

// stop ends the process in two stages, as App.Stop does.
func (w *world) stop(budget time.Duration) {
	w.t.Helper()
	p := w.leave()
	ctx, cancel := context.WithTimeout(context.Background(), budget)
	defer cancel()
	defer context.AfterFunc(ctx, p.cut)()
	p.beginStop(ctx) // as stop does, before it waits for clients
	p.clients.Wait()
	w.must(p.daemon.stop(ctx))
	p.cut()
}

// kill ends the process as kill -9 does: what is on the disk at this moment is
// all that the next one finds.
func (w *world) kill() {
	w.t.Helper()
	synctest.Wait() // so that nobody writes
	w.dirs++
	copied := filepath.Join(filepath.Dir(w.dir), fmt.Sprint(w.dirs))
	w.must(copyData(w.dir, copied))
	w.dir = copied
	p := w.leave()
	w.mu.Lock()
	p.dead = true
	w.mu.Unlock()
	p.cut()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.clients.Wait()
	_ = p.daemon.stop(ctx) // whatever it still writes is nobody's
}

// copyData leaves out what is no data: the lock, and the index of the log,
// which is made anew.
func copyData(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil || strings.HasSuffix(rel, "-shm") || rel == "lock" {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	})
}

// hand hands a mail over as a client does that comes again while nobody
// listens. It returns the reply, "" when there was none.
func (w *world) hand(from, subject, to string) string {
	for {
		w.mu.Lock()
		p := w.now
		if p != nil {
			p.clients.Add(1)
		}
		w.mu.Unlock()
		if p == nil {
			time.Sleep(time.Second)
			continue
		}
		defer p.clients.Done()
		return w.handTo(p, from, subject, to)
	}
}

// handTo hands a mail to a process that may be about to end.
func (w *world) handTo(p *process, from, subject, to string) string {
	env := &smtpd.Envelope{From: from, Recipients: []string{to}, Client: smtpd.Client{
		Session: "s", Addr: netip.MustParseAddrPort("127.0.0.1:4711"), Helo: "client.test",
	}}
	raw := fmt.Appendf(nil, "From: <%s>\r\nSubject: %s\r\n\r\nIt is on its way.\r\n", from, subject)
	r := p.intake.Message(p.ctx, env, raw)
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.dead {
		return ""
	}
	return r.String()
}

// pass lets virtual time go by.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}
