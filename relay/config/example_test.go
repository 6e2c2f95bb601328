package config

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/smtp2rest/smtp2rest/relay/provider/vendors"
)

const exampleFile = "../../config.example.toml"

// exampleHeader opens config.example.toml.
const exampleHeader = `# smtp2rest configuration (TOML). Every setting is here.
#
# A line that begins with "#" and no space is a setting at its default, or an
# example where there is none: take the "#" away to change it. Two things must be
# set: sender.email, and the API key, which is a secret and never in this file.
#
# The file is optional. Where a setting names a variable of the environment,
# that comes before the file; an empty variable counts as not set. A secret is
# taken from the first of: its variable, the file that the variable with _FILE
# behind it names, the file that this file names, the systemd credential. A
# secret's file holds the secret and nothing else; a line end after it is fine.
#
# Times are written "500ms", "10s", "5m", "1h", "2d"; sizes "512KiB", "25MiB",
# "1GiB" (or KB, MB, GB: powers of ten). "smtp2rest check" says what is wrong
# with a configuration, which values it has, and where each comes from.
#
# "smtp2rest reload", or SIGHUP, makes a running relay take over all changes, except to
# the few settings that need a restart; the text at each of them says so.
#
# This file is written from the code: go generate ./relay/config
`

// exampleText writes config.example.toml from the settings.
func exampleText(t *testing.T, sections []Section) string {
	var b strings.Builder
	b.WriteString(exampleHeader)
	for _, sec := range sections {
		b.WriteString("\n")
		if sec.Name != "" {
			off := ""
			if sec.Repeated && sec.Name != "listener" {
				off = "#" // it is not there by default
			}
			b.WriteString(comment(sec.Doc) + off + bracket(sec.Name) + "\n\n")
		}
		var list []string
		for _, s := range sec.Settings {
			if !s.Secret || s.Example != "" { // one that need not be secret
				list = append(list, exampleSetting(t, s))
			}
		}
		b.WriteString(strings.Join(list, "\n"))
	}
	return b.String()
}

// comment breaks a text into lines of at most 88 characters that begin with "# ".
func comment(doc string) string {
	var b strings.Builder
	line := "#"
	for word := range strings.FieldsSeq(doc) {
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > 90 {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	return b.String() + line + "\n"
}

func exampleSetting(t *testing.T, s Setting) string {
	text := comment(s.Doc)
	if s.Doc == "" || strings.Count(text, "\n") > 2 {
		t.Errorf("%s: explain it in one or two lines", s.Path)
	}
	value := s.Default
	if s.Example != "" {
		value = s.Example
		if s.Default != "" {
			text += "# Default: " + s.Default + ".\n"
		}
	}
	if s.Env != "" {
		text += "# Environment: " + s.Env + ".\n"
	}
	if s.Restart != "" {
		text += "# A change takes a restart: " + s.Restart + ".\n"
	}
	_, name := splitPath(s.Path)
	if s.Note() != "" {
		text += comment("Provider: " + s.Note() + ".")
	}
	if s.Providers != nil && !slices.Contains(s.Providers, vendors.All()[0].Name) {
		name = " " + name // it is unknown as long as api.provider is the default
	}
	return text + "#" + name + " = " + value + "\n"
}

func TestExampleFile(t *testing.T) {
	want := exampleText(t, Reference())
	if *update {
		if err := os.WriteFile(exampleFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("config.example.toml is not what the code says: go generate ./relay/config")
	}
	for i, line := range strings.Split(string(got), "\n") {
		if len(line) > 90 {
			t.Errorf("line %d is long: %s", i+1, line)
		}
	}
}

// loadExample loads the example as edit leaves it.
func loadExample(t *testing.T, edit func(string) string) *Config {
	t.Helper()
	data, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(Source{
		Path:     "smtp2rest.toml",
		NeedAPI:  true,
		ReadFile: func(string) ([]byte, error) { return []byte(edit(string(data))), nil },
		Env: func(name string) (string, bool) {
			v, ok := map[string]string{"NEXUSPROMAIL_API_KEY": "npm_test", "NEXUSPROMAIL_API_KEY_SHOP": "npm_test", "SMTP2REST_FORWARD_SECRET_CRM": "x"}[name]
			return v, ok
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// Someone who starts with the example unchanged is told that the sender is missing: the
// example's own sender does not count as set.
func TestUntouchedExampleLacksASender(t *testing.T) {
	data, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	src := file(string(data), env{"NEXUSPROMAIL_API_KEY": "npm_test"})
	src.NeedAPI = true
	_, err = Load(src)
	if problems, ok := errors.AsType[Errors](err); !ok || len(problems) != 1 || problems[0].Path != "sender.email" {
		t.Errorf("got %v, want one problem, that sender.email is not set", err)
	}
}

func TestExampleSetsNothing(t *testing.T) {
	cfg := loadExample(t, func(s string) string {
		return strings.Replace(s, "\n#email = \"hello@mail.example.com\"", "\nemail = \"hello@mail.example.de\"", 1)
	})
	if len(cfg.Warnings) > 0 {
		t.Errorf("warnings: %q", cfg.Warnings)
	}
	for _, s := range cfg.Describe() {
		if s.Path != "sender.email" && s.Origin == "file" {
			t.Errorf("%s is set in the example", s.Path)
		}
	}
}

// The sender of the documentation is an address that nobody can verify.
func TestSenderOfTheDocumentation(t *testing.T) {
	for _, c := range []struct {
		email, url string
		warned     bool
	}{
		{"hello@mail.example.com", "", true},
		{"hello@example.org", "", true},
		{"hello@example.com", "http://127.0.0.1:8026/api", false}, // a sandbox
		{"hello@myexample.com", "", false},
	} {
		set := env{"FROM_EMAIL": c.email, "NEXUSPROMAIL_API_KEY": "npm_test"}
		if c.url != "" {
			set["NEXUSPROMAIL_API_URL"] = c.url
		}
		src := file("", set)
		src.NeedAPI = true
		cfg := load(t, src)
		warned := slices.ContainsFunc(cfg.Warnings, func(w string) bool { return strings.HasPrefix(w, "sender.email: ") })
		if warned != c.warned {
			t.Errorf("%s at %q: warnings are %q, want one of the sender: %v", c.email, c.url, cfg.Warnings, c.warned)
		}
	}
}

// exampleWarming and exampleUser set what must be set of the tables that are not there by default.
const exampleWarming = "[[warming]]\ndomain = \"mail.example.com\"\nbegin = \"2026-12-01\"\n"

const exampleUser = "[[user]]\nname = \"app\"\npassword_hash = \"$2a$10$ylyd17Csnl.gmv72aKMzqOIyLh9S.26Bv1KgmF2DJ5OY/iePVbdHq\"\n"

const exampleOperator = "[[operator]]\nname = \"alice\"\ntoken_hash = \"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"\n"

const exampleForward = "[[forward]]\nname = \"crm\"\nurl = \"https://crm.example.com/mail-events\"\n"

const exampleAccount = "[[account]]\nname = \"shop\"\nemail = \"hello@shop.example.com\"\n"

// TestExampleHasEverySetting takes the marks away, so that every setting is in
// the file, and holds the values against the defaults in force.
func TestExampleHasEverySetting(t *testing.T) {
	commented := regexp.MustCompile(`(?m)^#(\[\[|[a-z_]+ = )`)
	cfg := loadExample(t, func(s string) string {
		s = commented.ReplaceAllString(s, "$1")
		return strings.Replace(s, "\nurl = \"postgres://", "\n#url = \"postgres://", 1) // it cannot be combined with [[forward]]
	})
	none := load(t, file(exampleWarming+exampleUser+exampleAccount+exampleOperator+exampleForward, env{"SMTP2REST_FORWARD_SECRET_CRM": "x"}))
	shown, inForce := cfg.Describe(), none.Describe()
	if len(shown) != len(inForce) {
		t.Fatalf("%d settings, want %d", len(shown), len(inForce))
	}
	// These have an example instead of a default.
	worked := []string{"hostname", "qualify_domain", "sender.email", "sender.domains", "account.email_name", "bounce.postmaster", "mail.fields", "account.fields"}
	for i, s := range shown {
		if s.Secret {
			continue
		}
		if s.Origin != "file" {
			t.Errorf("%s is not in the example", s.Path)
		}
		if s.Value != inForce[i].Value && !slices.Contains(worked, s.Path) {
			t.Errorf("%s: the example says %s, the code %s", s.Path, s.Value, inForce[i].Value)
		}
	}
}
