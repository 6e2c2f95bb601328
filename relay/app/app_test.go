package app

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestMain(m *testing.M) {
	harness.Quick()
	goleak.VerifyTestMain(m)
}

// patience bounds every wait of a test for something that must happen.
const patience = 15 * time.Second

// newSandbox runs a sandbox until the test ends.
func newSandbox(t *testing.T) *sandbox.Server {
	t.Helper()
	box := sandbox.New(sandbox.Options{Key: "planted-key"})
	if err := box.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := box.Stop(ctx); err != nil {
			t.Errorf("stopping the sandbox: %v", err)
		}
	})
	return box
}

// load is a configuration as a file and the environment give it.
func load(t *testing.T, apiURL, toml string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"NEXUSPROMAIL_API_KEY": "planted-key", "NEXUSPROMAIL_API_URL": apiURL, "FROM_EMAIL": "relay@sandbox.example"}
	c, err := config.Load(config.Source{Path: path, NeedAPI: true, Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// toml has a listener on a free port and a queue of the test's own.
func toml(t *testing.T, more string) string {
	return fmt.Sprintf("[[listener]]\naddress = \"127.0.0.1:0\"\n[queue]\ndata_dir = %q\n%s\n", t.TempDir(), more)
}

// journal is a log that can be read while it is written.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

func newApp(c *config.Config) (*App, *journal) {
	j := &journal{}
	return New(Options{Config: c, Version: "v0.0.0-test", Log: slog.New(slog.NewTextHandler(j, nil))}), j
}

// start runs a daemon until the test ends.
func start(t *testing.T, c *config.Config) (*App, *journal) {
	t.Helper()
	a, j := newApp(c)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stop(a, patience) })
	return a, j
}

func stop(a *App, budget time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), budget)
	defer cancel()
	return a.Stop(ctx)
}

// client is a raw SMTP client.
type client struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, address string) *client {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return &client{t, conn, bufio.NewReader(conn)}
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Errorf("sending %q: %v", s, err)
	}
}

// reply is the last line of the next reply, or what kept it from coming.
func (c *client) reply() string {
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return err.Error()
		}
		if len(line) < 4 || line[3] != '-' {
			return strings.TrimRight(line, "\r\n")
		}
	}
}

func (c *client) want(prefix string) string {
	c.t.Helper()
	got := c.reply()
	if !strings.HasPrefix(got, prefix) {
		c.t.Fatalf("got %q, want %q", got, prefix)
	}
	return got
}

// data gets as far as the content.
func (c *client) data(to string) {
	c.t.Helper()
	c.want("220 ")
	for _, step := range [][2]string{{"EHLO client.test", "250 "}, {"MAIL FROM:<shop@sandbox.example>", "250 "}, {"RCPT TO:<" + to + ">", "250 "}, {"DATA", "354 "}} {
		c.send(step[0] + "\r\n")
		c.want(step[1])
	}
}

const (
	firstHalf  = "From: shop@sandbox.example\r\nSubject: Order\r\n\r\nIt is"
	secondHalf = " on its way.\r\n.\r\n"
)

func TestMailGoesThrough(t *testing.T) {
	box := newSandbox(t)
	a, log := start(t, load(t, box.URL(), toml(t, "")))
	c := dial(t, a.Addrs()[0].String())
	c.data("bob@example.net")
	c.send(firstHalf + secondHalf)
	c.want("250 2.0.0 accepted ")
	if box.AcceptedFor("bob@example.net") != 1 {
		t.Error("the API did not get it")
	}
	if s := log.String(); !strings.Contains(s, "outcome=accepted") || !strings.Contains(s, "version=v0.0.0-test") || strings.Contains(s, "planted-key") {
		t.Errorf("the log has\n%s", s)
	}
}

// What is queued while the API is down goes out when it is back.
func TestWhatIsQueuedGoesOut(t *testing.T) {
	box := newSandbox(t)
	a, _ := start(t, load(t, box.URL(), toml(t, "[delivery]\nretry_first = \"1s\"")))
	c := dial(t, a.Addrs()[0].String())
	c.data("down+1@example.net")
	c.send(firstHalf + secondHalf)
	c.want("250 2.0.0 queued ")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := box.WaitFor(ctx, func(s sandbox.Stats) bool { return s.Accepted == 1 }); err != nil {
		t.Errorf("the mail did not go out: %v", err)
	}
}

// Without a queue the same mail is not taken.
func TestWithoutAQueueItIsNotTaken(t *testing.T) {
	box := newSandbox(t)
	a, _ := start(t, load(t, box.URL(), "[[listener]]\naddress = \"127.0.0.1:0\"\n[queue]\nmode = \"none\"\n"))
	c := dial(t, a.Addrs()[0].String())
	c.data("down@example.net")
	c.send(firstHalf + secondHalf)
	c.want("451 4.4.2 ")
}

// Several addresses are listened on, in the configuration's order.
func TestAddrs(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("this machine has no IPv6 loopback: %v", err)
	} else {
		_ = l.Close()
	}
	c := load(t, newSandbox(t).URL(), toml(t, "[[listener]]\naddress = \"[::1]:0\""))
	a, _ := newApp(c)
	if got := a.Addrs(); len(got) != 0 {
		t.Errorf("before Start: %v", got)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := a.Addrs()
	if len(got) != 2 || !strings.HasPrefix(got[0].String(), "127.0.0.1:") || !strings.HasPrefix(got[1].String(), "[::1]:") {
		t.Errorf("the addresses are %v", got)
	}
	for _, addr := range got {
		dial(t, addr.String()).want("220 ")
	}
	if err := stop(a, patience); err != nil {
		t.Error(err)
	}
	if got := a.Addrs(); len(got) != 0 {
		t.Errorf("after Stop: %v", got)
	}
}

// No package state: each has its own API, suppressions and queue.
func TestTwoDaemonsInOneProcess(t *testing.T) {
	boxes := []*sandbox.Server{newSandbox(t), newSandbox(t)}
	daemons := make([]*App, 2)
	for i, box := range boxes {
		daemons[i], _ = start(t, load(t, box.URL(), toml(t, "")))
	}
	c := dial(t, daemons[0].Addrs()[0].String())
	c.data("suppressed@example.net")
	c.send(firstHalf + secondHalf)
	c.want("550 5.7.1 suppressed")
	if err := stop(daemons[0], patience); err != nil {
		t.Errorf("Stop: %v", err)
	}
	c = dial(t, daemons[1].Addrs()[0].String())
	c.data("suppressed@example.net") // this one does not know yet
	c.send(firstHalf + secondHalf)
	c.want("550 5.7.1 suppressed")
	for i, box := range boxes {
		if n := box.Stats().Calls; n != 1 {
			t.Errorf("the API of daemon %d got %d calls", i+1, n)
		}
	}
}

func TestStopTwice(t *testing.T) {
	a, log := start(t, load(t, newSandbox(t).URL(), toml(t, "")))
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := stop(a, patience); err != nil {
				t.Errorf("Stop: %v", err)
			}
		})
	}
	wg.Wait()
	if err := stop(a, patience); err != nil {
		t.Errorf("Stop again: %v", err)
	}
	if n := strings.Count(log.String(), "msg=stopped"); n != 1 {
		t.Errorf("the log says %d times that it stopped", n)
	}
}

func TestStopWithoutStart(t *testing.T) {
	a, _ := newApp(load(t, newSandbox(t).URL(), toml(t, "")))
	if err := stop(a, patience); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if err := a.Start(t.Context()); err == nil {
		t.Error("a daemon that was stopped can be started")
		_ = stop(a, patience)
	}
}

func TestStartTwice(t *testing.T) {
	a, _ := start(t, load(t, newSandbox(t).URL(), toml(t, "")))
	if err := a.Start(t.Context()); err == nil {
		t.Error("a daemon that runs can be started")
	}
	dial(t, a.Addrs()[0].String()).want("220 ")
}

// Nothing of a daemon that could not start is left: not its first listener,
// not its store, and by TestMain no goroutine.
func TestAPortThatIsTakenLeavesNothingBehind(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	conf := toml(t, fmt.Sprintf("[[listener]]\naddress = %q", taken.Addr()))
	a, _ := newApp(load(t, newSandbox(t).URL(), conf))
	err = a.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) || !strings.Contains(err.Error(), "this daemon itself uses this port") {
		t.Fatalf("Start: %v", err)
	}
	if got := a.Addrs(); len(got) != 0 {
		t.Errorf("it listens on %v", got)
	}
	if err := stop(a, patience); err != nil {
		t.Errorf("Stop: %v", err)
	}
	_ = taken.Close()
	// The port and the store are free for the next one.
	start(t, load(t, newSandbox(t).URL(), conf))
}

// A store that cannot be opened stops the start before anything is taken in.
func TestAStoreThatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "queue.db"), []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, _ := newApp(load(t, newSandbox(t).URL(), fmt.Sprintf("[[listener]]\naddress = \"127.0.0.1:0\"\n[queue]\ndata_dir = %q\n", dir)))
	if err := a.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "queue.data_dir") {
		t.Errorf("Start: %v", err)
		_ = stop(a, patience)
	}
}

func TestACAFileThatIsNone(t *testing.T) {
	c := load(t, newSandbox(t).URL(), toml(t, ""))
	c.API.CAFile = filepath.Join(t.TempDir(), "none.pem")
	a, _ := newApp(c)
	if err := a.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "api.ca_file") {
		t.Errorf("Start: %v", err)
		_ = stop(a, patience)
	}
}

// Idle clients are told and do not hold the end up.
func TestStopWithIdleClients(t *testing.T) {
	a, _ := start(t, load(t, newSandbox(t).URL(), toml(t, "")))
	fresh, greeted := dial(t, a.Addrs()[0].String()), dial(t, a.Addrs()[0].String())
	fresh.want("220 ")
	greeted.want("220 ")
	greeted.send("EHLO client.test\r\n")
	greeted.want("250 ")
	begin := time.Now()
	if err := stop(a, patience); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if took := time.Since(begin); took > patience/3 {
		t.Errorf("it took %s with idle clients", took)
	}
	for _, c := range []*client{fresh, greeted} {
		c.want("421 4.3.2 ")
		if got := c.reply(); got != "EOF" {
			t.Errorf("after that comes %q", got)
		}
	}
}

// A mail that is being handed over is finished, and its client gets its 250.
func TestStopInTheMiddleOfAMail(t *testing.T) {
	box := newSandbox(t)
	a, _ := start(t, load(t, box.URL(), toml(t, "")))
	address := a.Addrs()[0].String()
	c, idle := dial(t, address), dial(t, address)
	idle.want("220 ")
	c.data("bob@example.net")
	c.send(firstHalf)
	stopped := make(chan error)
	go func() { stopped <- stop(a, patience) }()
	idle.want("421 4.3.2 ") // so the end has begun
	if conn, err := net.Dial("tcp", address); err == nil {
		_ = conn.Close()
		t.Error("new clients are still taken")
	}
	c.send(secondHalf)
	c.want("250 2.0.0 accepted ")
	c.want("421 4.3.2 ")
	if err := <-stopped; err != nil {
		t.Errorf("Stop: %v", err)
	}
	if box.AcceptedFor("bob@example.net") != 1 {
		t.Error("the API did not get it")
	}
}

// An API that hangs for longer than the budget is left, and the client not told
// 250 unless the mail is kept.
func TestStopWithAHangingCall(t *testing.T) {
	box := newSandbox(t)
	a, _ := start(t, load(t, box.URL(), toml(t, "[api]\ntimeout = \"2m\"")))
	c := dial(t, a.Addrs()[0].String())
	c.data("timeout@example.net")
	c.send(firstHalf + secondHalf)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := box.WaitFor(ctx, func(s sandbox.Stats) bool { return s.Calls == 1 }); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	err := stop(a, 300*time.Millisecond)
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("it took %s", took)
	}
	if err == nil {
		t.Error("Stop says that nothing was cut off")
	}
	if got := c.reply(); strings.HasPrefix(got, "250") {
		t.Errorf("the client is told %q", got)
	}
}

// What was queued and not sent before the end is sent by the next daemon.
func TestTheQueueOutlivesTheDaemon(t *testing.T) {
	box := newSandbox(t)
	conf := toml(t, "[delivery]\nretry_first = \"1s\"")
	if err := box.SetOutage(sandbox.OutageUnavailable); err != nil {
		t.Fatal(err)
	}
	a, _ := start(t, load(t, box.URL(), conf))
	c := dial(t, a.Addrs()[0].String())
	c.data("bob@example.net")
	c.send(firstHalf + secondHalf)
	c.want("250 2.0.0 queued ")
	if err := stop(a, patience); err != nil {
		t.Fatalf("Stop: %v", err)
	}
	if err := box.SetOutage(sandbox.OutageNone); err != nil {
		t.Fatal(err)
	}
	start(t, load(t, box.URL(), conf))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := box.WaitFor(ctx, func(s sandbox.Stats) bool { return s.Accepted == 1 }); err != nil {
		t.Errorf("the mail did not go out: %v", err)
	}
}
