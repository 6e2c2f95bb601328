package main

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// TestRedirectAll: mail for anybody, suppressed ones and those whose mail waits in the
// queue included, and the bounces of it go to one address, and nothing to anybody else.
func TestRedirectAll(t *testing.T) {
	s := newTold(t, "")
	s.stop()
	harness.Rewrite(t, s.file, "[[listener]]\naddress = \"127.0.0.1:0\"\n[delivery]\nretry_first = \"1h\"\nretry_max = \"1h\"\n[mail]\nattachments = \"strip\"\n")
	s.start()
	if got := s.hand("shop@mail.example.com", "before", "down+2@example.net"); !strings.HasPrefix(got, "250 2.0.0 queued") {
		t.Fatalf("to be queued: %q", got)
	}
	wantOut(t, harness.Execute(t, s.env, "", "suppressions", "add", "eve@example.net"), 0, "", "")
	s.stop()
	before := len(harness.CallsTo(t, s.sandbox, "down+2@example.net"))
	harness.Rewrite(t, s.file, "redirect_all = \"dev@mail.example.com\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n[delivery]\nretry_first = \"200ms\"\nretry_max = \"400ms\"\n[mail]\nattachments = \"strip\"\n") // so that what waits for an hour is due
	s.start()
	s.Await(s.Err, `(REDIRECTED: all mail goes to dev@mail.example.com)`)
	s.hand("shop@mail.example.com", "after", "bob@example.net", "eve@example.net")
	var got []harness.Call
	for deadline := time.Now().Add(harness.Patience); len(got) < 3 && time.Now().Before(deadline); {
		got = harness.CallsTo(t, s.sandbox, "dev@mail.example.com")
	}
	var subjects []string
	for _, c := range got {
		subjects = append(subjects, c.Body.Subject)
		if !strings.Contains(c.Body.Text, "This mail was for <") || !strings.Contains(c.Body.HTML, "This mail was for &lt;") {
			t.Errorf("the bodies do not say whom it was for: %+v", c.Body)
		}
	}
	all := strings.Join(subjects, "\n")
	for _, want := range []string{"[for down+2@example.net] About before", "[for bob@example.net] About after", "[for eve@example.net] About after"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
	for _, to := range []string{"bob@example.net", "eve@example.net"} {
		if n := len(harness.CallsTo(t, s.sandbox, to)); n != 0 {
			t.Errorf("%s got %d mails", to, n)
		}
	}
	if n := len(harness.CallsTo(t, s.sandbox, "down+2@example.net")); n != before {
		t.Errorf("the mail that was queued before was sent to its recipient")
	}
	if got := s.trace("bob@example.net"); got.Mail == nil || got.Mail.Client.Redirect != "dev@mail.example.com" {
		t.Errorf("trace by the recipient: %+v", got)
	}
	if text := harness.Execute(t, s.env, "", "trace", "bob@example.net").Out; !strings.Contains(text, "dev@mail.example.com") {
		t.Errorf("trace does not say who got it:\n%s", text)
	}
	if text := harness.Execute(t, s.env, "", "status").Out; !strings.Contains(text, "mail is redirected") {
		t.Errorf("status does not say it:\n%s", text)
	}
	harness.Rewrite(t, s.file, "[[listener]]\naddress = \"127.0.0.1:0\"\n[mail]\nattachments = \"strip\"\n")
	s.Signal(syscall.SIGHUP)
	s.Await(s.Err, `(mail is not redirected any more)`)
}

// TestRedirectOfAListener: other listeners' mail goes to its recipients. The bounce of a
// redirected mail does not reach its sender.
func TestRedirectOfAListener(t *testing.T) {
	s := newTold(t, "[[listener]]\naddress = \"127.0.0.2:0\"\nredirect_all = \"dev@mail.example.com\"\n")
	s.hand("shop@mail.example.com", "plain", "bob@example.net")
	s.smtp = s.Await(s.Err, `msg=listening address=(127\.0\.0\.2:\d+)`)
	s.hand("shop@mail.example.com", "staged", "eve@example.net")
	if n, m := len(harness.CallsTo(t, s.sandbox, "bob@example.net")), len(harness.CallsTo(t, s.sandbox, "eve@example.net")); n != 1 || m != 0 {
		t.Errorf("%d to the recipient of the one, %d to that of the other", n, m)
	}
	if calls := harness.CallsTo(t, s.sandbox, "dev@mail.example.com"); len(calls) != 1 || calls[0].Body.Subject != "[for eve@example.net] About staged" {
		t.Errorf("%+v", calls)
	}
}
