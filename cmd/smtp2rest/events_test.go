package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// newHeard is a relay that the sandbox tells of what became of mail, once the
// relay has registered itself; and where its secrets are.
func newHeard(t *testing.T) (s *told, url, secrets string) {
	t.Helper()
	hook := harness.FreeAddress(t)
	secrets = t.TempDir()
	for name, text := range map[string]string{"secret": "whsec_first\n", "previous": "whsec_none\n"} {
		if err := os.WriteFile(filepath.Join(secrets, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = newTold(t, fmt.Sprintf("[webhook]\naddress = %q\nsecret_file = %q\nprevious_secret_file = %q\n",
		hook, filepath.Join(secrets, "secret"), filepath.Join(secrets, "previous")))
	s.Await(s.Err, `(listening for events)`)
	return s, "http://" + hook + "/webhook", secrets
}

// register has the provider send events, and the relay take the new secret.
func (s *told) register(url string) {
	s.t.Helper()
	wantOut(s.t, harness.Execute(s.t, s.env, "", "webhook", "register", "--config", s.file, "--url", url), 0, "Registered "+url, "")
	wantOut(s.t, harness.Execute(s.t, s.env, "", "reload"), 0, "Reloaded", "")
}

// TestSecretsRotateWhileEventsCome: what is signed with the secret before the
// last registration and what is signed with the new one both count after a
// reload, and the one before those does not.
func TestSecretsRotateWhileEventsCome(t *testing.T) {
	s, url, secrets := newHeard(t)
	test := func(secret string, code int, when string) {
		t.Helper()
		env := append(slices.Clone(s.env), "WEBHOOK_SECRET="+secret)
		if r := harness.Execute(t, env, "", "webhook", "test", "--url", url); r.Code != code {
			t.Errorf("%s: %+v, want exit code %d", when, r, code)
		}
	}
	current := func() string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(secrets, "secret"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	test("whsec_first", 0, "at first")
	wantOut(t, harness.Execute(t, s.env, "", "webhook", "register", "--config", s.file, "--url", url), 0, "The one before it is in ", "")
	second := current()
	test("whsec_first", 0, "before the reload")
	test(second, 1, "before the reload")
	s.Signal(syscall.SIGHUP)
	s.Await(s.Err, `(msg=reloaded)`)
	test("whsec_first", 0, "after the reload, the old one")
	test(second, 0, "after the reload, the new one")
	s.register(url)
	test("whsec_first", 1, "after another")
	test(second, 0, "after another, the old one")
	test(current(), 0, "after another, the new one")
	if log := s.Err.String(); strings.Contains(log, second) || strings.Contains(log, current()) || strings.Contains(log, "whsec_first") {
		t.Error("the log shows a secret")
	}
}

// awaitState waits until the provider has told of a recipient's end.
func (s *told) awaitState(name string, want history.State, event string) (history.Mail, history.Recipient) {
	s.t.Helper()
	var m history.Mail
	for deadline := time.Now().Add(harness.Patience); time.Now().Before(deadline); {
		var r history.Recipient
		m, r = s.one(name)
		if r.State == want && slices.ContainsFunc(r.Steps, func(st history.Step) bool { return st.Event != nil && st.Event.Type == event }) {
			return m, r
		}
	}
	s.t.Fatalf("%s never came to %s by %s: %+v", name, want, event, m)
	return m, history.Recipient{}
}

// TestEventsAreInTheStory: what the client was told, what the API said and
// what the provider told afterwards are one record, for scripts and for eyes.
func TestEventsAreInTheStory(t *testing.T) {
	s, url, _ := newHeard(t)
	s.register(url)
	for _, tt := range []struct {
		to, event string
		state     history.State
		text      string
		next      string
	}{
		{"hardbounce@example.net", "bounced.hard", history.Bounced, "the provider tells: bounced for good: 550 ", "550 5.1.1 <hardbounce@example.net>"},
		{"complaint@example.net", "complained", history.Complained, "the provider tells: the recipient complained of it as spam", "550 5.7.1 <complaint@example.net>"},
		{"softbounce@example.net", "bounced.soft", history.Sent, "the provider tells: bounced for now: ", "250 2.0.0 accepted"},
		{"unsubscribe@example.net", "unsubscribed", history.Delivered, "the provider tells: the recipient unsubscribed", "250 2.0.0 accepted"},
		{"bob@example.net", "delivered", history.Delivered, "the provider tells: delivered", "250 2.0.0 accepted"},
	} {
		local, _, _ := strings.Cut(tt.to, "@")
		reply := s.hand("shop@mail.example.com", local+"-1", tt.to)
		id := idInReply.FindString(reply)
		m, r := s.awaitState(id, tt.state, tt.event)
		apiID := harness.CallsTo(t, s.sandbox, tt.to)[0].MessageID
		if m.Reply != reply || r.APIID != apiID {
			t.Errorf("%s: the client was told %q, the API gave %s, and the record is %+v", tt.to, reply, apiID, m)
		}
		for _, st := range r.Steps {
			if e := st.Event; e != nil && e.Type == tt.event && (e.MessageID != apiID || e.Email != tt.to || tt.event == "bounced.hard" && (e.Code == "" || e.Reason == "")) {
				t.Errorf("%s: the event is %+v", tt.to, *e)
			}
		}
		text := harness.Execute(t, s.env, "", "trace", apiID).Out
		received, sent, told := strings.Index(text, "received"), strings.Index(text, "sent: HTTP 200 "+apiID), strings.Index(text, tt.text)
		if received < 0 || sent < received || told < sent || !strings.HasSuffix(strings.TrimSpace(text), tt.to+" "+string(tt.state)) {
			t.Errorf("%s: the story is\n%s", tt.to, text)
		}
		next := s.hand("shop@mail.example.com", local+"-2", tt.to)
		if !strings.HasPrefix(next, tt.next) {
			t.Errorf("%s: the next client is told %q, want %q", tt.to, next, tt.next)
		}
		if strings.HasPrefix(tt.next, "550") {
			refused := s.trace(tt.to).Matches
			if len(refused) != 2 || refused[0].Reply != next || refused[0].Recipients[0].State != history.Refused {
				t.Errorf("%s: the refusal at RCPT is recorded as %+v", tt.to, refused)
			}
		}
	}
}

// TestALateBounceReachesTheSender: as the binary does it, and as trace shows it.
func TestALateBounceReachesTheSender(t *testing.T) {
	s, url, _ := newHeard(t)
	s.register(url)
	const sender, to = "late@mail.example.com", "hardbounce@example.net"
	id := idInReply.FindString(s.hand(sender, "late-1", to))
	s.awaitState(id, history.Bounced, "bounced.hard")
	var text string
	for deadline := time.Now().Add(harness.Patience); !strings.Contains(text, "the sender is told, by mail ") && time.Now().Before(deadline); {
		text = harness.Execute(t, s.env, "", "trace", id).Out
	}
	if !strings.Contains(text, "the sender is told, by mail ") || !strings.HasSuffix(strings.TrimSpace(text), to+" bounced") {
		t.Errorf("the story is\n%s", text)
	}
	for deadline := time.Now().Add(harness.Patience); len(harness.CallsTo(t, s.sandbox, sender)) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the sender was not told")
		}
	}
	if calls := harness.CallsTo(t, s.sandbox, sender); len(calls) != 1 || calls[0].Body.Subject != "Your mail could not be delivered" {
		t.Errorf("the sender had %+v", calls)
	}
}

// TestOpenedIsInTheStory: the sandbox does not open mail, so that the test tells
// it, as the provider would.
func TestOpenedIsInTheStory(t *testing.T) {
	s, url, _ := newHeard(t)
	id := idInReply.FindString(s.hand("shop@mail.example.com", "m1", "bob@example.net"))
	_, r := s.one(id)
	body := fmt.Sprintf(`{"id":"evt_o","type":"opened","created_at":%q,"data":{"message_id":%q,"email":"bob@example.net"}}`, time.Now().UTC().Format(time.RFC3339), r.APIID)
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(nexuspromail.SignatureHeader, nexuspromail.Sign("whsec_first", []byte(body)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%d, %v", resp.StatusCode, err)
	}
	s.awaitState(id, history.Delivered, "opened") // nobody opens what was not delivered
	if text := harness.Execute(t, s.env, "", "trace", id).Out; !strings.Contains(text, "the provider tells: opened") {
		t.Errorf("the story is\n%s", text)
	}
}

// TestForgetWithWhatTheProviderTold: its events go with the rest. The entry on
// the list stays unless it is to go, and then no byte of the address is left.
func TestForgetWithWhatTheProviderTold(t *testing.T) {
	s, url, _ := newHeard(t)
	s.register(url)
	const to = "hardbounce@forgotten.example"
	id := idInReply.FindString(s.hand("shop@mail.example.com", "m1", to))
	s.awaitState(id, history.Bounced, "bounced.hard")
	drop := harness.Execute(t, s.env, "", "queue", "drop", id, "--yes")
	forget := func(more ...string) (done admin.Forgotten) {
		t.Helper()
		r := harness.Execute(t, s.env, "", append([]string{"forget", to, "--yes", "--json"}, more...)...)
		if err := json.Unmarshal([]byte(r.Out), &done); err != nil || r.Code != 0 {
			t.Fatalf("%v %+v; the drop before it %+v", err, r, drop)
		}
		return done
	}
	if done := forget(); done.Mails != 1 || done.Events == 0 || done.Clean || done.Suppressed {
		t.Errorf("without --suppressions: %+v", done)
	}
	if reply := s.hand("shop@mail.example.com", "m2", to); !strings.HasPrefix(reply, "550 5.1.1 ") {
		t.Errorf("it is off the list: %s", reply)
	}
	if done := forget("--suppressions"); !done.Clean || !done.Suppressed {
		t.Errorf("with --suppressions: %+v", done)
	}
	for _, name := range []string{"records.db", "records.db-wal"} {
		if b, err := os.ReadFile(filepath.Join(s.dir, name)); err == nil && bytes.Contains(b, []byte("forgotten.example")) {
			t.Errorf("the address is in %s", name)
		}
	}
	if r := harness.Execute(t, s.env, "", "suppressions", "show", to); r.Code == 0 {
		t.Errorf("the list has it: %+v", r)
	}
	if reply := s.hand("shop@mail.example.com", "m3", to); !strings.HasPrefix(reply, "250 ") {
		t.Errorf("still refused: %s", reply)
	}
}
