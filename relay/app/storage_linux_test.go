package app

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
)

// inNamespace tells a test that it runs where it may mount file systems of its
// own: it runs the test again in a new process with a mount namespace, as root
// of a user namespace, and is true in there.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const inside = "SMTP2REST_TEST_NAMESPACE"
	if os.Getenv(inside) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
		t.Skipf("this machine allows no user namespaces: %v", err)
	}
	if strings.Contains(string(out), "may not be mounted") {
		t.Skip("this machine allows no mounts in user namespaces")
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// mount makes a small file system.
func mount(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("test", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("a tmpfs may not be mounted: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// A disk that is really full: nothing is taken that is not kept, what was taken
// before is kept, and all goes on by itself when there is room again.
func TestAFullDisk(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	dir := mount(t, "64m")
	box := newSandbox(t)
	a, log := start(t, load(t, box.URL(), inDir(filepath.Join(dir, "queue"), "min_free = 0\n[delivery]\nretry_first = \"1s\"\nretry_max = \"1s\"")))
	if err := box.SetOutage(sandbox.OutageUnavailable); err != nil {
		t.Fatal(err)
	}
	var kept []string
	next := 0
	hand := func() string {
		next++
		to := fmt.Sprintf("m%d@example.net", next)
		got := handOver(t, a, to)
		if strings.HasPrefix(got, "250 2.0.0 queued ") {
			kept = append(kept, to)
		}
		return got
	}
	for range 5 {
		if got := hand(); !strings.HasPrefix(got, "250 ") {
			t.Fatalf("with room: %q", got)
		}
	}
	ballast := fill(t, dir)
	full := ""
	for range 2000 { // until the room that the queue's files have inside is used up
		if full = hand(); !strings.HasPrefix(full, "250 ") {
			break
		}
	}
	if !strings.HasPrefix(full, "452 4.3.1 ") {
		t.Errorf("with a full disk: %q", full)
	}
	if s := log.String(); !strings.Contains(s, "level=ERROR") || !strings.Contains(s, "0 bytes are free on the disk") {
		t.Errorf("the log does not say that the disk is full:\n%s", s)
	}
	if told := warnings(t, filepath.Join(dir, "queue")); !strings.Contains(told, "disk is full") {
		t.Errorf("an operator is not told why mail waits:\n%s", told)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if got := hand(); !strings.HasPrefix(got, "250 ") {
		t.Errorf("with room again: %q", got)
	}
	if told := warnings(t, filepath.Join(dir, "queue")); strings.Contains(told, "disk is full") {
		t.Errorf("an operator is still told of the disk:\n%s", told)
	}
	if err := box.SetOutage(sandbox.OutageNone); err != nil {
		t.Fatal(err)
	}
	awaitAccepted(t, box, len(kept))
	for _, to := range kept {
		if n := box.AcceptedFor(to); n != 1 {
			t.Errorf("%s was sent %d times", to, n)
		}
	}
}

// fill leaves no room on a file system.
func fill(t *testing.T, dir string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = io.WriteString(f, strings.Repeat("x", size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("filling the disk: %v", err)
		}
	}
	return f.Name()
}

// A data directory that can only be read stops the start and says so.
func TestAReadOnlyDataDirectory(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	dir := mount(t, "64m")
	box := newSandbox(t)
	conf := load(t, box.URL(), inDir(dir, "min_free = 0"))
	a, _ := start(t, conf)
	if got := handOver(t, a, "unavailable@example.net"); !strings.HasPrefix(got, "250 2.0.0 queued ") {
		t.Fatalf("the reply is %q", got)
	}
	if err := stop(a, patience); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("test", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	a, _ = newApp(conf)
	err := a.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "queue.data_dir "+dir) || !strings.Contains(err.Error(), "read-only file system") {
		t.Errorf("Start: %v", err)
		_ = stop(a, patience)
	}
}

// A daemon that finds its disk full says so, and what helps.
func TestAStartOnAFullDisk(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	dir := mount(t, "16k")
	if err := os.WriteFile(filepath.Join(dir, "fill"), make([]byte, 16<<10), 0o600); err != nil {
		t.Logf("filling it: %v", err)
	}
	a, _ := newApp(load(t, newSandbox(t).URL(), inDir(dir, "min_free = 0")))
	err := a.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "queue.data_dir "+dir+": ") || !strings.Contains(err.Error(), "make room on its disk") {
		t.Errorf("Start: %v", err)
	}
}

// What lies in memory or on a container's own layer is told of, once.
func TestAVolatileDataDirectory(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "smtp2rest-test-")
	if err != nil {
		t.Skipf("this machine has no /dev/shm, which is in memory: %v", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	box := newSandbox(t)
	_, log := start(t, load(t, box.URL(), inDir(dir, "")))
	if s := log.String(); strings.Count(s, "the queue will not outlive this machine's next start") != 1 {
		t.Errorf("in memory the log is\n%s", s)
	}
	scratch := New(Options{Config: load(t, box.URL(), inDir(filepath.Join(dir, "scratch"), "")), Log: slog.New(slog.NewTextHandler(log, nil)), Scratch: true})
	if err := scratch.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stop(scratch, patience) })
	if strings.Count(log.String(), "the queue will not outlive") != 1 {
		t.Error("a queue that is meant to be thrown away is warned of")
	}
	for kind, want := range map[int64]string{unix.EXT4_SUPER_MAGIC: "", unix.RAMFS_MAGIC: "in memory", unix.OVERLAYFS_SUPER_MAGIC: "the container's own layer"} {
		if got := volatile(kind); !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%#x: %q, want %q", kind, got, want)
		}
	}
}
