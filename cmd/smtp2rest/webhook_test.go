package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/dialogue"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// TestWebhook: from a configuration without a secret to an event that is taken.
func TestWebhook(t *testing.T) {
	_, env, api := harness.SandboxProcess(t)
	dir := t.TempDir()
	conf := filepath.Join(dir, "config.toml")
	text := "[[listener]]\naddress = \"127.0.0.1:0\"\n[webhook]\naddress = \"127.0.0.1:0\"\nsecret_file = \"./secret\"\nprevious_secret_file = \"./previous\"\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env = append(env, "FROM_EMAIL=relay@sandbox.example")
	register := func() harness.Result {
		return harness.Execute(t, env, "", "webhook", "register", "--config", conf, "--url", "http://127.0.0.1:1/webhook", "--events", "bounced.hard,complained")
	}
	mode := os.FileMode(0o600)
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
		return strings.TrimSpace(string(data))
	}

	if r := harness.Execute(t, env, "", "serve", "--config", conf); r.Code != terminal.ExitConfig || !strings.Contains(r.Err, "webhook.secret_file") {
		t.Errorf("without a secret: %+v", r)
	}
	wantOut(t, harness.Execute(t, env, "", "webhook", "test", "--config", conf), terminal.ExitConfig, "", "webhook.secret_file")
	r := register()
	wantOut(t, r, 0, "Registered http://127.0.0.1:1/webhook for bounced.hard, complained.\nThe secret is in "+filepath.Join(dir, "secret"), "")
	first := read("secret")
	if !strings.HasPrefix(first, "whsec_") || strings.Contains(r.Out, first) {
		t.Errorf("%q, and %s", first, r.Out)
	}
	if r := harness.Execute(t, env, "", "check", "--config", conf); strings.Contains(r.Out+r.Err, first) {
		t.Error("check shows the secret")
	}

	// The daemon is configured before the change and after it: old and new count.
	if err := os.WriteFile(filepath.Join(dir, "previous"), []byte("whsec_none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mode = 0o640 // for a group that the daemon is in; it stays so
	if err := os.Chmod(filepath.Join(dir, "secret"), mode); err != nil {
		t.Fatal(err)
	}
	wantOut(t, register(), 0, "The one before it is in "+filepath.Join(dir, "previous"), "")
	if read("previous") != first || read("secret") == first {
		t.Errorf("previous %q, secret %q, first %q", read("previous"), read("secret"), first)
	}
	p := harness.Launch(t, env, "serve", "--config", conf)
	url := "http://" + p.Await(p.Err, `listening for events.* address=(\S+)`) + "/webhook"
	wantOut(t, harness.Execute(t, env, "", "webhook", "test", "--config", conf, "--url", url), 0, url+" answered 200 OK in ", "")
	wantOut(t, harness.Execute(t, append(env, "WEBHOOK_SECRET="+first), "", "webhook", "test", "--url", url), 0, "the event was taken", "")
	wantOut(t, harness.Execute(t, append(env, "WEBHOOK_SECRET=whsec_wrong"), "", "webhook", "test", "--url", url), 1, "", "401 Unauthorized in ")
	wantOut(t, harness.Execute(t, env, "", "webhook", "test", "--config", conf, "--url", "http://"+api+"/"), 1, "", "this is not the relay's webhook endpoint")
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if s := p.Err.String(); strings.Contains(s, first) || strings.Contains(s, read("secret")) {
		t.Error("the log shows a secret")
	}
}

// TestSandboxTellsTheRelay: two programs, and an event between them.
func TestSandboxTellsTheRelay(t *testing.T) {
	hook := harness.FreeAddress(t)
	_, env, api := harness.SandboxProcess(t, "--webhook-url", "http://"+hook+"/webhook", "--webhook-secret", "whsec_x", "--webhook-repeats", "1", "--webhook-reorder", "--webhook-delay", "1ms")
	conf := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(conf, []byte("[[listener]]\naddress = \"127.0.0.1:0\"\n[webhook]\naddress = \""+hook+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := harness.Launch(t, append(env, "WEBHOOK_SECRET=whsec_x"), "serve", "--config", conf)
	smtp := p.Await(p.Err, `msg=listening.* address=(\S+)`)
	p.Await(p.Err, `(listening for events)`)
	send := func() string {
		d, err := dialogue.Converse(t.Context(), smtp, dialogue.Envelope{From: "shop@sandbox.example", To: []string{"hardbounce@example.net"}, Data: harness.Letter("hardbounce@example.net", "s")})
		if err != nil {
			t.Fatal(err)
		}
		return d.Reply()
	}
	if got := send(); !strings.HasPrefix(got, "250 2.0.0 accepted") {
		t.Fatal(got)
	}
	p.Await(p.Err, `(type=sent)`) // the last of them
	if got := send(); !strings.HasPrefix(got, "550 5.1.1 ") {
		t.Errorf("%s; the sandbox at %s", got, api)
	}
}

func TestWebhookRegisterRefusals(t *testing.T) {
	_, env, _ := harness.SandboxProcess(t)
	run := func(env []string, args ...string) harness.Result {
		return harness.Execute(t, env, "", append([]string{"webhook", "register"}, args...)...)
	}
	wantOut(t, run(env), terminal.ExitUsage, "", "--url must be the address")
	wantOut(t, run(env, "--url", "relay.example.com"), terminal.ExitUsage, "", "--url must be the address")
	wantOut(t, run(env, "--url", "https://relay.example.com/webhook"), 1, "", "nowhere to keep the secret")
	wantOut(t, run(env, "--url", "https://relay.example.com/webhook", "--print"), 0, "whsec_", "")
	wantOut(t, run(append(env, "NEXUSPROMAIL_API_KEY=wrong"), "--url", "https://relay.example.com/webhook", "--print"), 1, "", "401 the API key is wrong or missing")
	wantOut(t, run(append(env, "NEXUSPROMAIL_API_KEY="), "--url", "https://relay.example.com/webhook", "--print"), terminal.ExitConfig, "", "api.key: is not set")
	conf := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(conf, []byte("[webhook]\nsecret_file = \"/nonexistent/dir/secret\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantOut(t, run(env, "--config", conf, "--url", "https://relay.example.com/webhook"), 1, "", "webhook.secret_file: ")
	wantOut(t, harness.Execute(t, env, "", "webhook", "test"), 1, "", "no secret to sign with")
	wantOut(t, harness.Execute(t, append(env, "WEBHOOK_SECRET=x"), "", "webhook", "test"), 1, "", "webhook.address is not set")
	wantOut(t, harness.Execute(t, env, "", "webhook"), terminal.ExitUsage, "", "give a subcommand")
}
