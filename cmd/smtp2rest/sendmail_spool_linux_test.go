package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// spooled is a relay that is away, with the directory in which sendmail keeps mail for it.
type spooled struct {
	t       *testing.T
	dir     string
	env     []string // of sendmail and of the relay
	config  string
	sandbox string
}

// newSpooled has the relay listen at a fixed address, so that sendmail knows it while it is
// away.
func newSpooled(t *testing.T, more string) *spooled {
	t.Helper()
	_, api, sandbox := harness.SandboxProcess(t, "--key", harness.PlantedKey)
	s := &spooled{t: t, dir: filepath.Join(t.TempDir(), "spool"), sandbox: sandbox}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(s.dir, 0o3733); err != nil {
		t.Fatal(err)
	}
	at := harness.FreeAddress(t)
	s.env = harness.Environ(t, append(api, "SMTP2REST_SMTP="+at, "SMTP2REST_SPOOL="+s.dir)...)
	s.config = harness.ConfigFile(t, "[[listener]]\naddress = \""+at+"\"\n"+more)
	return s
}

func (s *spooled) serve() *harness.Process {
	s.t.Helper()
	p := harness.Launch(s.t, s.env, "serve", "--config", s.config)
	p.Await(p.Err, `(msg=listening) `)
	return p
}

func (s *spooled) sendmail(args ...string) harness.Result {
	s.t.Helper()
	return harness.ExecuteTool(s.t, s.env, "Subject: s\n\nb\n", harness.Linked(s.t, "sendmail"), args...)
}

func (s *spooled) files() (names []string) {
	list, _ := os.ReadDir(s.dir)
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// empty waits until everything was handed over.
func (s *spooled) empty() {
	s.t.Helper()
	harness.PollUntil(s.t, "the spool to be empty", func() bool { return len(s.files()) == 0 })
}

// sendmail keeps mail while the daemon is away; when it is back, the mail arrives once, by
// the id that was printed.
func TestSendmailKeepsMail(t *testing.T) {
	s := newSpooled(t, "")
	got := s.sendmail("-v", "-f", "ops@mail.example.com", "bob@example.net")
	names := s.files()
	if got.Code != 0 || got.Err != "" || len(names) != 1 || !strings.Contains(got.Out, "The mail is kept in "+s.dir+" with the id "+names[0]+".") {
		t.Fatalf("%+v with %v", got, names)
	}
	id := names[0]
	if info, err := os.Stat(filepath.Join(s.dir, id)); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
	file, err := os.ReadFile(filepath.Join(s.dir, id))
	if err != nil {
		t.Fatal(err)
	}
	p := s.serve()
	s.empty()
	p.Await(p.Err, `(outcome=accepted)`)
	if trace := harness.Execute(t, s.env, "", "trace", id); trace.Code != 0 || !strings.Contains(trace.Out, "taken over from sendmail") || !strings.Contains(trace.Out, "kept by sendmail of uid ") {
		t.Errorf("%+v", trace)
	}
	// The relay dies between its 250 and the end of the file.
	p.Signal(syscall.SIGKILL)
	p.Exit()
	if err := os.WriteFile(filepath.Join(s.dir, id), file, 0o640); err != nil {
		t.Fatal(err)
	}
	p = s.serve()
	s.empty()
	if got := s.sendmail("eve@example.net"); got.Code != 0 || len(s.files()) != 0 {
		t.Errorf("with the relay there: %+v, %v", got, s.files())
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if n := len(harness.CallsTo(t, s.sandbox, "bob@example.net")); n != 1 {
		t.Errorf("bob got it %d times", n)
	}
}

// What the relay refuses by its rules when it is back, the sender is told.
func TestSendmailKeepsMailThatIsRefused(t *testing.T) {
	s := newSpooled(t, "[rules]\ndeny_recipients = [\"eve@example.net\"]\n")
	if got := s.sendmail("-f", "ops@mail.example.com", "eve@example.net", "bob@example.net"); got.Code != 0 {
		t.Fatalf("%+v", got)
	}
	id := s.files()[0]
	p := s.serve()
	s.empty()
	harness.PollUntil(t, "the bounce", func() bool { return len(harness.CallsTo(t, s.sandbox, "ops@mail.example.com")) == 1 })
	if text := harness.CallsTo(t, s.sandbox, "ops@mail.example.com")[0].Body.Text; !strings.Contains(text, "eve@example.net") || !strings.Contains(text, "550 5.7.1") {
		t.Errorf("the bounce says %s", text)
	}
	harness.PollUntil(t, "bob's mail", func() bool { return len(harness.CallsTo(t, s.sandbox, "bob@example.net")) == 1 })
	if list := harness.Execute(t, s.env, "", "queue", "list", "--state", "failed"); !strings.Contains(list.Out, id+".") || !strings.Contains(list.Out, "eve@example.net") {
		t.Errorf("%s", list.All())
	}
	_ = p
}

// More recipients than the relay takes at once.
func TestSendmailKeepsMailToMany(t *testing.T) {
	s := newSpooled(t, "")
	args := []string{"-f", "ops@mail.example.com"}
	for i := range 150 {
		args = append(args, fmt.Sprintf("u%d@example.net", i))
	}
	if got := s.sendmail(args...); got.Code != 0 {
		t.Fatalf("%+v", got)
	}
	s.serve()
	s.empty()
	harness.PollUntil(t, "all to have it", func() bool { return len(harness.AllCalls(t, s.sandbox)) >= 150 })
	for _, to := range []string{"u0@example.net", "u99@example.net", "u100@example.net", "u149@example.net"} {
		if n := len(harness.CallsTo(t, s.sandbox, to)); n != 1 {
			t.Errorf("%s got it %d times", to, n)
		}
	}
}

// A relay that answers "later" leaves the mail in the spool, and status says so.
func TestSendmailKeepsMailThatMustWait(t *testing.T) {
	s := newSpooled(t, "[limits]\nrate_per_sender = \"1/day\"\n")
	s.serve()
	for _, to := range []string{"bob@example.net", "eve@example.net"} {
		if got := s.sendmail("-f", "ops@mail.example.com", to); got.Code != 0 {
			t.Fatalf("%+v", got)
		}
	}
	if len(s.files()) != 1 {
		t.Fatalf("%v", s.files())
	}
	harness.PollUntil(t, "status to say why it waits", func() bool {
		said := harness.Execute(t, s.env, "", "status").Out
		return strings.Contains(said, "1 mail waits in the spool of sendmail") && strings.Contains(said, "450 4.7.1")
	})
}

// Without a place, the caller hears 75 as ever, and nothing is left half written.
func TestSendmailCannotKeepMail(t *testing.T) {
	s := newSpooled(t, "")
	if err := os.Remove(s.dir); err != nil {
		t.Fatal(err)
	}
	if got := s.sendmail("bob@example.net"); got.Code != 75 || !strings.Contains(got.Err, "it cannot be kept either") {
		t.Errorf("%+v", got)
	}
	env := append(slices.Clone(s.env), "SMTP2REST_SPOOL=")
	if got := harness.ExecuteTool(t, env, "b\n", harness.Linked(t, "sendmail"), "bob@example.net"); got.Code != 75 || strings.Contains(got.Err, "kept") {
		t.Errorf("%+v", got)
	}
	refused := fake(t, "tcp", "127.0.0.1:0", map[string]string{"RCPT": "550 5.1.1 nobody"})
	if got := harness.ExecuteTool(t, append(slices.Clone(s.env), "SMTP2REST_SMTP="+refused.Addr().String()), "b\n", harness.Linked(t, "sendmail"), "bob@example.net"); got.Code != 67 {
		t.Errorf("a refusal: %+v", got)
	}
	full := fullDisk(t)
	got := harness.ExecuteTool(t, append(slices.Clone(s.env), "SMTP2REST_SPOOL="+full), "b\n", harness.Linked(t, "sendmail"), "bob@example.net")
	if list, err := os.ReadDir(full); got.Code != 75 || !strings.Contains(got.Err, "MiB left") || err != nil || len(list) != 0 {
		t.Errorf("%+v; %v, %v", got, list, err)
	}
}

// fullDisk is a directory on a disk with less room than is left free.
func fullDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("this user can mount nothing: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// Mail of another user is read by the relay's group, and its owner is known.
func TestSendmailOfAnotherUser(t *testing.T) {
	harness.AsRoot(t, "sendmail of another user")
	s := newSpooled(t, "")
	for dir := s.dir; dir != "/"; dir = filepath.Dir(dir) { // another user has to get there
		if info, err := os.Stat(dir); err == nil && dir != s.dir && info.Mode().Perm()&0o001 == 0 {
			if err := os.Chmod(dir, info.Mode().Perm()|0o711); err != nil {
				t.Fatal(err)
			}
		}
	}
	tool := filepath.Join("/tmp", filepath.Base(t.TempDir())+"-sendmail")
	if out, err := exec.Command("cp", harness.Binary(t), tool).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	t.Cleanup(func() { _ = os.Remove(tool) })
	cmd := exec.Command(tool, "sendmail", "bob@example.net")
	cmd.Env, cmd.Stdin = s.env, strings.NewReader("Subject: s\n\nb\n")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	id := s.files()[0]
	s.serve()
	s.empty()
	if got := harness.Execute(t, s.env, "", "trace", id); !strings.Contains(got.Out, "kept by sendmail of uid 65534") {
		t.Errorf("%+v", got)
	}
}
