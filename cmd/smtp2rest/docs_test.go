package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/sendmail"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// document is one of the files that people read.
type document struct{ path, text string }

func documents(t *testing.T) []document {
	t.Helper()
	top := filepath.Join("..", "..")
	paths := []string{filepath.Join(top, "README.md"), filepath.Join(top, "CONTRIBUTING.md"), filepath.Join(top, "SECURITY.md")}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(top, pattern))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	var list []document
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, document{p, string(text)})
	}
	return list
}

// block is a piece of code in a document.
type block struct {
	lang, text string
	line       int
}

// blocks are fenced by ``` or, for the shell, set in by four spaces.
func (d document) blocks() (list []block) {
	var open *block
	for i, line := range strings.Split(d.text, "\n") {
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && open == nil:
			open = &block{lang: fence, line: i + 1}
		case isFence:
			list = append(list, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		case strings.HasPrefix(line, "    "):
			list = append(list, block{lang: "sh", text: strings.TrimSpace(line) + "\n", line: i + 1})
		}
	}
	return list
}

// A command that is in the documents can be run: the command, its verb and
// its flags exist.
func TestCommandsInDocuments(t *testing.T) {
	seen := 0
	for _, d := range documents(t) {
		for _, b := range d.blocks() {
			if b.lang != "sh" {
				continue
			}
			for line := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", " ")) {
				for _, args := range ourCommands(line) {
					seen++
					if err := parseable(args); err != nil {
						t.Errorf("%s:%d: %q: %v", d.path, b.line, strings.TrimSpace(line), err)
					}
				}
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d commands were found: this test is looking in the wrong place", seen)
	}
}

// ourCommands are the arguments of each call of this program in a line.
func ourCommands(line string) (all [][]string) {
	line, _, _ = strings.Cut(line, " #")
	call := regexp.MustCompile(`^(?:sudo |exec |\$ |[A-Z_]+=\S* )*(?:\S*/|go run \./cmd/)?smtp2rest (.*)$`)
	for _, part := range regexp.MustCompile(`\s*(?:&&|\|\||[|;])\s*`).Split(strings.TrimSpace(line), -1) {
		if m := call.FindStringSubmatch(part); m != nil {
			text, _, _ := strings.Cut(m[1], " <")
			text, _, _ = strings.Cut(text, " >")
			all = append(all, strings.Fields(text))
		}
	}
	return all
}

func parseable(args []string) error {
	c, rest, err := cli.Root(&terminal.Terminal{}).Find(args)
	switch {
	case err != nil:
		return err
	case c.DisableFlagParsing:
		_, err := sendmail.Parse(rest)
		return err
	}
	if err := c.ParseFlags(rest); err != nil && !errors.Is(err, pflag.ErrHelp) {
		return err
	}
	if len(c.Flags().Args()) > 0 && c.HasSubCommands() && c.Name() != "queue" {
		return terminal.UnknownCommand(c, c.Flags().Arg(0))
	}
	return nil
}

// Settings that are in the documents are taken, whatever else is in the file.
func TestSettingsInDocuments(t *testing.T) {
	seen := 0
	for _, d := range documents(t) {
		for _, b := range d.blocks() {
			if b.lang != "toml" {
				continue
			}
			seen++
			checkSettings(t, fmt.Sprintf("%s:%d", d.path, b.line), b.text)
		}
	}
	if seen < 3 {
		t.Errorf("only %d examples were found: this test is looking in the wrong place", seen)
	}
}

func checkSettings(t *testing.T, where, toml string) {
	t.Helper()
	toml = strings.ReplaceAll(toml, `"$2a$10$..."`, `"$2a$10$ylyd17Csnl.gmv72aKMzqOIyLh9S.26Bv1KgmF2DJ5OY/iePVbdHq"`)
	env := map[string]string{"NEXUSPROMAIL_API_KEY": "k", "FROM_EMAIL": "hello@mail.example.com", "WEBHOOK_SECRET": "s", "SMTP2REST_ADMIN_TOKEN": "0123456789abcdef"}
	_, err := config.Load(config.Source{Path: harness.ConfigFile(t, toml), NeedAPI: true, Env: func(name string) (string, bool) {
		v, ok := env[name]
		if strings.HasPrefix(name, "NEXUSPROMAIL_API_KEY_") && !strings.HasSuffix(name, "_FILE") { // of an account
			v, ok = "k", true
		}
		return v, ok
	}})
	for line := range strings.Lines(fmt.Sprint(err)) {
		if err != nil && !strings.Contains(line, "no such file") { // the reader's files
			t.Errorf("%s: %s", where, line)
		}
	}
}

// A link within the repository leads somewhere.
func TestLinksInDocuments(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, d := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(d.text, -1) {
			file, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(file, "://") || strings.HasPrefix(file, "mailto:") {
				continue
			}
			target, text := d.path, d.text
			if file != "" {
				target = filepath.Join(filepath.Dir(d.path), filepath.FromSlash(file))
				data, err := os.ReadFile(target)
				if info, statErr := os.Stat(target); statErr != nil || err != nil && !info.IsDir() {
					t.Errorf("%s: nothing is at %s", d.path, m[1])
					continue
				}
				text = string(data)
			}
			if anchor != "" && !hasHeading(text, anchor) {
				t.Errorf("%s: %s has no heading #%s", d.path, target, anchor)
			}
		}
	}
}

// hasHeading compares as the usual renderers make anchors.
func hasHeading(text, anchor string) bool {
	drop := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	for line := range strings.Lines(text) {
		title := strings.TrimSpace(strings.TrimLeft(line, "#"))
		if strings.HasPrefix(line, "#") && strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(title), ""), " ", "-") == anchor {
			return true
		}
	}
	return false
}
