package completion

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func example() []Command {
	return []Command{
		{Name: "serve", Summary: "Run it.", Flags: []string{"--sandbox", "--config"}},
		{Name: "explain", Summary: "What becomes of it.", Flags: []string{"--to"}, Files: true},
		{Name: "queue", Summary: "What's there.", Flags: []string{"--json"}, Verbs: []Command{
			{Name: "show", Summary: "One.", Flags: []string{"--raw"}},
			{Name: "drop", Summary: "Away.", Flags: []string{"--yes"}},
		}},
	}
}

// A real bash runs the script and completes real words.
func TestBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mail.eml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ line, want string }{
		{"", "help serve explain queue"},
		{"s", "serve"},
		{"help q", "queue"},
		{"serve --", "--config --sandbox"},
		{"serve --sandbox --c", "--config"},
		{"queue ", "show drop --json"},
		{"queue sh", "show"},
		{"queue show ", "--raw"},
		{"queue --json --j", "--json"},
		{"queue drop x --y", "--yes"},
		{"explain m", "mail.eml"},
		{"serve --config ma", "mail.eml"},
		{"nothing x", ""},
	} {
		words := append([]string{"smtp2rest"}, strings.Split(tt.line, " ")...)
		quoted := "'" + strings.Join(words, "' '") + "'"
		script := Script("bash", example()) + "\nCOMP_WORDS=(" + quoted + ")\nCOMP_CWORD=$((${#COMP_WORDS[@]}-1))\n_smtp2rest\necho \"${COMPREPLY[*]}\"\n"
		cmd := exec.Command(bash, "--norc", "-c", script)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != tt.want {
			t.Errorf("%q completes to %q (%v), want %q", tt.line, got, err, tt.want)
		}
	}
}

func TestFish(t *testing.T) {
	fish, err := exec.LookPath("fish")
	if err != nil {
		t.Skip("fish is not installed")
	}
	for _, tt := range []struct{ line, want string }{
		{"smtp2rest se", "serve"},
		{"smtp2rest queue sh", "show"},
		{"smtp2rest serve --sa", "--sandbox"},
	} {
		out, err := exec.Command(fish, "--no-config", "-c", Script("fish", example())+"\ncomplete -C '"+tt.line+"'").CombinedOutput()
		if got, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\t"); err != nil || got != tt.want {
			t.Errorf("%q completes to %q (%v), want %q", tt.line, out, err, tt.want)
		}
	}
}

func TestEachShellHasAScript(t *testing.T) {
	for _, shell := range Shells() {
		script := Script(shell, example())
		for _, word := range []string{"serve", "explain", "queue", "show", "sandbox", "raw"} {
			if !strings.Contains(script, word) {
				t.Errorf("%s: %q is missing", shell, word)
			}
		}
	}
	if Script("csh", example()) != "" {
		t.Error("there is a script for csh")
	}
}
