package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// TestJSONOfEveryCommand: a command has --json, or its help says why not.
func TestJSONOfEveryCommand(t *testing.T) {
	for _, c := range everyCommand() {
		if c.Name() == "completion" || c.HasParent() && c.Parent().Name() == "completion" {
			continue // cobra's: what it prints is read by a shell
		}
		has, why := c.Flags().Lookup("json") != nil, strings.Contains(c.Long, "\n\nThere is no --json: ")
		switch {
		case has == why:
			t.Errorf("%s: it has --json: %v; its help says why not: %v", c.CommandPath(), has, why)
		case !has && !strings.Contains(harness.Execute(t, harness.Environ(t), "", append([]string{"man"}, pathOf(c)...)...).Out, "There is no --json"):
			t.Errorf("the page of %s does not say why it has no --json", c.CommandPath())
		}
	}
}

// object is a line of JSON, the only one of its stream.
func object(t *testing.T, what, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil || strings.Count(text, "\n") != 1 {
		t.Errorf("%s is not one line with a JSON object: %v\n%s", what, err, text)
	}
	return v
}

// wantJSON compares one field, named by its path, with what it should be.
func wantJSON(t *testing.T, v any, path string, want any) {
	t.Helper()
	got := v
	for name := range strings.SplitSeq(path, ".") {
		switch x := got.(type) {
		case map[string]any:
			got = x[name]
		case []any:
			if len(x) == 0 {
				t.Errorf("%s: nothing in the list", path)
				return
			}
			got = x[0]
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s is %#v, want %#v", path, got, want)
	}
}

// What goes wrong is told as an object on standard error, with the exit code.
func TestJSONOfErrors(t *testing.T) {
	for _, tt := range []struct {
		args  string
		code  int
		error string
	}{
		{"send --json", 2, "name the recipients with --to"},
		{"send --to bob@example.net --jsn --json", 2, "there is no flag --jsn"},
		{"send --server 127.0.0.1:1 --to bob@example.net --json", 1, "no SMTP server answers"},
		{"queue lst --json", 2, `there is no command "queue lst"`},
		{"queue --json --data-dir /nowhere", 1, "/nowhere"},
		{"status --json --data-dir /nowhere", 3, "no daemon answers"},
		{"serve --json", 78, "the configuration is not usable"},
		{"webhook test --json", 1, "there is no secret to sign with"},
		{"webhook register --json --url http://127.0.0.1/", 78, "the configuration is not usable"},
		{"healthcheck --json --data-dir /nowhere", 1, "/nowhere"},
		{"reload --json --data-dir /nowhere", 3, "/nowhere"},
		{"explain none.eml --json", 1, "none.eml"},
		{"hash-password --json", 1, "no password on the input"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			r := harness.Execute(t, harness.Environ(t), "", strings.Fields(tt.args)...)
			v := object(t, "standard error", r.Err)
			if said := fmt.Sprint(v["error"]); r.Code != tt.code || !strings.Contains(said, tt.error) || r.Out != "" {
				t.Errorf("%+v", r)
			}
			wantJSON(t, v, "exit", float64(tt.code))
		})
	}
}

func TestCheckAsJSON(t *testing.T) {
	path := harness.ConfigFile(t, "[api]\ntimout = \"5s\"\n[limits]\nrecipients = 0\n")
	r := harness.Execute(t, harness.Environ(t), "", "check", "--json", "--config", path)
	v := object(t, "standard output", r.Out)
	if r.Code != terminal.ExitConfig || r.Err != "" {
		t.Errorf("%+v", r)
	}
	wantJSON(t, v, "good", false)
	wantJSON(t, v, "problems.0.setting", "api.timout")
	wantJSON(t, v, "problems.0.line", float64(2))
	wantJSON(t, v, "problems.0.text", "unknown setting; did you mean timeout?")
	if n := len(v["problems"].([]any)); n != 4 { // the key and the sender are missing, too
		t.Errorf("%d problems:\n%s", n, r.Out)
	}
	r = harness.Execute(t, harness.Environ(t, "NEXUSPROMAIL_API_KEY="+harness.PlantedKey, "FROM_EMAIL=a@mail.example.com"), "", "check", "--json")
	v = object(t, "standard output", r.Out)
	if r.Code != terminal.ExitOK || strings.Contains(r.All(), harness.PlantedKey) {
		t.Errorf("%+v", r)
	}
	wantJSON(t, v, "good", true)
	wantJSON(t, v, "problems", []any{})
	wantJSON(t, v, "settings.0.origin", "default")
	values := map[string]any{}
	for _, s := range v["settings"].([]any) {
		one := s.(map[string]any)
		values[one["setting"].(string)] = one["value"]
	}
	for path, want := range map[string]any{"sender.email": "a@mail.example.com", "api.timeout": "10s", "limits.recipients": float64(100),
		"log.level": "info", "sender.domains": []any{"mail.example.com"}, "history.subjects": false, "aliases": map[string]any{}} {
		if !reflect.DeepEqual(values[path], want) {
			t.Errorf("%s is %#v, want %#v", path, values[path], want)
		}
	}
	if socket, _ := values["admin.socket"].(string); !strings.HasSuffix(socket, "/data/admin.sock") {
		t.Errorf("admin.socket is %q", socket)
	}
}

func TestExplainAsJSON(t *testing.T) {
	r := harness.Execute(t, harness.Environ(t), "From: default-sender@example.com\nSubject: s\nX-Mine: 1\n\nb\n", "explain", "-", "--json", "--to", "bob@example.net,eve@example.net")
	v := object(t, "standard output", r.Out)
	wantJSON(t, v, "calls.0.to", "bob@example.net")
	wantJSON(t, v, "calls.0.body.to.email", "bob@example.net")
	wantJSON(t, v, "calls.0.body.subject", "s")
	wantJSON(t, v, "omissions.0.kind", "headers_dropped")
	wantJSON(t, v, "omissions.0.left_out", true)
	wantJSON(t, v, "assumed_sender", "default-sender@example.com")
	if r = harness.Execute(t, harness.Environ(t), "Subject: s\n\nb\n", "explain", "-"); !strings.Contains(r.Err, "No sender is set, so default-sender@example.com stands for it") {
		t.Errorf("%+v", r)
	}
	if r = harness.Execute(t, harness.Environ(t, "FROM_EMAIL=a@mail.example.com"), "Subject: s\n\nb\n", "explain", "-"); r.Err != "" {
		t.Errorf("%+v", r)
	}
	path := harness.ConfigFile(t, "[sender]\nemail = \"hello@mail.example.com\"\nforeign = \"refuse\"\n")
	r = harness.Execute(t, harness.Environ(t), "From: a@b.example\nSubject: s\n\nb\n", "explain", "-", "--config", path, "--json")
	v = object(t, "standard output", r.Out)
	if said, _ := v["refused"].(string); r.Code != 1 || !strings.HasPrefix(said, "550 5.7.1 ") {
		t.Errorf("%+v", r)
	}
	wantJSON(t, v, "calls", []any{})
	object(t, "standard error", r.Err)
}

// TestJSONOfALife: scripts start a relay, send, look, and see it end, without
// reading a word that is meant for people.
func TestJSONOfALife(t *testing.T) {
	p := harness.Launch(t, harness.Environ(t), "serve", "--sandbox", "--json", "--config", harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n"))
	ready := object(t, "the line", p.Await(p.Out, `(?s)^(.*\n)`))
	dir, _ := ready["data_dir"].(string)
	smtp := ready["smtp"].([]any)[0].(string)
	run := func(code int, args ...string) map[string]any {
		t.Helper()
		r := harness.Execute(t, harness.Environ(t), "a password\n", append(args, "--json")...)
		if r.Code != code {
			t.Errorf("%v: exit %d, want %d\n%s", args, r.Code, code, r.All())
		}
		return object(t, strings.Join(args, " "), r.Out)
	}
	v := run(0, "send", "--server", smtp, "--to", "bob@example.net")
	wantJSON(t, v, "taken", true)
	wantJSON(t, v, "recipients.0.taken", true)
	wantJSON(t, v, "dialogue.0.from", "server")
	id, _ := v["id"].(string)
	if reply, _ := v["reply"].(string); id == "" || !strings.HasPrefix(reply, "250 2.0.0 accepted "+id+" msg_") {
		t.Errorf("id %q, reply %q", id, reply)
	}
	v = run(1, "send", "--server", smtp, "--to", "suppressed@example.net,bob@example.net")
	wantJSON(t, v, "taken", false)
	wantJSON(t, v, "recipients.0.taken", false)
	if second := v["recipients"].([]any)[1].(map[string]any); second["taken"] != true {
		t.Errorf("%v", second)
	}
	v = run(1, "send", "--server", smtp, "--to", "suppressed@example.net") // is known at RCPT now
	if r := fmt.Sprint(v["recipients"]); !strings.Contains(r, "reply:550 5.7.1 <suppressed@example.net> suppressed: ") {
		t.Error(r)
	}
	wantJSON(t, run(0, "trace", "--data-dir", dir, id), "mail.id", id)
	wantJSON(t, run(0, "healthcheck", "--data-dir", dir), "page", "/livez")
	wantJSON(t, run(0, "status", "--data-dir", dir), "state", "fine")
	wantJSON(t, run(0, "version"), "version", harness.Version)
	v = run(0, "hash-password", "--user", "app")
	if hash, _ := v["password_hash"].(string); v["user"] != "app" || !strings.HasPrefix(hash, "$2") {
		t.Errorf("%v", v)
	}
}

// TestSandboxAsJSON: a script learns the port of a sandbox, registers an address
// and has a secret.
func TestSandboxAsJSON(t *testing.T) {
	p := harness.Launch(t, harness.Environ(t), "sandbox", "--listen", "127.0.0.1:0", "--json")
	v := object(t, "the line", p.Await(p.Out, `(?s)^(.*\n)`))
	wantJSON(t, v, "key", "sandbox-key")
	env := harness.Environ(t, "NEXUSPROMAIL_API_KEY=sandbox-key", "NEXUSPROMAIL_API_URL="+v["api"].(string))
	r := harness.Execute(t, env, "", "webhook", "register", "--url", "http://127.0.0.1:1/webhook", "--print", "--json")
	if secret, _ := object(t, "register", r.Out)["secret"].(string); !strings.HasPrefix(secret, "whsec_") {
		t.Errorf("%+v", r)
	}
}

func TestSetAsideAsJSON(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "queue.db"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := harness.Execute(t, harness.Environ(t), "", "queue", "set-aside", "--data-dir", dir, "--json")
	if name, _ := object(t, "set-aside", r.Out)["renamed"].(string); !strings.HasPrefix(filepath.Base(name), "queue.db") {
		t.Errorf("%+v", r)
	}
}
