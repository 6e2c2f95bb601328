package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// Every command has a page and every page is one that man(1) can show without
// a warning.
func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	if r := harness.Execute(t, harness.Environ(t), "", "man", "--dir", dir); r.Code != terminal.ExitOK {
		t.Fatalf("%+v", r)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "man[15]", "*"))
	if err != nil || len(pages) < len(everyCommand())+2 {
		t.Fatalf("%d pages of %d commands, one overview and one file (%v)", len(pages), len(everyCommand()), err)
	}
	groff, err := exec.LookPath("groff")
	for _, page := range pages {
		text, readErr := os.ReadFile(page)
		if readErr != nil || !strings.Contains(string(text), "\n.TH ") {
			t.Errorf("%s is no page: %v", page, readErr)
		}
		if err != nil {
			continue
		}
		out, err := exec.Command(groff, "-k", "-man", "-Tutf8", "-ww", "-z", page).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", filepath.Base(page), err, out)
		}
	}
}

func TestOneManualPage(t *testing.T) {
	for page, want := range map[string]string{"": "SYNOPSIS", "config": "api.timeout", "queue": "smtp2rest-queue-drop", "queue drop": "cannot be undone", "sendmail": "sysexits"} {
		args := []string{"man"}
		args = append(args, strings.Fields(page)...)
		if r := harness.Execute(t, harness.Environ(t), "", args...); r.Code != terminal.ExitOK || !strings.Contains(r.Out, want) {
			t.Errorf("man %s: no %q in %+v", page, want, r)
		}
	}
	if r := harness.Execute(t, harness.Environ(t), "", "man", "queu"); r.Code != terminal.ExitUsage || !strings.Contains(r.Err, `"queue"`) {
		t.Errorf("%+v", r)
	}
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if r := harness.Execute(t, harness.Environ(t), "", "completion", shell); r.Code != terminal.ExitOK || !strings.Contains(r.Out, "smtp2rest") {
			t.Errorf("%s: %+v", shell, r)
		}
	}
	// The scripts ask the program itself what can follow.
	for line, want := range map[string]string{"que": "queue", "queue sh": "show", "queue drop --y": "--yes", "help tra": "trace", "check --pro": "--probe"} {
		r := harness.Execute(t, harness.Environ(t), "", append([]string{"__complete"}, strings.Split(line, " ")...)...)
		if r.Code != terminal.ExitOK || !strings.HasPrefix(r.Out, want) {
			t.Errorf("%q is completed by %+v, want %q", line, r, want)
		}
	}
}

// A real bash and a real fish run the scripts, and complete real words.
func TestCompletionInShells(t *testing.T) {
	path := "PATH=" + filepath.Dir(harness.Binary(t)) + ":" + os.Getenv("PATH")
	for shell, script := range map[string]string{
		"fish": "smtp2rest completion fish | source; complete -C 'smtp2rest queue sh'",
		"bash": `_get_comp_words_by_ref() { cur=sh prev=queue words=(smtp2rest queue sh) cword=2; }
source <(smtp2rest completion bash); COMP_LINE="smtp2rest queue sh" COMP_POINT=18 COMP_WORDS=(smtp2rest queue sh) COMP_CWORD=2
__start_smtp2rest; echo "${COMPREPLY[*]}"`,
	} {
		t.Run(shell, func(t *testing.T) {
			tool, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("%s is not installed", shell)
			}
			r := harness.ExecuteTool(t, append(harness.Environ(t), path), "", tool, "-c", script)
			if r.Code != 0 || !strings.HasPrefix(r.Out, "show") {
				t.Errorf("%+v", r)
			}
		})
	}
}
