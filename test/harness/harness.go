// Package harness runs the real program in tests: those of the commands, and those in
// test/. It builds the program once, starts it, waits for its output, and speaks SMTP to
// it.
package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
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

// Patience bounds every wait. It is much longer than anything takes, so that no test
// fails on a busy machine.
const Patience = 3 * time.Minute

// Memory is where tests keep their files after Quick, if it can: a file system in memory.
const Memory = "/dev/shm"

// Version is the version of the program under test.
const Version = "v9.9.9-test"

// Program is the import path of the program.
const Program = "github.com/smtp2rest/smtp2rest/cmd/smtp2rest"

// built is the program. The first test of this process that needs it builds it.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// Main is for TestMain of a package that runs the program. At the end it removes the
// program and looks for goroutines that the tests left behind.
func Main(m *testing.M) int {
	code := m.Run()
	if err := os.RemoveAll(built.dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// Binary returns the path of the program.
func Binary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() { built.dir, built.err = build() })
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "smtp2rest")
}

func build() (dir string, err error) {
	if err := remember(); err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp(Disk(), "smtp2rest-test-"); err != nil {
		return "", err
	}
	// 'go run' keeps the linked program in Go's cache, and 'go build' does not. So
	// only the first of several test processes links it. It does not run the
	// program here, but 'cp PROGRAM DIR'.
	out, err := exec.Command("go", "run", "-exec", "cp", "-ldflags", "-X main.version="+Version, Program, dir).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return dir, err
}

// remember opens the files of the program, so that 'go test' does not reuse a test result
// after one of them changed. It knows only the files that the test opened.
func remember() error {
	top, err := Top()
	if err != nil {
		return err
	}
	for _, dir := range []string{"cmd", "relay", "smtpd"} {
		err = errors.Join(err, filepath.WalkDir(filepath.Join(top, dir), func(string, fs.DirEntry, error) error { return nil }))
	}
	return err
}

// Top returns the top directory of the repository.
func Top() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, statErr := os.Stat(filepath.Join(dir, "go.mod")); statErr == nil {
			return dir, nil
		} else if dir == filepath.Dir(dir) {
			err = statErr
		}
	}
	return "", err
}

// File returns the path of a file in the repository.
func File(t *testing.T, name string) string {
	t.Helper()
	top, err := Top()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(top, filepath.FromSlash(name))
}

// Environ returns the whole environment of a process in a test.
func Environ(t *testing.T, more ...string) []string {
	home := t.TempDir()
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, "SMTP2REST_DATA_DIR=" + filepath.Join(home, "data")}, more...)
}

// Result is the result of a process that has ended.
type Result struct {
	Out, Err string
	Code     int
}

// All returns the output on both streams.
func (r Result) All() string { return r.Out + r.Err }

// Execute runs the program to its end.
func Execute(t *testing.T, env []string, stdin string, args ...string) Result {
	t.Helper()
	return ExecuteTool(t, env, stdin, Binary(t), args...)
}

// ExecuteTool runs another program to its end.
func ExecuteTool(t *testing.T, env []string, stdin, tool string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*Patience)
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
	return Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// Process is a program that runs beside the test.
type Process struct {
	Cmd      *exec.Cmd
	Out, Err *Stream
	Done     chan struct{} // closed when it has ended
	t        *testing.T
}

// Launch starts the program. It is killed when the test ends.
func Launch(t *testing.T, env []string, args ...string) *Process {
	t.Helper()
	return LaunchCommand(t, env, exec.Command(Binary(t), args...))
}

// LaunchCommand starts another program.
func LaunchCommand(t *testing.T, env []string, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{t: t, Cmd: cmd, Out: NewStream(), Err: NewStream(), Done: make(chan struct{})}
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = env, t.TempDir(), p.Out, p.Err
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.Done)
		_ = cmd.Wait() // the exit code says it
		p.Out.End()
		p.Err.End()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.Done
		if t.Failed() {
			t.Logf("%v said\n%s%s", cmd.Args, p.Out, p.Err)
		}
	})
	return p
}

// Await waits until s matches the pattern, and returns the first group.
func (p *Process) Await(s *Stream, pattern string) string {
	p.t.Helper()
	m := s.Await(regexp.MustCompile(pattern))
	if m == nil {
		p.t.Fatalf("%v does not say %q", p.Cmd.Args, pattern)
	}
	return m[len(m)-1]
}

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// Exit waits for the end and returns the exit code.
func (p *Process) Exit() int {
	p.t.Helper()
	select {
	case <-p.Done:
	case <-time.After(Patience):
		p.t.Fatalf("%v does not end", p.Cmd.Args)
	}
	return p.Cmd.ProcessState.ExitCode()
}

// Stream is the output of a process that runs.
type Stream struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	ended  bool
	change chan struct{}
}

// NewStream returns an empty Stream.
func NewStream() *Stream { return &Stream{change: make(chan struct{})} }

func (s *Stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changed()
	return s.buf.Write(p)
}

// End says that there is no more output.
func (s *Stream) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.changed()
}

func (s *Stream) changed() {
	close(s.change)
	s.change = make(chan struct{})
}

func (s *Stream) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// Await waits for a match and returns its groups, or nil when none comes.
func (s *Stream) Await(re *regexp.Regexp) []string {
	timeout := time.After(Patience)
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

// PollUntil waits until done is true, for something that no signal tells.
func PollUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	timeout := time.After(Patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
