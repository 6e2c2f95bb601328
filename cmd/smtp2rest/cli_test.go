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
		{"version", 0, testVersion, ""},
		{"--version", 0, testVersion, ""},
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
		{"send", 2, "", "say with --to whom to send to"},
		{"send --too bob@example.net", 2, "", `did you mean "--to"?`},
		{"send --server 127.0.0.1:1 --to bob@example.net", 1, "", "is 'smtp2rest serve' running?"},
		{"sandbox --rate fast", 2, "", "rate"},
		{"sandbox --fail-500 2 --listen 127.0.0.1:0", 1, "", "fractions"},
		{"sandbox --listen 127.0.0.1:x", 1, "", "unknown port"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			r := execute(t, environ(t), "", strings.Fields(tt.args)...)
			if r.code != tt.code {
				t.Errorf("exit code %d, want %d", r.code, tt.code)
			}
			if !strings.Contains(r.out, tt.out) || !strings.Contains(r.err, tt.err) {
				t.Errorf("it says\n%s%s\nwant %q on standard output, %q on standard error", r.out, r.err, tt.out, tt.err)
			}
			if (r.err != "") != (r.code != 0) {
				t.Errorf("exit code %d with %q on standard error", r.code, r.err)
			}
			if strings.Contains(r.all(), "\x1b") || strings.Contains(r.all(), "goroutine ") {
				t.Errorf("colour or a stack where there is no terminal:\n%s", r.all())
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
			parent := execute(t, environ(t), "", append([]string{"help"}, pathOf(c.Parent())...)...).out
			if !strings.Contains(parent, "  "+c.Name()+" ") || !strings.Contains(parent, c.Short) {
				t.Error("the help above it does not list it")
			}
			asked := execute(t, environ(t), "", append([]string{"help"}, pathOf(c)...)...)
			for _, flag := range []string{"--help", "-h"} {
				if r := execute(t, environ(t), "", append(pathOf(c), flag)...); r != asked || r.code != 0 {
					t.Errorf("%s is answered %+v, not as help is", flag, r)
				}
			}
			for _, want := range []string{strings.TrimSpace(c.Long), "Usage:\n  " + c.CommandPath()} {
				if want == "" || !strings.Contains(asked.out, want) {
					t.Errorf("the help lacks %q", want)
				}
			}
			c.Flags().VisitAll(func(f *pflag.Flag) {
				if !strings.Contains(asked.out, "--"+f.Name) || f.Usage == "" {
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
	want := "smtp2rest " + testVersion + " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + "\n"
	if got := execute(t, environ(t), "", "version").out; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

const plantedKey = "sk_live_PlantedKey0123456789"

// The key comes from wherever it may, and appears nowhere.
func TestCheckMasksSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(plantedKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, env := range map[string][]string{
		"environment": {"NEXUSPROMAIL_API_KEY=" + plantedKey, "WEBHOOK_SECRET=" + plantedKey + "2"},
		"file":        {"NEXUSPROMAIL_API_KEY_FILE=" + file, "WEBHOOK_SECRET_FILE=" + file},
	} {
		t.Run(name, func(t *testing.T) {
			r := execute(t, environ(t, append(env, "FROM_EMAIL=hello@mail.example.com", "FROM_NAME=Your App")...), "", "check")
			if r.code != 0 || !strings.HasSuffix(r.out, "The configuration is good.\n") {
				t.Errorf("%+v", r)
			}
			if strings.Contains(r.all(), "PlantedKey") {
				t.Errorf("the secret is shown:\n%s", r.all())
			}
			for _, want := range []string{`api\.key +set`, `sender\.email +"hello@mail\.example\.com" +environment FROM_EMAIL`,
				`sender\.domains +\["mail\.example\.com"\]`, `api\.url +"https://app\.nexuspromail\.com/api" +default`, `webhook\.secret +set`} {
				if !regexp.MustCompile(`(?m)^` + want).MatchString(r.out) {
					t.Errorf("%s is not in\n%s", want, r.out)
				}
			}
		})
	}
}

// What is as always does not bury what is not.
func TestCheckShowsWhatIsSet(t *testing.T) {
	env := environ(t, "NEXUSPROMAIL_API_KEY=k", "FROM_EMAIL=a@mail.example.com")
	short := execute(t, env, "", "check")
	if n := strings.Count(short.out, "\n"); short.code != 0 || n > 12 || strings.Contains(short.out, "limits.") || !strings.Contains(short.out, "admin.sock\"") ||
		!regexp.MustCompile(`\(\d+ more have their defaults; --all shows them\)\n`).MatchString(short.out) {
		t.Errorf("%d lines, exit code %d:\n%s", n, short.code, short.all())
	}
	all := execute(t, env, "", "check", "--all")
	if all.code != 0 || !strings.Contains(all.out, "limits.recipients") || strings.Contains(all.out, "more have") {
		t.Errorf("%+v", all)
	}
}

// All that is wrong at once, with what to write instead, and exit code 78,
// which keeps systemd from trying again.
func TestCheckOfABadConfiguration(t *testing.T) {
	path := configFile(t, "[api]\nurl = \"http://example.com/api\"\ntimout = \"5s\"\nkey = \""+plantedKey+"\"\n[limits]\nrecipients = \"many\"\n[sender]\nforeign = \"rewrit\"\n")
	for _, command := range []string{"check", "serve"} {
		r := execute(t, environ(t, "WEBHOOK_SECRET="+plantedKey), "", command, "--config", path)
		if r.code != 78 || r.out != "" {
			t.Errorf("%s: exit code %d, output %q", command, r.code, r.out)
		}
		for _, want := range []string{path + ":2: api.url", path + ":3: api.timout", "did you mean timeout?", path + ":6: limits.recipients", path + ":8: sender.foreign", `"rewrite"`, "sender.email"} {
			if !strings.Contains(r.err, want) {
				t.Errorf("%s does not say %q:\n%s", command, want, r.err)
			}
		}
		if strings.Contains(r.all(), "PlantedKey") {
			t.Errorf("the secret is shown:\n%s", r.all())
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
			r := execute(t, environ(t), "", "explain", path, "--to", "bob@example.net,eve@example.net", "--from", "root@web1")
			if refused := strings.HasPrefix(r.out, "refused: "); refused != (r.code == 1) || r.code > 1 {
				t.Errorf("exit code %d", r.code)
			}
			golden(t, "explain/"+name+".txt", r.all())
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if in := execute(t, environ(t), string(raw), "explain", "-", "--to", "bob@example.net,eve@example.net", "--from", "root@web1"); in != r {
				t.Errorf("standard input is explained otherwise: %+v", in)
			}
		})
	}
}

// A sender policy of the configuration is heeded.
func TestExplainHeedsTheConfiguration(t *testing.T) {
	path := configFile(t, "[sender]\nemail = \"hello@mail.example.com\"\nforeign = \"refuse\"\n")
	r := execute(t, environ(t), "From: a@b.example\nSubject: s\n\nb\n", "explain", "-", "--config", path)
	if r.code != 1 || !strings.HasPrefix(r.out, "refused: 550 5.7.1 ") {
		t.Errorf("%+v", r)
	}
}

// Without --config it is the service's configuration that is looked at, unless
// the environment is that of a relay without a file.
func TestCheckFindsTheServicesConfiguration(t *testing.T) {
	path := configFile(t, "[sender]\nemail = \"hello@mail.example.com\"\nforeign = \"perhaps\"\n")
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
	environment := map[string]string{"FROM_EMAIL": "hello@example.de", "NEXUSPROMAIL_API_KEY": plantedKey}
	if code, out := check(path, environment); code != terminal.ExitOK || !strings.Contains(out, "The configuration is good.") {
		t.Errorf("with the environment of a relay, exit code %d: %s", code, out)
	}
	if code, out := check(path+"-not-there", nil); code != terminal.ExitConfig || !strings.Contains(out, "sender.email") {
		t.Errorf("without a service, exit code %d: %s", code, out)
	}
}
