package mail_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	. "github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
)

// FuzzMap checks what must be true of any mail under any policy.
func FuzzMap(f *testing.F) {
	mails, err := filepath.Glob("testdata/*.eml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range mails {
		raw, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(checkInvariants)
}

// TestInvariants runs the same checks on testdata and on mutations of it: each mail
// cut at every eighth, and doubled.
func TestInvariants(t *testing.T) {
	mails, err := filepath.Glob("testdata/*.eml")
	if err != nil || len(mails) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, path := range mails {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		checkInvariants(t, raw)
		checkInvariants(t, append(bytes.Clone(raw), raw...))
		for i := range 8 {
			checkInvariants(t, raw[:len(raw)*i/8])
			checkInvariants(t, raw[len(raw)*i/8:])
		}
		if t.Failed() {
			t.Fatal(path)
		}
	}
}

func checkInvariants(t *testing.T, raw []byte) {
	t.Helper()
	for _, policy := range []AttachmentPolicy{RefuseAttachments, StripAttachments, SendAttachments} {
		o := testOptions()
		o.Attachments, o.PassHeaders = policy, true
		o.ForeignSender = map[AttachmentPolicy]SenderPolicy{StripAttachments: Refuse}[policy]
		root := mime.Parse(raw, o.Limits)
		checkTree(t, root, 0)
		var words []string
		o.Explain = func(_ OmissionKind, said string) { words = append(words, said) }
		c := Compose(raw, "root@web1", o)
		err := c.Refusal
		if c.Leaves != c.Placed {
			t.Errorf("%d parts, %d of them carried or left out", c.Leaves, c.Placed)
		}
		if policy != SendAttachments && c.Leaves < countLeaves(root) && c.Readable {
			t.Errorf("%d parts were looked at, the mail has %d", c.Leaves, countLeaves(root))
		}
		if err != nil {
			checkRefusal(t, err)
			if c.Readable != (err.Read == c.Mail) {
				t.Error("what was read is not with the refusal")
			}
			if err.Read == nil {
				continue
			}
		}
		checkMail(t, c.Mail, len(raw), words)
	}
}

func countLeaves(p *mime.Part) int {
	if !p.Container() {
		return 1
	}
	n := 0
	for _, child := range p.Parts {
		n += countLeaves(child)
	}
	return n
}

func checkTree(t *testing.T, p *mime.Part, depth int) {
	t.Helper()
	if depth > 51 {
		t.Fatal("nested deeper than the limit")
	}
	for _, child := range p.Parts {
		checkTree(t, child, depth+1)
	}
}

func checkRefusal(t *testing.T, err error) {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) {
		t.Fatalf("not a refusal: %v", err)
	}
	if r.Detail == "" || len(r.Detail) > MaxDetail || strings.ContainsFunc(r.Detail, func(c rune) bool { return c < ' ' || c > '~' }) {
		t.Errorf("unfit for a reply: %q", r.Detail)
	}
}

func checkMail(t *testing.T, m *Mail, size int, lines []string) {
	t.Helper()
	doc := encodedAs(t, m, nexuspromail.Format{Headers: "headers"})
	if !utf8.Valid(doc) {
		t.Error("not UTF-8")
	}
	var back struct {
		To                  map[string]string
		From                map[string]string
		Subject, HTML, Text string
	}
	if err := json.Unmarshal(doc, &back); err != nil {
		t.Fatal(err)
	}
	if back.Subject != m.Subject || back.HTML != m.HTML || back.Text != m.Text || back.From["email"] != m.From.Email || back.From["name"] != m.From.Name {
		t.Error("JSON does not say what the mail says")
	}
	if back.To["email"] != "bob@example.net" || len(back.To) != 1 {
		t.Errorf("to is %v", back.To)
	}
	if m.HTML == "" || !strings.Contains(m.From.Email, "@") {
		t.Errorf("html %q, from %q", m.HTML, m.From.Email)
	}
	lines = append(lines, m.From.Email, m.From.Name, m.Subject, m.MessageID)
	if m.ReplyTo != nil {
		lines = append(lines, m.ReplyTo.Email)
	}
	for _, a := range m.Attachments {
		lines = append(lines, a.Filename, a.ContentType, a.ContentID)
	}
	for _, h := range m.Headers {
		lines = append(lines, h.Name, h.Value)
	}
	for _, s := range lines {
		if s != mime.OneLine(s) || !utf8.ValidString(s) {
			t.Errorf("a control character or no UTF-8 in %q", s)
		}
	}
	for _, s := range []string{m.Text, m.HTML} {
		if s != mime.CleanText(s) || !utf8.ValidString(s) {
			t.Error("a control character or no UTF-8 in a body")
		}
		if len(s) > 40*size+10_000 {
			t.Errorf("a body of %d bytes from a mail of %d", len(s), size)
		}
	}
}
