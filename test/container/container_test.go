//go:build linux

// Package container makes and runs what the Dockerfile describes, without an
// engine.
package container

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

const maxImage = 32_000_000

// image is what the last stage of the Dockerfile makes.
type image struct {
	root       string // its content
	build      string // the command that built the program
	env        []string
	user       string
	entrypoint []string
	health     []string
}

// readDockerfile builds the content of the image as the Dockerfile has it. It
// knows no more instructions than that file uses, and fails on others.
func readDockerfile(t *testing.T) *image {
	t.Helper()
	text, err := os.ReadFile(harness.File(t, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	_, last, found := strings.Cut(string(text), "\nFROM scratch\n")
	if !found {
		t.Fatal("the image is not built from scratch")
	}
	img := &image{root: t.TempDir()}
	img.build = regexp.MustCompile(`(?m)^RUN (.*go build .*) -o /smtp2rest \./cmd/smtp2rest$`).FindStringSubmatch(string(text))[1]
	for line := range strings.Lines(strings.ReplaceAll(last, "\\\n", "")) {
		line, _, _ = strings.Cut(line, "#")
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "", "VOLUME", "CMD":
		case "COPY":
			img.copy(t, strings.Fields(rest))
		case "ENV":
			img.env = append(img.env, rest)
		case "USER":
			img.user = rest
		case "ENTRYPOINT":
			img.entrypoint = words(t, rest)
		case "HEALTHCHECK":
			_, command, _ := strings.Cut(rest, "CMD ")
			img.health = words(t, command)
		default:
			t.Fatalf("what does %s do to the image?", word)
		}
	}
	return img
}

func words(t *testing.T, list string) (all []string) {
	t.Helper()
	if err := json.Unmarshal([]byte(list), &all); err != nil {
		t.Fatalf("%s: %v", list, err)
	}
	return all
}

// copy does one COPY from the first stage.
func (img *image) copy(t *testing.T, args []string) {
	t.Helper()
	from, to := args[len(args)-2], args[len(args)-1]
	target := filepath.Join(img.root, to)
	if strings.HasSuffix(to, "/") {
		target = filepath.Join(target, filepath.Base(from))
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		t.Fatal(err)
	}
	switch from {
	case "/smtp2rest":
		if !harness.All() {
			img.copyBuilt(t, target)
			return
		}
		cmd := exec.Command("sh", "-c", img.build+" -o "+target+" ./cmd/smtp2rest")
		cmd.Dir = harness.File(t, "")
		cmd.Env = append(os.Environ(), "VERSION="+harness.Version)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", img.build, err, out)
		}
	case "/empty":
		if err := os.Mkdir(target, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(target, 65532, 65532); err != nil {
			t.Fatal(err)
		}
	default:
		data, err := os.ReadFile(from)
		if err != nil {
			t.Skipf("the content of the image is not here: %v", err)
		}
		if err := os.WriteFile(target, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// copyBuilt copies the program that other tests have built, with the libraries it needs.
// The Dockerfile's own command compiles everything once more, for a program without any.
func (img *image) copyBuilt(t *testing.T, target string) {
	t.Helper()
	binary := harness.Binary(t)
	copyFile(t, binary, target)
	list, _ := exec.Command("ldd", binary).Output() // it fails where there are none
	for _, library := range regexp.MustCompile(`/\S+`).FindAllString(string(list), -1) {
		copyFile(t, library, filepath.Join(img.root, library))
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

// command runs the image's program as an engine would with --read-only and a
// volume for the queue: as its user, with its environment and no other, in an
// empty root that cannot be written to.
func (img *image) command(args ...string) *exec.Cmd {
	const script = `root=$1; user=$2; shift 2
mount --bind "$root" "$root" && mount --bind "$root/var/lib/smtp2rest" "$root/var/lib/smtp2rest" &&
mount -o remount,ro,bind "$root" && mount -o remount,rw,bind "$root/var/lib/smtp2rest" &&
exec chroot --userspec="$user" "$root" "$@"`
	cmd := exec.Command("sh", append([]string{"-c", script, "sh", img.root, img.user}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return cmd
}

// mayMount skips where the test cannot make a root of its own.
func mayMount(t *testing.T) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `mount --bind "$1" "$1"`, "sh", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("a root of its own needs the right to mount: %v %s", err, out)
	}
}

// No image can be built where there is no engine, but what it would hold can
// be: the program in an empty, read-only root, as a user without rights.
func TestContainer(t *testing.T) {
	mayMount(t)
	img := readDockerfile(t)
	if img.user != "65532:65532" {
		t.Errorf("it runs as %s", img.user)
	}
	var size int64
	_ = filepath.WalkDir(img.root, func(_ string, d fs.DirEntry, err error) error {
		if info, infoErr := d.Info(); err == nil && infoErr == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return nil
	})
	t.Logf("the image has %.1f MB", float64(size)/1e6)
	if harness.All() && size > maxImage {
		t.Errorf("the image has %d bytes, at most %d", size, maxImage)
	}
	env := append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, img.env...)

	demo := harness.LaunchCommand(t, env, img.command(append(img.entrypoint, "demo")...))
	<-demo.Done
	if code := demo.Cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("demo exits with %d", code)
	}
	version := harness.LaunchCommand(t, env, img.command(append(img.entrypoint, "version")...))
	if got := version.Await(version.Out, `smtp2rest (\S+)`); got != harness.Version {
		t.Errorf("the version is %q, not stamped", got)
	}

	// As a sidecar: settings from the environment alone.
	serve := harness.LaunchCommand(t, append(env, "NEXUSPROMAIL_API_KEY=k", "FROM_EMAIL=a@mail.example.com",
		"NEXUSPROMAIL_API_URL=http://127.0.0.1:1/api"), img.command(append(img.entrypoint, "serve")...))
	if serve.Await(serve.Err, `(msg=listening|uses this port)`) == "uses this port" {
		t.Skip("port 2525, the default, is taken on this machine: ", serve.Err)
	}
	health := harness.LaunchCommand(t, env, img.command(img.health...))
	<-health.Done
	if code := health.Cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("%v exits with %d", img.health, code)
	}
	_ = serve.Cmd.Process.Signal(syscall.SIGTERM)
	<-serve.Done
	if code := serve.Cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("serve exits with %d", code)
	}
	after := harness.LaunchCommand(t, env, img.command(img.health...))
	<-after.Done
	if code := after.Cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("%v exits with %d when nothing runs", img.health, code)
	}
}
