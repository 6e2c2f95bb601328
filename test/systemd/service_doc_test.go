package systemd

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(harness.File(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What docs/service.md has an operator type is run as written, in another
// place and without systemd.
func TestServiceByHand(t *testing.T) {
	m := regexp.MustCompile("(?s)<!-- by hand -->\n```sh\n(.*?)```").FindStringSubmatch(read(t, "docs/service.md"))
	if m == nil {
		t.Fatal("the commands are not there any more")
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"bin", "clone", "units"} {
		if err := os.Mkdir(at(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"clone/smtp2rest": harness.Binary(t), "clone/systemd": harness.File(t, "systemd")} {
		if err := os.Symlink(to, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"sudo": `exec "$@"`, "systemctl": `echo "systemctl $*"`} {
		if err := os.WriteFile(at("bin/"+name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script := strings.NewReplacer("/usr/local/bin", at("bin"), "/etc/smtp2rest", at("etc"), "/etc/systemd/system", at("units"),
		"sudo smtp2rest status", "sudo smtp2rest status || [ $? = 3 ]").Replace(m[1])
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir, cmd.Stdin = at("clone"), strings.NewReader("the-key\n")
	cmd.Env = append(harness.Environ(t, "NEXUSPROMAIL_API_KEY_FILE="+at("etc/nexuspromail_api_key")), "PATH="+at("bin")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("config.toml is good.\n")) || !bytes.Contains(out, []byte("systemctl enable --now smtp2rest\n")) {
		t.Fatalf("%v\n%s", err, out)
	}
	key, err := os.ReadFile(at("etc/nexuspromail_api_key"))
	if err != nil || string(key) != "the-key\n" {
		t.Errorf("the key is %q, %v", key, err)
	}
	if info, err := os.Stat(at("etc/nexuspromail_api_key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info, err)
	}
	if _, err := os.Stat(at("units/smtp2rest.service")); err != nil {
		t.Error(err)
	}
}

// systemd takes the drop-ins that docs/service.md has, and we would see if not.
func TestServiceDropIns(t *testing.T) {
	tool := harness.Tool(t, "systemd-analyze")
	verify := func(dropIn string) string {
		dir := t.TempDir()
		text := strings.ReplaceAll(read(t, "systemd/smtp2rest.service"), "/usr/local/bin/smtp2rest", harness.Binary(t))
		service := filepath.Join(dir, "smtp2rest.service")
		if err := os.Mkdir(service+".d", 0o755); err != nil {
			t.Fatal(err)
		}
		for path, text := range map[string]string{service: text, service + ".d/override.conf": dropIn} {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		out, err := exec.Command(tool, "verify", "--man=no", service).CombinedOutput()
		if err != nil {
			return fmt.Sprintf("%v\n%s", err, out)
		}
		return string(out)
	}
	if said := verify("[Service]\nSupplementaryGroup=x\n"); said == "" {
		t.Fatal("systemd-analyze does not look into drop-ins")
	}
	seen := 0
	for _, m := range regexp.MustCompile("(?s)```ini\n(.*?)```").FindAllStringSubmatch(read(t, "docs/service.md"), -1) {
		seen++
		if said := verify(m[1]); said != "" {
			t.Errorf("docs/service.md has\n%s\n%s", m[1], said)
		}
	}
	if seen < 3 {
		t.Errorf("only %d drop-ins were found", seen)
	}
}
