package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// What a person types, right or wrong, and what they are told.
func TestCommandLines(t *testing.T) {
	for _, tt := range []struct {
		args string
		code int
		out  string // part of standard output
		err  string // part of standard error
	}{
		{"", 2, "", "smtp2rest [command]"},
		{"help", 0, "smtp2rest [command]", ""},
		{"--help", 0, "smtp2rest demo", ""},
		{"queue lst", 2, "", `there is no command "queue lst"; did you mean "list"?`},
		{"queue 06h0kq3n2a", 2, "", "'queue show 06h0kq3n2a' shows one mail"},
		{"help queue shw", 2, "", `there is no command "queue shw"; did you mean "show"?`},
		{"serve --config=", 78, "", "NEXUSPROMAIL_API_KEY"},
		{"-h", 0, "Begin:", ""},
		{"help serve", 0, "smtp2rest serve [flags]", ""},
		{"help serv", 2, "", `there is no command "serv"; did you mean "serve"?`},
		{"help xyzzy", 2, "", `there is no command "xyzzy"`},
		{"version", 0, harness.Version, ""},
		{"--version", 0, harness.Version, ""},
		{"serev", 2, "", `there is no command "serev"; did you mean "serve"?`},
		{"halp", 2, "", `did you mean "help"?`},
		{"xyzzy", 2, "", `there is no command "xyzzy"`},
		{"serve --sandbx", 2, "", `there is no flag --sandbx; did you mean "--sandbox"?`},
		{"serve -confg x", 2, "", `there is no flag -confg; did you mean "--config"?`},
		{"serve -config x", 2, "", `there is no flag -config; did you mean "--config"?`},
		{"serve --config", 2, "", "--config needs a value"},
		{"serve now", 2, "", `unexpected argument "now"`},
		{"demo now", 2, "", `unexpected argument "now"`},
		{"demo --fast", 2, "", "there is no flag --fast"},
		{"check config.toml", 2, "", `unexpected argument "config.toml"; name the file with --config`},
		{"check --config none.toml", 78, "", "none.toml"},
		{"explain", 2, "", "name one file"},
		{"explain none.eml", 1, "", "none.eml"},
		{"explain a.eml b.eml", 2, "", "name one file"},
		{"send", 2, "", "name the recipients with --to"},
		{"send --too bob@example.net", 2, "", `did you mean "--to"?`},
		{"send --server 127.0.0.1:1 --to bob@example.net", 1, "", "is 'smtp2rest serve' running?"},
		{"sandbox --rate fast", 2, "", "rate"},
		{"sandbox --fail-500 2 --listen 127.0.0.1:0", 1, "", "fractions"},
		{"sandbox --listen 127.0.0.1:x", 1, "", "unknown port"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			r := harness.Execute(t, harness.Environ(t), "", strings.Fields(tt.args)...)
			if r.Code != tt.code {
				t.Errorf("exit code %d, want %d", r.Code, tt.code)
			}
			if !strings.Contains(r.Out, tt.out) || !strings.Contains(r.Err, tt.err) {
				t.Errorf("it says\n%s%s\nwant %q on standard output, %q on standard error", r.Out, r.Err, tt.out, tt.err)
			}
			if (r.Err != "") != (r.Code != 0) {
				t.Errorf("exit code %d with %q on standard error", r.Code, r.Err)
			}
			if strings.Contains(r.All(), "\x1b") || strings.Contains(r.All(), "goroutine ") {
				t.Errorf("colour or a stack where there is no terminal:\n%s", r.All())
			}
		})
	}
}

// everyCommand is the program's tree of commands as a list.
func everyCommand() (all []*cobra.Command) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Name() != "help" {
				all = append(all, sub)
			}
			walk(sub)
		}
	}
	walk(cli.Root(&terminal.Terminal{}))
	return all
}

// pathOf is the words that name a command, as in "queue drop".
func pathOf(c *cobra.Command) []string { return strings.Fields(c.CommandPath())[1:] }

// Three ways to ask, one answer, and all there is to say in it.
func TestHelpOfEachCommand(t *testing.T) {
	for _, c := range everyCommand() {
		t.Run(c.CommandPath(), func(t *testing.T) {
			t.Parallel()
			parent := harness.Execute(t, harness.Environ(t), "", append([]string{"help"}, pathOf(c.Parent())...)...).Out
			if !strings.Contains(parent, "  "+c.Name()+" ") || !strings.Contains(parent, c.Short) {
				t.Error("the help above it does not list it")
			}
			asked := harness.Execute(t, harness.Environ(t), "", append([]string{"help"}, pathOf(c)...)...)
			for _, flag := range []string{"--help", "-h"} {
				if r := harness.Execute(t, harness.Environ(t), "", append(pathOf(c), flag)...); r != asked || r.Code != 0 {
					t.Errorf("%s is answered %+v, not as help is", flag, r)
				}
			}
			for _, want := range []string{strings.TrimSpace(c.Long), "Usage:\n  " + c.CommandPath()} {
				if want == "" || !strings.Contains(asked.Out, want) {
					t.Errorf("the help lacks %q", want)
				}
			}
			c.Flags().VisitAll(func(f *pflag.Flag) {
				if !strings.Contains(asked.Out, "--"+f.Name) || f.Usage == "" {
					t.Errorf("the help does not explain --%s", f.Name)
				}
			})
			for line := range strings.Lines(c.Long) {
				if len([]rune(line)) > 120 && !strings.Contains(line, "@ ") { // the magic recipients' table is wide
					t.Errorf("too wide: %s", line)
				}
			}
		})
	}
}

// What selects in one list selects in all of them, and a list goes on in the same
// way.
func TestListsShareTheirFlags(t *testing.T) {
	paging := []string{"limit", "all", "json"}
	mail := append([]string{"state", "id", "sender", "from", "recipient", "since", "until", "older", "newer"}, paging...)
	want := map[string][]string{
		"smtp2rest queue": mail, "smtp2rest queue list": mail, "smtp2rest history": mail, "smtp2rest trace": mail,
		"smtp2rest suppressions": paging, "smtp2rest suppressions list": paging,
	}
	for _, c := range everyCommand() {
		for _, name := range want[c.CommandPath()] {
			if c.Flags().Lookup(name) == nil {
				t.Errorf("%s has no --%s", c.CommandPath(), name)
			}
		}
	}
}

// An example that does not work is worse than none.
func TestExamplesUseFlagsThatExist(t *testing.T) {
	for _, c := range everyCommand() {
		if c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for example := range strings.Lines(c.Example) {
			_, after, found := strings.Cut(strings.TrimSpace(example), "smtp2rest ")
			if !found {
				continue // of another program
			}
			after, _, _ = strings.Cut(after, " <")
			after, _, _ = strings.Cut(after, ")")
			after, _, _ = strings.Cut(after, " | ")
			if err := parseable(strings.Fields(after)); err != nil {
				t.Errorf("%s: %q: %v", c.CommandPath(), example, err)
			}
			if !strings.HasPrefix("smtp2rest "+after, c.CommandPath()) {
				t.Errorf("%q is not about %s", example, c.CommandPath())
			}
		}
	}
}

func TestVersion(t *testing.T) {
	want := "smtp2rest " + harness.Version + " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + "\n"
	if got := harness.Execute(t, harness.Environ(t), "", "version").Out; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The key comes from wherever it may, and appears nowhere.
func TestCheckMasksSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(harness.PlantedKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, env := range map[string][]string{
		"environment": {"NEXUSPROMAIL_API_KEY=" + harness.PlantedKey, "WEBHOOK_SECRET=" + harness.PlantedKey + "2"},
		"file":        {"NEXUSPROMAIL_API_KEY_FILE=" + file, "WEBHOOK_SECRET_FILE=" + file},
	} {
		t.Run(name, func(t *testing.T) {
			r := harness.Execute(t, harness.Environ(t, append(env, "FROM_EMAIL=hello@mail.example.com", "FROM_NAME=Your App")...), "", "check")
			if r.Code != 0 || !strings.HasSuffix(r.Out, "The configuration is good.\n") {
				t.Errorf("%+v", r)
			}
			if strings.Contains(r.All(), "PlantedKey") {
				t.Errorf("the secret is shown:\n%s", r.All())
			}
			for _, want := range []string{`api\.key +set`, `sender\.email +"hello@mail\.example\.com" +environment FROM_EMAIL`,
				`sender\.domains +\["mail\.example\.com"\]`, `api\.url +"https://app\.nexuspromail\.com/api" +default`, `webhook\.secret +set`} {
				if !regexp.MustCompile(`(?m)^` + want).MatchString(r.Out) {
					t.Errorf("%s is not in\n%s", want, r.Out)
				}
			}
		})
	}
}

// What is as always does not bury what is not.
func TestCheckShowsWhatIsSet(t *testing.T) {
	env := harness.Environ(t, "NEXUSPROMAIL_API_KEY=k", "FROM_EMAIL=a@mail.example.com")
	short := harness.Execute(t, env, "", "check")
	if n := strings.Count(short.Out, "\n"); short.Code != 0 || n > 12 || strings.Contains(short.Out, "limits.") || !strings.Contains(short.Out, "admin.sock\"") ||
		!regexp.MustCompile(`\(\d+ more have their defaults; --all shows them\)\n`).MatchString(short.Out) {
		t.Errorf("%d lines, exit code %d:\n%s", n, short.Code, short.All())
	}
	all := harness.Execute(t, env, "", "check", "--all")
	if all.Code != 0 || !strings.Contains(all.Out, "limits.recipients") || strings.Contains(all.Out, "more have") {
		t.Errorf("%+v", all)
	}
}

// All that is wrong at once, with what to write instead, and exit code 78,
// which keeps systemd from trying again.
func TestCheckOfABadConfiguration(t *testing.T) {
	path := harness.ConfigFile(t, "[api]\nurl = \"http://example.com/api\"\ntimout = \"5s\"\nkey = \""+harness.PlantedKey+"\"\n[limits]\nrecipients = \"many\"\n[sender]\nforeign = \"rewrit\"\n")
	for _, command := range []string{"check", "serve"} {
		r := harness.Execute(t, harness.Environ(t, "WEBHOOK_SECRET="+harness.PlantedKey), "", command, "--config", path)
		if r.Code != 78 || r.Out != "" {
			t.Errorf("%s: exit code %d, output %q", command, r.Code, r.Out)
		}
		for _, want := range []string{path + ":2: api.url", path + ":3: api.timout", "did you mean timeout?", path + ":6: limits.recipients", path + ":8: sender.foreign", `"rewrite"`, "sender.email"} {
			if !strings.Contains(r.Err, want) {
				t.Errorf("%s does not say %q:\n%s", command, want, r.Err)
			}
		}
		if strings.Contains(r.All(), "PlantedKey") {
			t.Errorf("the secret is shown:\n%s", r.All())
		}
	}
}

// explain prints exactly what would be sent, or refused.
func TestExplain(t *testing.T) {
	mails, err := filepath.Glob("testdata/explain/*.eml")
	if err != nil || len(mails) < 3 {
		t.Fatalf("only %d mails to explain: %v", len(mails), err)
	}
	for _, path := range mails {
		name := strings.TrimSuffix(filepath.Base(path), ".eml")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, err := filepath.Abs(path)
			if err != nil {
				t.Fatal(err)
			}
			r := harness.Execute(t, harness.Environ(t), "", "explain", path, "--to", "bob@example.net,eve@example.net", "--from", "root@web1")
			if refused := strings.HasPrefix(r.Out, "refused: "); refused != (r.Code == 1) || r.Code > 1 {
				t.Errorf("exit code %d", r.Code)
			}
			golden(t, "explain/"+name+".txt", r.All())
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if in := harness.Execute(t, harness.Environ(t), string(raw), "explain", "-", "--to", "bob@example.net,eve@example.net", "--from", "root@web1"); in != r {
				t.Errorf("standard input is explained otherwise: %+v", in)
			}
		})
	}
}

// A sender policy of the configuration is heeded.
func TestExplainHeedsTheConfiguration(t *testing.T) {
	path := harness.ConfigFile(t, "[sender]\nemail = \"hello@mail.example.com\"\nforeign = \"refuse\"\n")
	r := harness.Execute(t, harness.Environ(t), "From: a@b.example\nSubject: s\n\nb\n", "explain", "-", "--config", path)
	if r.Code != 1 || !strings.HasPrefix(r.Out, "refused: 550 5.7.1 ") {
		t.Errorf("%+v", r)
	}
}

// Without --config it is the service's configuration that is looked at, unless
// the environment is that of a relay without a file.
func TestCheckFindsTheServicesConfiguration(t *testing.T) {
	path := harness.ConfigFile(t, "[sender]\nemail = \"hello@mail.example.com\"\nforeign = \"perhaps\"\n")
	check := func(service string, env map[string]string) (int, string) {
		var out bytes.Buffer
		term := &terminal.Terminal{Name: "smtp2rest", In: strings.NewReader(""), Out: &out, Err: &out, Service: service,
			Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }}
		code := cli.Run(t.Context(), term, []string{"check"})
		return code, out.String()
	}
	if code, out := check(path, nil); code != terminal.ExitConfig || !strings.Contains(out, path+":3: sender.foreign") {
		t.Errorf("exit code %d: %s", code, out)
	}
	environment := map[string]string{"FROM_EMAIL": "hello@example.de", "NEXUSPROMAIL_API_KEY": harness.PlantedKey}
	if code, out := check(path, environment); code != terminal.ExitOK || !strings.Contains(out, "The configuration is good.") {
		t.Errorf("with the environment of a relay, exit code %d: %s", code, out)
	}
	if code, out := check(path+"-not-there", nil); code != terminal.ExitConfig || !strings.Contains(out, "sender.email") {
		t.Errorf("without a service, exit code %d: %s", code, out)
	}
}
