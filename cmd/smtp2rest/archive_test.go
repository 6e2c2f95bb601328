package main

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

const archiveAddress = "archive@mail.example.com"

// awaitCopies waits until the archive has been sent n mails, and returns their subjects,
// sorted.
func (s *told) awaitCopies(to string, n int) []harness.Call {
	s.t.Helper()
	var calls []harness.Call
	harness.PollUntil(s.t, "the archive has its copies", func() bool {
		calls = harness.CallsTo(s.t, s.sandbox, to)
		return len(calls) >= n
	})
	slices.SortFunc(calls, func(a, b harness.Call) int { return strings.Compare(a.Body.Subject, b.Body.Subject) })
	return calls
}

// TestArchive: a mail that is sent at once and one that is queued have one copy each, a
// mail that is refused has none, and nobody's call has the archive's address in it.
func TestArchive(t *testing.T) {
	s := newTold(t, "")
	s.stop()
	harness.Rewrite(t, s.file, "archive_bcc = \""+archiveAddress+"\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n[delivery]\nretry_first = \"200ms\"\nretry_max = \"400ms\"\n[mail]\nattachments = \"strip\"\n")
	s.start()
	for subject, tt := range map[string]struct{ want, to string }{
		"1": {"250 2.0.0 accepted", "bob@example.net eve@example.net"},
		"2": {"250 2.0.0 queued", "down+1@example.net"},
		"3": {"554 5.6.0", "invalid@example.net"},
	} {
		if got := s.hand("shop@mail.example.com", subject, strings.Fields(tt.to)...); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s is answered %q", subject, got)
		}
	}
	copies := s.awaitCopies(archiveAddress, 2)
	for i, want := range []string{"bob@example.net, eve@example.net.", "down+1@example.net."} {
		if c := copies[i]; !strings.HasPrefix(c.Body.Text, "Copy for the archive. This mail was for "+want) || !strings.Contains(c.Body.HTML, "This mail was for "+want) {
			t.Errorf("copy %d: %+v", i, c.Body)
		}
	}
	for _, c := range harness.AllCalls(t, s.sandbox) {
		if c.To != archiveAddress && strings.Contains(string(c.Raw), "archive") {
			t.Errorf("the call for %s has the archive in it: %s", c.To, c.Raw)
		}
	}
	of := s.trace("bob@example.net").Mail.ID
	if text := harness.Execute(t, s.env, "", "trace", copies[0].MessageID).Out; !strings.Contains(text, "copy of") || !strings.Contains(text, of) {
		t.Errorf("trace does not say of what it is a copy (%s):\n%s", of, text)
	}
	if n := len(harness.CallsTo(t, s.sandbox, archiveAddress)); n != 2 {
		t.Errorf("the archive got %d mails", n)
	}
}

// TestArchiveThatFails: the sender hears nothing of it, status does, and the reply is the
// same.
func TestArchiveThatFails(t *testing.T) {
	s := newTold(t, "")
	s.stop()
	const archive = "invalid@archive.example"
	harness.Rewrite(t, s.file, "archive_bcc = \""+archive+"\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n[mail]\nattachments = \"strip\"\n")
	s.start()
	if got := s.hand("shop@mail.example.com", "one", "bob@example.net"); !strings.HasPrefix(got, "250 2.0.0 accepted") {
		t.Errorf("answered %q", got)
	}
	s.awaitCopies(archive, 1)
	s.Await(s.Err, `(a copy for the archive was given up)`)
	harness.PollUntil(t, "status tells of it", func() bool {
		return strings.Contains(harness.Execute(t, s.env, "", "status").Out, "1 copy for the archive was not sent")
	})
	if n := len(harness.CallsTo(t, s.sandbox, "shop@mail.example.com")); n != 0 {
		t.Errorf("the sender got %d mails", n)
	}
	harness.Rewrite(t, s.file, "redirect_all = \"dev@mail.example.com\"\narchive_bcc = \""+archive+"\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n[mail]\nattachments = \"strip\"\n")
	s.Signal(syscall.SIGHUP)
	s.Await(s.Err, `(msg=reloaded)`)
	s.hand("shop@mail.example.com", "two", "bob@example.net")
	s.stop()
	if n := len(harness.CallsTo(t, s.sandbox, archive)); n != 1 {
		t.Errorf("the archive was sent %d mails, redirected ones among them", n)
	}
}
