// Package page looks at the page for operators as they do, and attacks it as others do:
// the real relay with a sandbox behind it, over HTTP and in a headless Chromium.
package page

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// site is a running relay with its page.
type site struct {
	harness.Relay
	t      *testing.T
	config string // its configuration file
	text   string // that is in it
	url    string // of the page, with a slash at the end
	tokens map[string]string
	env    []string // for commands that ask it
}

// token is what 'smtp2rest token --json' prints.
type token struct {
	Name  string `json:"name"`
	Role  string `json:"role"`
	Token string `json:"token"`
	Hash  string `json:"token_hash"`
}

// newSite starts a relay whose page has an operator of each role, named as the role.
func newSite(t *testing.T, more string) *site {
	t.Helper()
	s := &site{t: t, tokens: map[string]string{}}
	address := harness.FreeAddress(t)
	s.text = "[[listener]]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"" + address + "\"\nhosts = [\"relay.example.com\"]\n" +
		"[history]\nsubjects = true\n[mail]\nattachments = \"strip\"\n" + more
	for _, role := range []string{"read", "operate", "bodies"} {
		var made token
		r := harness.Execute(t, harness.Environ(t), "", "token", role, "--role", role, "--json")
		if err := json.Unmarshal([]byte(r.Out), &made); err != nil || r.Code != 0 {
			t.Fatalf("token: %v, %+v", err, r)
		}
		s.tokens[role] = made.Token
		s.text += "[[operator]]\nname = \"" + made.Name + "\"\nrole = \"" + made.Role + "\"\ntoken_hash = \"" + made.Hash + "\"\n"
	}
	s.config = harness.ConfigFile(t, s.text)
	p := harness.Launch(t, harness.Environ(t), "serve", "--sandbox", "--config", s.config)
	s.Relay = harness.Relay{Process: p, SMTP: p.Await(p.Out, `SMTP +(\S+:\d+)`), Sandbox: p.Await(p.Out, `sandbox +http://(127\.0\.0\.1:\d+)/api`)}
	s.url = p.Await(p.Out, `page +(http://\S+)`)
	s.env = harness.Environ(t, "SMTP2REST_DATA_DIR="+p.Await(p.Out, `SMTP2REST_DATA_DIR=(\S+)`))
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return s
}

// send hands a small mail over.
func (s *site) send(to, subject string) {
	s.t.Helper()
	harness.Execute(s.t, s.env, "", "send", "--server", s.SMTP, "--from", "shop@sandbox.example", "--to", to, "--subject", subject)
}

// queue is what 'queue list' says, a line each of state and recipient.
func (s *site) queue() string {
	s.t.Helper()
	r := harness.Execute(s.t, s.env, "", "queue", "list", "--json")
	var list []struct{ State, Recipient string }
	if err := json.Unmarshal([]byte(r.Out), &list); err != nil {
		s.t.Fatalf("queue list: %v, %+v", err, r)
	}
	var b strings.Builder
	for _, e := range list {
		b.WriteString(e.State + " " + e.Recipient + "\n")
	}
	return b.String()
}

// browser is a client that keeps cookies and follows no redirection by itself.
type browser struct {
	*http.Client
	s *site
}

func (s *site) browser() *browser {
	jar, _ := cookiejar.New(nil) // fails never
	c := &http.Client{Jar: jar, Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	s.t.Cleanup(c.CloseIdleConnections)
	return &browser{c, s}
}

// as logs in.
func (s *site) as(role string) *browser {
	s.t.Helper()
	b := s.browser()
	if r := b.post("login", url.Values{"token": {s.tokens[role]}}); r.status != http.StatusSeeOther {
		s.t.Fatalf("login: %d %s", r.status, r.body)
	}
	return b
}

type answer struct {
	status int
	header http.Header
	body   string
}

// do makes a request; change may change it before it is sent.
func (b *browser) do(method, page, body string, change ...func(*http.Request)) answer {
	b.s.t.Helper()
	r, err := http.NewRequestWithContext(b.s.t.Context(), method, b.s.url+page, strings.NewReader(body))
	if err != nil {
		b.s.t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, f := range change {
		f(r)
	}
	resp, err := b.Do(r)
	if err != nil {
		b.s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.s.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func (b *browser) get(page string) answer { b.s.t.Helper(); return b.do(http.MethodGet, page, "") }

func (b *browser) post(page string, form url.Values, change ...func(*http.Request)) answer {
	b.s.t.Helper()
	return b.do(http.MethodPost, page, form.Encode(), change...)
}

var csrf = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// fill posts a form of a page with its CSRF token.
func (b *browser) fill(page string, form url.Values) answer {
	b.s.t.Helper()
	m := csrf.FindStringSubmatch(b.get(page).body)
	if m == nil {
		b.s.t.Fatalf("%s has no form", page)
	}
	form.Set("csrf", m[1])
	return b.post(page, form)
}

// What is done on the page is done in the relay, only after a confirmation that says how
// many, and the log says who did it. All of it goes without JavaScript.
func TestTheQueueIsChanged(t *testing.T) {
	s := newSite(t, "")
	s.send("down@example.net", "one")
	s.send("down+other@example.net", "two")
	b := s.as("operate")
	list := b.get("queue")
	item := regexp.MustCompile(`name="item" value="(\w+ down@example\.net)"`).FindStringSubmatch(list.body)
	if item == nil || !strings.Contains(list.body, "something went wrong") {
		t.Fatalf("the queue: %s", list.body)
	}
	for _, step := range []struct{ change, want string }{
		{"hold", "held down@example.net\nwaiting down+other@example.net\n"},
		{"release", "waiting down@example.net\nwaiting down+other@example.net\n"},
	} {
		form := url.Values{"change": {step.change}, "item": {item[1]}}
		if r := b.fill("queue", form); r.status != 200 || !strings.Contains(r.body, "1 recipient") {
			t.Fatalf("no confirmation: %d %s", r.status, r.body)
		}
		form.Set("sure", "yes")
		r := b.post("queue", form)
		if r.status != http.StatusSeeOther || s.queue() != step.want {
			t.Errorf("%s: %d %s; the queue has %q", step.change, r.status, r.body, s.queue())
		}
		if r := b.get(r.header.Get("Location")); !strings.Contains(r.body, ": 1</p>") {
			t.Errorf("after %s the page does not say so: %s", step.change, r.body)
		}
		s.Await(s.Err, `msg="an operator used the page" operator=operate change=`+step.change+` recipients=1 mails=\w+`)
	}
	form := url.Values{"change": {"drop"}, "which": {"all"}, "sender": {"shop@sandbox.example"}, "state": {"waiting"}}
	if r := b.fill("queue", form); !strings.Contains(r.body, "Drop 2 recipients?") || !strings.Contains(s.queue(), "down@example.net") {
		t.Fatalf("no confirmation: %s", r.body)
	}
	form.Set("sure", "yes")
	b.post("queue", form)
	if got := s.queue(); got != "" {
		t.Errorf("after a drop the queue has %q", got)
	}
	s.Await(s.Err, `operator=operate change=drop recipients=2 selected="state waiting, sender shop@sandbox.example"`)
}

func TestAMailIsFoundAndItsTimelineShown(t *testing.T) {
	s := newSite(t, "")
	s.send("bob@example.net", "Order 4711")
	b := s.as("read")
	found := b.get("search?q=bob@example.net")
	if found.status != http.StatusSeeOther {
		t.Fatalf("the search: %d %s", found.status, found.body)
	}
	mail := b.get(found.header.Get("Location"))
	for _, want := range []string{"Order 4711", "attempt 1: sent", "shop@sandbox.example", "To bob@example.net: ", "250 2.0.0 accepted"} {
		if !strings.Contains(mail.body, want) {
			t.Errorf("the mail's page lacks %q: %s", want, mail.body)
		}
	}
	if r := b.get("search?q=nobody@example.net"); r.status != http.StatusNotFound {
		t.Errorf("an unknown name: %d", r.status)
	}
}

func TestSuppressionsAreChanged(t *testing.T) {
	s := newSite(t, "")
	b := s.as("operate")
	has := func(address string) bool {
		return harness.Execute(t, s.env, "", "suppressions", "show", address).Code == 0
	}
	b.fill("suppressions", url.Values{"change": {"add"}, "address": {"gone@example.net"}, "note": {"asked to"}})
	if !has("gone@example.net") || !strings.Contains(b.get("suppressions?address=gone@example.net").body, "asked to") {
		t.Error("the address was not added")
	}
	s.Await(s.Err, `operator=operate change=suppress address=gone@example.net`)
	list := url.Values{"text": {"address,reason\na@example.org,complaint\nnonsense\nb@example.org,\nc@example.org,whim\n"}}
	preview := b.fill("import", list)
	for _, want := range []string{"2 addresses to add", "2 lines are wrong", "nonsense", "whim"} {
		if !strings.Contains(preview.body, want) {
			t.Errorf("the preview lacks %q: %s", want, preview.body)
		}
	}
	if has("a@example.org") {
		t.Error("the preview added something")
	}
	list.Set("sure", "yes")
	b.post("import", list)
	if !has("a@example.org") || !has("b@example.org") {
		t.Error("the list was not added")
	}
	if csv := b.get("export").body; !strings.HasPrefix(csv, "address,reason,") || strings.Count(csv, "\n") != 4 || !strings.Contains(csv, "a@example.org,complaint") {
		t.Errorf("the export is %q", csv)
	}
	b.fill("suppressions", url.Values{"change": {"remove"}, "item": {"gone@example.net"}})
	if has("gone@example.net") {
		t.Error("the address was not removed")
	}
}

// Secrets are in the configuration, and on no page.
func TestSettingsAreShownWithoutSecrets(t *testing.T) {
	s := newSite(t, "")
	body := s.as("read").get("settings").body
	if !strings.Contains(body, "admin.address") || !strings.Contains(body, "set (from environment NEXUSPROMAIL_API_KEY)") {
		t.Errorf("the settings: %s", body)
	}
	for _, secret := range []string{"sandbox-key", "whsec_", "sha256:", s.tokens["read"]} {
		if strings.Contains(body, secret) {
			t.Errorf("the settings show %q", secret)
		}
	}
}

// The content of a mail is for who may see it, as text, and the log says who looked.
func TestContentIsForTheRoleBodies(t *testing.T) {
	s := newSite(t, "")
	c := harness.Dial(t, s.SMTP)
	c.Open("down@example.net")
	c.Do("Subject: x\r\nContent-Type: text/html\r\n\r\n<script>secret words</script>\r\n.", "250 ", "QUIT", "221 ")
	mail := s.as("operate").get("search?q=down@example.net").header.Get("Location")
	page := strings.Replace(mail, "mail", "content", 1)
	for _, role := range []string{"read", "operate"} {
		if r := s.as(role).get(page); r.status != http.StatusForbidden || strings.Contains(r.body, "secret words") || strings.Contains(s.as(role).get(mail).body, "content?id=") {
			t.Errorf("%s sees it: %d", role, r.status)
		}
	}
	r := s.as("bodies").get(page)
	if r.status != http.StatusOK || !strings.Contains(r.body, "&lt;script&gt;secret words") || !strings.Contains(s.as("bodies").get(mail).body, "content?id=") {
		t.Errorf("who may see it gets %d %s", r.status, r.body)
	}
	s.Await(s.Err, `operator=bodies change="read the content" mail=\w+`)
	if strings.Contains(s.Err.String(), "secret words") {
		t.Error("the log has words of the mail")
	}
}
