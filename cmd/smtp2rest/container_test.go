//go:build linux

package main

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

	"github.com/smtp2rest/smtp2rest/relay/config"
)

const maxImage = 20_000_000

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
	text, err := os.ReadFile("../../Dockerfile")
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
		cmd := exec.Command("sh", "-c", img.build+" -o "+target+" .")
		cmd.Env = append(os.Environ(), "VERSION="+testVersion)
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
	if size > maxImage {
		t.Errorf("the image has %d bytes, at most %d", size, maxImage)
	}
	env := append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, img.env...)

	demo := launchCommand(t, env, img.command(append(img.entrypoint, "demo")...))
	<-demo.done
	if code := demo.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("demo exits with %d", code)
	}
	version := launchCommand(t, env, img.command(append(img.entrypoint, "version")...))
	if got := version.await(version.out, `smtp2rest (\S+)`); got != testVersion {
		t.Errorf("the version is %q, not stamped", got)
	}

	// As a sidecar: settings from the environment alone.
	serve := launchCommand(t, append(env, "NEXUSPROMAIL_API_KEY=k", "FROM_EMAIL=a@mail.example.com",
		"NEXUSPROMAIL_API_URL=http://127.0.0.1:1/api"), img.command(append(img.entrypoint, "serve")...))
	if serve.await(serve.err, `(msg=listening|uses this port)`) == "uses this port" {
		t.Skip("port 2525, the default, is taken on this machine: ", serve.err)
	}
	health := launchCommand(t, env, img.command(img.health...))
	<-health.done
	if code := health.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("%v exits with %d", img.health, code)
	}
	_ = serve.cmd.Process.Signal(syscall.SIGTERM)
	<-serve.done
	if code := serve.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("serve exits with %d", code)
	}
	after := launchCommand(t, env, img.command(img.health...))
	<-after.done
	if code := after.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("%v exits with %d when nothing runs", img.health, code)
	}
}

// manifest is what the documents' examples have that is ours to get right.
type manifest struct {
	Kind string            `json:"kind"`
	Data map[string]string `json:"data"`
	Spec struct {
		Template struct {
			Spec struct {
				InitContainers, Containers []containerSpec
			} `json:"spec"`
		} `json:"template"`
	} `json:"spec"`
	Services map[string]struct {
		Image       string            `json:"image"`
		Environment map[string]string `json:"environment"`
		Volumes     []string          `json:"volumes"`
		ReadOnly    bool              `json:"read_only"`
	} `json:"services"`
}

type containerSpec struct {
	Name  string                                     `json:"name"`
	Image string                                     `json:"image"`
	Args  []string                                   `json:"args"`
	Env   []struct{ Name, Value string }             `json:"env"`
	Ports []struct{ ContainerPort int }              `json:"ports"`
	Mount []struct{ Name, MountPath string }         `json:"volumeMounts"`
	Start *struct{ Exec struct{ Command []string } } `json:"startupProbe"`
	Live  *probeSpec                                 `json:"livenessProbe"`
	Ready *probeSpec                                 `json:"readinessProbe"`

	SecurityContext struct {
		ReadOnlyRootFilesystem, RunAsNonRoot bool
	} `json:"securityContext"`
}

type probeSpec struct {
	Exec    *struct{ Command []string }
	HTTPGet *struct{ Path, Port string } `json:"httpGet"`
}

// manifests reads a file of YAML by Python, which has a reader for it.
func manifests(t *testing.T, path string) (list []manifest) {
	t.Helper()
	needs(t, "/usr/lib/python3/dist-packages/yaml")
	const script = `import json, sys, yaml; json.dump(list(yaml.safe_load_all(open(sys.argv[1]))), sys.stdout)`
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	r := executeTool(t, environ(t), "", tool(t, "/usr/bin/python3"), "-c", script, path)
	if err := json.Unmarshal([]byte(r.out), &list); err != nil {
		t.Fatalf("%s: %v\n%s", path, err, r.err)
	}
	return list
}

// What the examples say of us is true: variables that are read, settings that
// load, commands that exist, the volume where the queue is.
func TestContainerExamples(t *testing.T) {
	img := readDockerfile(t)
	paths, err := filepath.Glob("../../docs/containers/*.yaml")
	if err != nil || len(paths) < 3 {
		t.Fatalf("%v, %v", paths, err)
	}
	for _, path := range paths {
		seen := 0
		for _, m := range manifests(t, path) {
			spec := m.Spec.Template.Spec
			for _, c := range append(spec.InitContainers, spec.Containers...) {
				if c.Image == "smtp2rest" {
					seen++
					checkContainer(t, path, c, img)
				}
			}
			if toml, ok := m.Data["config.toml"]; ok {
				checkSettings(t, path, toml)
			}
			for _, s := range m.Services {
				if s.Image != "smtp2rest" {
					continue
				}
				seen++
				for name := range s.Environment {
					checkVariable(t, path, name)
				}
				if !s.ReadOnly || len(s.Volumes) != 1 || !strings.HasSuffix(s.Volumes[0], ":/var/lib/smtp2rest") {
					t.Errorf("%s: %+v", path, s)
				}
			}
		}
		if seen != 1 {
			t.Errorf("%s has %d relays", path, seen)
		}
	}
}

func checkContainer(t *testing.T, path string, c containerSpec, img *image) {
	t.Helper()
	for _, e := range c.Env {
		checkVariable(t, path, e.Name)
	}
	if len(c.Args) > 0 {
		if err := parseable(c.Args); err != nil {
			t.Errorf("%s: %v: %v", path, c.Args, err)
		}
	}
	if !c.SecurityContext.ReadOnlyRootFilesystem || !c.SecurityContext.RunAsNonRoot || c.Mount[0].MountPath != "/var/lib/smtp2rest" {
		t.Errorf("%s: %+v", path, c)
	}
	if c.Live == nil {
		t.Fatalf("%s has no liveness probe", path)
	}
	for _, p := range []*probeSpec{c.Live, c.Ready} {
		switch {
		case p == nil:
		case p.Exec != nil && strings.Join(p.Exec.Command, " ") != strings.Join(img.health, " "):
			t.Errorf("%s: %v is not the image's health check", path, p.Exec.Command)
		case p.HTTPGet != nil && p.HTTPGet.Path != "/livez" && p.HTTPGet.Path != "/readyz":
			t.Errorf("%s: there is no %s", path, p.HTTPGet.Path)
		}
	}
}

// checkVariable fails for a variable that nobody reads.
func checkVariable(t *testing.T, path, name string) {
	t.Helper()
	for _, sec := range config.Reference() {
		for _, s := range sec.Settings {
			if s.Env != "" && (name == s.Env || s.Secret && name == s.Env+"_FILE") {
				return
			}
		}
	}
	t.Errorf("%s: nothing reads %s", path, name)
}
