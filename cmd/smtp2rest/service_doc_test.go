package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func serviceDoc(t *testing.T) document {
	t.Helper()
	path := filepath.Join("..", "..", "docs", "service.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return document{path, string(text)}
}

// What docs/service.md has an operator type is run as written, in another
// place and without systemd.
func TestServiceByHand(t *testing.T) {
	m := regexp.MustCompile("(?s)<!-- by hand -->\n```sh\n(.*?)```").FindStringSubmatch(serviceDoc(t).text)
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
	units, err := filepath.Abs(unitsDir)
	if err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"clone/smtp2rest": binary, "clone/systemd": units} {
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
	cmd.Env = append(environ(t, "NEXUSPROMAIL_API_KEY_FILE="+at("etc/nexuspromail_api_key")), "PATH="+at("bin")+":"+os.Getenv("PATH"))
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
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skipf("systemd-analyze is not on this machine, which comes with systemd: %v", err)
	}
	verify := func(dropIn string) string {
		dir := t.TempDir()
		text, err := os.ReadFile(filepath.Join(unitsDir, "smtp2rest.service"))
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.ReplaceAll(text, []byte("/usr/local/bin/smtp2rest"), []byte(binary))
		service := filepath.Join(dir, "smtp2rest.service")
		if err := os.Mkdir(service+".d", 0o755); err != nil {
			t.Fatal(err)
		}
		for path, text := range map[string]string{service: string(text), service + ".d/override.conf": dropIn} {
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
	for _, b := range serviceDoc(t).blocks() {
		if b.lang != "ini" {
			continue
		}
		seen++
		if said := verify(b.text); said != "" {
			t.Errorf("docs/service.md:%d: %s", b.line, said)
		}
	}
	if seen < 3 {
		t.Errorf("only %d drop-ins were found", seen)
	}
}
