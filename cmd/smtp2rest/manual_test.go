package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Every command has a page and every page is one that man(1) can show without
// a warning.
func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	if r := execute(t, environ(t), "", "man", "--dir", dir); r.code != exitOK {
		t.Fatalf("%+v", r)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "man[15]", "*"))
	if err != nil || len(pages) != len(commands())+2 {
		t.Fatalf("%d pages of %d commands, one overview and one file (%v)", len(pages), len(commands()), err)
	}
	groff, err := exec.LookPath("groff")
	for _, page := range pages {
		text, readErr := os.ReadFile(page)
		if readErr != nil || !strings.HasPrefix(string(text), ".TH ") {
			t.Errorf("%s is no page: %v", page, readErr)
		}
		if err != nil {
			continue
		}
		out, err := exec.Command(groff, "-man", "-Tutf8", "-ww", "-z", page).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", filepath.Base(page), err, out)
		}
	}
}

func TestOneManualPage(t *testing.T) {
	for page, want := range map[string]string{"": "COMMANDS", "config": "api.timeout", "queue": "QUEUE DROP", "sendmail": "sysexits"} {
		args := []string{"man"}
		if page != "" {
			args = append(args, page)
		}
		if r := execute(t, environ(t), "", args...); r.code != exitOK || !strings.Contains(r.out, want) {
			t.Errorf("man %s: no %q in %+v", page, want, r)
		}
	}
	if r := execute(t, environ(t), "", "man", "queu"); r.code != exitUsage || !strings.Contains(r.err, `"queue"`) {
		t.Errorf("%+v", r)
	}
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		r := execute(t, environ(t), "", "completion", shell)
		if r.code != exitOK {
			t.Errorf("%s: %+v", shell, r)
		}
		for _, c := range commands() {
			if !strings.Contains(r.out, c.name) {
				t.Errorf("%s does not know %s", shell, c.name)
			}
		}
	}
	if r := execute(t, environ(t), "", "completion", "csh"); r.code != exitUsage {
		t.Errorf("csh: %+v", r)
	}
}
