package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// accountRecipe is the configuration of docs/accounts.md.
func accountRecipe(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(harness.File(t, "docs/accounts.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```toml\n(.*?)```\n").FindSubmatch(text)
	if m == nil {
		t.Fatal("docs/accounts.md has no configuration")
	}
	return string(m[1])
}

// callsOf returns for whom the sandbox had calls on an account.
func callsOf(t *testing.T, sandbox, account string) (to []string) {
	t.Helper()
	resp, err := http.Get("http://" + sandbox + "/sandbox" + account + "/calls")
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer func() { _ = resp.Body.Close() }()
	var calls []struct{ To string }
	if err := json.NewDecoder(resp.Body).Decode(&calls); err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		to = append(to, c.To)
	}
	return to
}

// TestSeveralAccounts follows docs/accounts.md with the real binary: each mail goes out by
// the account of its domain, and every command tells the account.
func TestSeveralAccounts(t *testing.T) {
	env := harness.Environ(t, "WEBHOOK_SECRET=whsec_default", "WEBHOOK_SECRET_SHOP=whsec_of_shop")
	hook := harness.FreeAddress(t)
	file := harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n[webhook]\naddress = \""+hook+"\"\n"+accountRecipe(t))
	p := harness.Launch(t, env, "serve", "--sandbox", "--config", file)
	smtp, sandbox := p.Await(p.Out, `SMTP +(\S+:\d+)`), p.Await(p.Out, `sandbox +http://(127\.0\.0\.1:\d+)/api`)
	socket := "--socket=" + p.Await(p.Out, `SMTP2REST_DATA_DIR=(\S+)`) + "/admin.sock"
	run := func(args ...string) harness.Result { return harness.Execute(t, env, "", args...) }
	send := func(from, to string) harness.Result {
		t.Helper()
		return run("send", "--server", smtp, "--from", from, "--to", to)
	}
	for from, to := range map[string]string{
		"orders@shop.example.com": "a@example.net", "x@letters.example.com": "b@example.net", "hello@mail.example.com": "c@example.net",
	} {
		wantOut(t, send(from, to), 0, "250 2.0.0 accepted", "")
	}
	if r := send("orders@shop.example.com", "suppressed@example.net"); r.Code == 0 {
		t.Errorf("to a suppressed address: %+v", r)
	}
	for account, want := range map[string]string{"": "c@example.net", "/shop": "a@example.net suppressed@example.net", "/news": "b@example.net"} {
		if got := strings.Join(callsOf(t, sandbox, account), " "); got != want {
			t.Errorf("account %q had calls for %q, want %q", account, got, want)
		}
	}
	for _, to := range []string{"a@example.net", "b@example.net", "c@example.net"} { // news has no secret of its own
		harness.PollUntil(t, "the sandbox tells what became of the mail for "+to, func() bool {
			return strings.Contains(run("trace", to, socket).Out, to+" delivered")
		})
	}
	for _, tt := range []struct {
		args        string
		want, never string
	}{
		{"status", "account default", ""},
		{"status --account shop", "account shop ", "account news"},
		{"queue status --account news", "account news", "account shop"},
		{"history", " ACCOUNT ", ""},
		{"history --account shop", " shop ", "b@example.net"},
		{"trace a@example.net", "account +shop", ""},
		{"trace c@example.net", "account +default", ""},
		{"suppressions", "suppressed@example.net +shop", ""},
		{"suppressions --account default", "No suppressed address matches", ""},
	} {
		r := run(append(strings.Fields(tt.args), socket)...)
		if r.Code != 0 || !regexp.MustCompile(tt.want).MatchString(r.Out) || tt.never != "" && strings.Contains(r.Out, tt.never) {
			t.Errorf("%s: %+v", tt.args, r)
		}
	}
	if r := run("status", "--account", "shopp", socket); r.Code != 1 || !strings.Contains(r.Err, `there is no account "shopp"`) {
		t.Errorf("an unknown account: %+v", r)
	}
	wantOut(t, run("webhook", "test", "--config", file, "--account", "shop"), 0, "/webhook/shop answered 200", "")
	wantOut(t, run("webhook", "test", "--config", file), 0, "/webhook answered 200", "")
	wantOut(t, run("webhook", "test", "--config", file, "--account", "news"), 1, "", "webhook register --account news")
	// With another account's secret nothing is taken, whatever path it is tried at.
	for path, secret := range map[string]string{"/webhook": "whsec_of_shop", "/webhook/shop": "whsec_default", "/webhook/news": "whsec_of_shop", "/webhook/shop/": "whsec_default", "/webhook//shop": "whsec_default", "/webhook/%73hop": "whsec_default"} {
		forged := harness.Execute(t, harness.Environ(t, "WEBHOOK_SECRET="+secret), "", "webhook", "test", "--url", "http://"+hook+path)
		if forged.Code == 0 {
			t.Errorf("%s with another account's secret: %+v", path, forged)
		}
	}
}

// TestExplainTellsTheAccount: the one that the relay would choose, and its redirection.
func TestExplainTellsTheAccount(t *testing.T) {
	mail := filepath.Join(t.TempDir(), "mail.eml")
	if err := os.WriteFile(mail, []byte("From: orders@shop.example.com\r\nSubject: s\r\n\r\nHi.\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	recipe := strings.Replace(accountRecipe(t), "rate = 50\n", "rate = 50\nredirect_all = \"dev@example.org\"\n", 1)
	file := harness.ConfigFile(t, recipe+fmt.Sprintf("[[user]]\nname = \"ann\"\npassword_hash = %q\naccount = \"news\"\n[[user]]\nname = \"tester\"\npassword_hash = %[1]q\naccount = \"default\"\nredirect_all = \"tester@example.org\"\n", harness.HashOf(t, "a password of ann's")))
	one := harness.ConfigFile(t, "[sender]\nemail = \"hello@mail.example.com\"\n")
	for _, tt := range []struct {
		args        []string
		want, never string
	}{
		{[]string{"--config", file}, "account: shop", `"to": {"email":"recipient@example.net"}`},
		{[]string{"--config", file}, "dev@example.org", ""},
		{[]string{"--config", file, "--user", "ann"}, "account: news", "dev@example.org"},
		{[]string{"--config", file, "--user", "tester"}, `"to": {"email":"tester@example.org"}`, `"to": {"email":"recipient@example.net"}`},
		{[]string{"--config", file, "--account", "default"}, "account: default", "dev@example.org"},
		{[]string{"--config", file, "--json"}, `"account":"shop"`, ""},
		{[]string{"--config", one}, "recipient@example.net", "account"},
		{[]string{"--config", one, "--json"}, "recipient@example.net", "account"},
	} {
		r := harness.Execute(t, harness.Environ(t), "", append([]string{"explain", mail}, tt.args...)...)
		if r.Code != 0 || !strings.Contains(r.Out, tt.want) || tt.never != "" && strings.Contains(r.Out, tt.never) {
			t.Errorf("%q: %+v", tt.args, r)
		}
	}
}

// TestNobodyWithOneAccountSeesTheWord in what the commands print.
func TestNobodyWithOneAccountSeesTheWord(t *testing.T) {
	s := newTold(t, "")
	s.hand("shop@mail.example.com", "sent", "bob@example.net")
	s.hand("shop@mail.example.com", "waits", "down+99@example.net")
	for _, args := range []string{"status", "status --json", "queue", "queue --json", "queue status", "history", "history --json", "trace bob@example.net", "trace bob@example.net --json", "suppressions", "suppressions --json"} {
		if r := harness.Execute(t, s.env, "", strings.Fields(args)...); strings.Contains(strings.ToLower(r.Out), "account") {
			t.Errorf("%s: %s", args, r.Out)
		}
	}
	if log := s.Err.String(); strings.Contains(log, "account=") {
		t.Errorf("the log names an account:\n%s", log)
	}
}

// TestAnAccountIsRemovedWhileMailWaits: it is held, every command says what to do, and
// what it says works, also while the relay is stopped.
func TestAnAccountIsRemovedWhileMailWaits(t *testing.T) {
	s := newTold(t, "")
	s.stop()
	with := "[[listener]]\naddress = \"127.0.0.1:0\"\naccount = \"shop\"\n[delivery]\nwait = \"0s\"\n[mail]\nattachments = \"strip\"\n[[account]]\nname = \"shop\"\nemail = \"orders@shop.example.com\"\nurl = \"http://127.0.0.1:9/api\"\n"
	without, _, _ := strings.Cut(strings.Replace(with, "account = \"shop\"\n", "", 1), "[[account]]")
	s.env = append(s.env, "NEXUSPROMAIL_API_KEY_SHOP="+harness.PlantedKey)
	harness.Rewrite(t, s.file, with)
	s.start()
	if got := s.hand("orders@shop.example.com", "waits", "bob@example.net"); !strings.HasPrefix(got, "250 2.0.0 queued") {
		t.Fatal(got)
	}
	harness.Rewrite(t, s.file, without)
	wantOut(t, harness.Execute(t, s.env, "", "reload"), 78, "", `account "shop".name: is gone, which takes a restart`)
	s.stop()
	wantOut(t, harness.Execute(t, s.env, "", "queue"), 0, "shop", "")
	s.start()
	for args, want := range map[string]string{
		"status":                    "queue reassign --account shop --to default",
		"queue":                     `its account shop is not in the configuration`,
		"trace bob@example.net":     "account +shop",
		"queue list":                " shop ",
		"queue list --account shop": "bob@example.net",
	} {
		if r := harness.Execute(t, s.env, "", strings.Fields(args)...); !regexp.MustCompile(want).MatchString(r.Out) {
			t.Errorf("%s: %+v", args, r)
		}
	}
	var status admin.Status
	if err := json.Unmarshal([]byte(harness.Execute(t, s.env, "", "status", "--json").Out), &status); err != nil || status.State != admin.StateDegraded {
		t.Errorf("%+v, %v", status, err)
	}
	s.Await(s.Err, `(level=ERROR msg="1 mail is held" .*reassign --account shop)`)
	if calls := harness.AllCalls(t, s.sandbox); len(calls) != 0 {
		t.Errorf("the mail was sent by another account: %+v", calls)
	}
	wantOut(t, harness.Execute(t, s.env, "", "queue", "reassign", "--account", "shop", "--to", "shop"), 1, "", `there is no account "shop"`)
	wantOut(t, harness.Execute(t, s.env, "", "queue", "reassign", "--account", "shop", "--to", "default"), 0, "1 mail moved to account default", "")
	harness.PollUntil(t, "the mail is sent by the other account", func() bool { return len(harness.CallsTo(t, s.sandbox, "bob@example.net")) == 1 })
}
