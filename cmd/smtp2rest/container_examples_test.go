package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

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
	harness.Needs(t, "/usr/lib/python3/dist-packages/yaml")
	const script = `import json, sys, yaml; json.dump(list(yaml.safe_load_all(open(sys.argv[1]))), sys.stdout)`
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	r := harness.ExecuteTool(t, harness.Environ(t), "", harness.Tool(t, "/usr/bin/python3"), "-c", script, path)
	if err := json.Unmarshal([]byte(r.Out), &list); err != nil {
		t.Fatalf("%s: %v\n%s", path, err, r.Err)
	}
	return list
}

// What the examples say of us is true: variables that are read, settings that
// load, commands that exist, the volume where the queue is.
func TestContainerExamples(t *testing.T) {
	dockerfile, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^HEALTHCHECK .*CMD (\[.*\])$`).FindSubmatch(dockerfile)
	var health []string
	if m == nil || json.Unmarshal(m[1], &health) != nil {
		t.Fatal("the Dockerfile has no health check any more")
	}
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
					checkContainer(t, path, c, health)
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

func checkContainer(t *testing.T, path string, c containerSpec, health []string) {
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
		case p.Exec != nil && strings.Join(p.Exec.Command, " ") != strings.Join(health, " "):
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
