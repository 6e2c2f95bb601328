package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience bounds every wait of a test for something that must happen. It is
// far longer than any takes, so that a busy machine is no fault.
const patience = 3 * time.Minute

const testVersion = "v9.9.9-test"

var (
	update = flag.Bool("update", false, "write the golden files")
	binary string // the real one, built once
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(withBinary(m))
}

func withBinary(m *testing.M) int {
	dir, err := os.MkdirTemp("", "smtp2rest-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "smtp2rest")
	build := exec.Command("go", "build", "-o", binary, "-ldflags", "-X main.version="+testVersion, ".")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the binary: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// environ is all that a process of the test sees of the environment.
func environ(t *testing.T, more ...string) []string {
	home := t.TempDir()
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, "SMTP2REST_DATA_DIR=" + filepath.Join(home, "data")}, more...)
}

type result struct {
	out, err string
	code     int
}

func (r result) all() string { return r.out + r.err }

// execute runs the binary to its end.
func execute(t *testing.T, env []string, stdin string, args ...string) result {
	t.Helper()
	return executeTool(t, env, stdin, binary, args...)
}

func executeTool(t *testing.T, env []string, stdin, tool string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Env, cmd.Dir = env, t.TempDir()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s %v: %v\n%s%s", tool, args, err, &stdout, &stderr)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// process is the binary as a daemon.
type process struct {
	t        *testing.T
	cmd      *exec.Cmd
	out, err *stream
	done     chan struct{}
}

func launch(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	return launchCommand(t, env, exec.Command(binary, args...))
}

func launchCommand(t *testing.T, env []string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, out: newStream(), err: newStream(), done: make(chan struct{})}
	p.cmd.Env, p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = env, t.TempDir(), p.out, p.err
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the exit code says it
		p.out.end()
		p.err.end()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("%v said\n%s%s", cmd.Args, p.out, p.err)
		}
	})
	return p
}

// await returns the first group of the pattern once s has it.
func (p *process) await(s *stream, pattern string) string {
	p.t.Helper()
	m := s.await(regexp.MustCompile(pattern))
	if m == nil {
		p.t.Fatalf("%v does not say %q", p.cmd.Args, pattern)
	}
	return m[len(m)-1]
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// exit waits for the end and returns its code.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%v does not end", p.cmd.Args)
	}
	return p.cmd.ProcessState.ExitCode()
}

// stream is what a process says, while it says it.
type stream struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	ended  bool
	change chan struct{}
}

func newStream() *stream { return &stream{change: make(chan struct{})} }

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changed()
	return s.buf.Write(p)
}

func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.changed()
}

func (s *stream) changed() {
	close(s.change)
	s.change = make(chan struct{})
}

func (s *stream) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func (s *stream) await(re *regexp.Regexp) []string {
	timeout := time.After(patience)
	for {
		s.mu.Lock()
		m, ended, change := re.FindStringSubmatch(s.buf.String()), s.ended, s.change
		s.mu.Unlock()
		if m != nil || ended {
			return m
		}
		select {
		case <-change:
		case <-timeout:
			return nil
		}
	}
}

// relayed is a relay with a sandbox inside, on free ports.
type relayed struct {
	*process
	smtp, sandbox string // host:port
}

// serveSandbox runs 'serve --sandbox'; more is added to its configuration.
func serveSandbox(t *testing.T, more string) relayed {
	t.Helper()
	return serveSandboxAt(t, "127.0.0.1:0", more)
}

func serveSandboxAt(t *testing.T, address, more string) relayed {
	t.Helper()
	p := launch(t, environ(t), "serve", "--sandbox", "--config", configFile(t, "[[listener]]\naddress = \""+address+"\"\n"+more))
	return relayed{p, p.await(p.out, `SMTP +(\S+:\d+)`), p.await(p.out, `sandbox +http://(127\.0\.0\.1:\d+)/api`)}
}

func configFile(t *testing.T, toml string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
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
	return newClient(t, conn)
}

func newClient(t *testing.T, conn net.Conn) *client {
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return &client{t, conn, bufio.NewReader(conn)}
}

// do sends lines one by one, each with the beginning of its reply; the empty
// line is not sent.
func (c *client) do(pairs ...string) {
	c.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] != "" {
			if _, err := io.WriteString(c.conn, pairs[i]+"\r\n"); err != nil {
				c.t.Fatal(err)
			}
		}
		for {
			line, err := c.r.ReadString('\n')
			if err == nil && len(line) > 3 && line[3] == '-' {
				continue
			}
			if err != nil || !strings.HasPrefix(line, pairs[i+1]) {
				c.t.Fatalf("after %q comes %q (%v), want %q", pairs[i], line, err, pairs[i+1])
			}
			break
		}
	}
}

// golden compares with a file, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; 'go test ./cmd/smtp2rest -update' writes it", err)
	}
	if got != string(want) {
		t.Errorf("%s differs at %s\n'go test ./cmd/smtp2rest -update' writes it anew", path, firstDifference(got, string(want)))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		a, b := "(the end)", "(the end)"
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\ngot  %s\nwant %s", i+1, a, b)
		}
	}
	return "nothing"
}

// letter is a small mail.
func letter(to, subject string) []byte {
	return []byte("From: a@sandbox.example\r\nTo: " + to + "\r\nSubject: " + subject + "\r\n\r\nHello.\r\n")
}
