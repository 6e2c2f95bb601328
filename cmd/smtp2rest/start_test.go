//go:build unix

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// start is a place in which a daemon is to fail at its start.
type start struct {
	t   *testing.T
	dir string // everything is in there
	env []string
}

func (s start) path(name string) string { return filepath.Join(s.dir, name) }

func (s start) write(name, text string, mode os.FileMode) string {
	s.t.Helper()
	path := s.path(name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // the umask
		s.t.Fatal(err)
	}
	return path
}

// database gives a file of a store the version of a program to come.
func (s start) database(name string) {
	s.t.Helper()
	daemon := harness.Launch(s.t, s.env, "serve", "--config", s.write("first.toml", "[[listener]]\naddress = \"127.0.0.1:0\"\n", 0o600))
	daemon.Await(daemon.Err, `msg=listening`)
	daemon.Signal(syscall.SIGTERM)
	if code := daemon.Exit(); code != 0 {
		s.t.Fatalf("it ends with %d", code)
	}
	f, err := os.OpenFile(filepath.Join(s.path("data"), name), os.O_RDWR, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt([]byte{0, 0, 0, 99}, 60); err != nil { // user_version
		s.t.Fatal(err)
	}
}

// failures are what keeps a daemon from starting; each returns its file.
func failures() map[string]func(start) string {
	const free = "[[listener]]\naddress = \"127.0.0.1:0\"\n"
	return map[string]func(start) string{
		"a port that is taken": func(s start) string {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				s.t.Fatal(err)
			}
			s.t.Cleanup(func() { _ = l.Close() })
			return fmt.Sprintf("[[listener]]\naddress = %q\n", l.Addr())
		},
		"a port below 1024": func(s start) string {
			return "[[listener]]\naddress = \"127.0.0.1:25\"\n"
		},
		"sockets that systemd did not give": func(s start) string { return "[[listener]]\naddress = \"systemd:smtp\"\n" },
		"a key that all can read": func(s start) string {
			return free + fmt.Sprintf("[api]\nkey_file = %q\n", s.write("key", harness.PlantedKey, 0o644))
		},
		"no key": func(s start) string { return free + fmt.Sprintf("[api]\nkey_file = %q\n", s.path("key")) },
		"a certificate that is not there": func(s start) string {
			return free + fmt.Sprintf("tls = \"starttls\"\ncert_file = %q\nkey_file = %q\n", s.path("cert"), s.path("key"))
		},
		"a key that does not fit": func(s start) string {
			cert, _ := harness.Certificate(s.t, s.dir, "one")
			_, key := harness.Certificate(s.t, s.dir, "two")
			return free + fmt.Sprintf("tls = \"starttls\"\ncert_file = %q\nkey_file = %q\n", cert, key)
		},
		"a data directory that another uses": func(s start) string {
			first := harness.Launch(s.t, s.env, "serve", "--config", s.write("first.toml", free, 0o600))
			first.Await(first.Err, `msg=listening`)
			s.t.Cleanup(func() { first.Signal(syscall.SIGTERM); first.Exit() })
			return free
		},
		"a data directory that is a file": func(s start) string {
			s.write("data", "", 0o600)
			return free
		},
		"a queue of a newer version":  func(s start) string { s.database("queue.db"); return free },
		"records of a newer version":  func(s start) string { s.database("records.db"); return free },
		"a setting that is not known": func(s start) string { return free + "[limits]\nrecipents = 5\n" },
		"a value of the wrong type":   func(s start) string { return free + "[limits]\nrecipients = \"many\"\n" },
		"a value out of range":        func(s start) string { return free + "[limits]\nrecipients = 0\n" },
		"no sender":                   func(s start) string { return free + "[sender]\nemail = \"\"\n" },
		"an open relay":               func(s start) string { return "[[listener]]\naddress = \":0\"\nnetworks = [\"0.0.0.0/0\"]\n" },
	}
}

// Whatever keeps a daemon from starting is told with what, where and how to
// mend it, and with an exit code that says whether a restart can.
func TestFailuresAtStart(t *testing.T) {
	for name, prepare := range failures() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp(harness.Disk(), "start") // a test's own is so long that messages shorten it
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			env := harness.Environ(t, "FROM_EMAIL=hello@mail.shop.test")
			for i, v := range env {
				if strings.HasPrefix(v, "SMTP2REST_DATA_DIR=") {
					env[i] = "SMTP2REST_DATA_DIR=" + filepath.Join(dir, "data")
				}
			}
			if !strings.Contains(name, "no key") && !strings.Contains(name, "can read") {
				env = append(env, "NEXUSPROMAIL_API_KEY="+harness.PlantedKey)
			}
			if name == "no sender" {
				env = append(env, "FROM_EMAIL=")
			}
			s := start{t, dir, env}
			file := s.write("config.toml", prepare(s), 0o600)
			r := s.run(name == "a port below 1024", file)
			said := anonymous(r.Err, dir)
			if strings.Contains(r.All(), "PlantedKey") {
				t.Error("the key is shown")
			}
			golden(t, "start/"+strings.ReplaceAll(name, " ", "-")+".txt", fmt.Sprintf("exit code %d\n%s", r.Code, said))
		})
	}
}

// run starts the daemon, as nobody where root would be allowed too much.
func (s start) run(asNobody bool, file string) harness.Result {
	s.t.Helper()
	if !asNobody || os.Getuid() != 0 {
		return harness.Execute(s.t, s.env, "", "serve", "--config", file)
	}
	if least, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil && len(bytes.TrimSpace(least)) < 4 {
		s.t.Skipf("on this machine everybody may bind ports from %s on", bytes.TrimSpace(least))
	}
	// A link and no copy: a file that was just written cannot be run while a
	// process that another test is starting still has it open (go.dev/issue/22315).
	if err := os.Link(harness.Binary(s.t), s.path("program")); err != nil {
		s.t.Fatal(err)
	}
	const nobody = 65534
	for path, mode := range map[string]os.FileMode{s.dir: 0o711, s.path("program"): 0o755, file: 0o644} {
		if err := os.Chmod(path, mode); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := os.Mkdir(s.path("data"), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chown(s.path("data"), nobody, nobody); err != nil {
		s.t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(s.path("program"), "serve", "--config", file)
	cmd.Env, cmd.Dir, cmd.Stderr = s.env, s.dir, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return harness.Result{Err: stderr.String(), Code: cmd.ProcessState.ExitCode()}
}

// anonymous takes out what differs from run to run.
func anonymous(text, dir string) string {
	text = strings.ReplaceAll(text, dir, "DIR")
	for _, r := range [][2]string{
		{`127\.0\.0\.1:[0-9]{4,5}`, "127.0.0.1:PORT"}, {`process [0-9]+`, "process PID"}, {`\S+ \(pid [0-9]+\)`, "PROGRAM (pid PID)"}, {`known up to [0-9]+`, "known up to N"}, {`(?m)^time=\S+ `, ""},
	} {
		text = regexp.MustCompile(r[0]).ReplaceAllString(text, r[1])
	}
	return text
}
