package mail_test

import (
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	. "github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
)

func mapFile(t *testing.T, name string, o Options) (*Mail, error) {
	t.Helper()
	return Map(readFile(t, name), "envelope@example.com", o)
}

const withFiles = "related-in-alternative-in-mixed"

func TestAttachmentsRefused(t *testing.T) {
	_, err := mapFile(t, withFiles, testOptions())
	var r *Refusal
	if !errors.As(err, &r) || r.Reason != HasAttachment {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"logo.png", "image/png", "67 bytes", "report.pdf", "application/pdf"} {
		if !strings.Contains(r.Detail, want) {
			t.Errorf("%q does not name %s", r.Detail, want)
		}
	}
}

func TestAttachmentsStripped(t *testing.T) {
	o := testOptions()
	o.Attachments = StripAttachments
	m, err := mapFile(t, withFiles, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Attachments) != 0 || !omits(m, AttachmentStripped) {
		t.Errorf("attachments %v, notes %v", m.Attachments, m.Omissions)
	}
	for _, body := range []string{m.Text, m.HTML} {
		if !strings.Contains(body, NoticeTitle) || !strings.Contains(body, "report.pdf (application/pdf, 9 bytes)") {
			t.Errorf("no notice in %q", body)
		}
	}
	if strings.Contains(m.HTML, "cid:") || !strings.Contains(m.HTML, "[logo.png]") {
		t.Errorf("a broken image in %q", m.HTML)
	}
}

// TestNoticeIsEscaped: the sender chooses the name of a file.
func TestNoticeIsEscaped(t *testing.T) {
	o := testOptions()
	o.Attachments = StripAttachments
	m, err := mapFile(t, "filename-hostile", o)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(m.HTML, "<script>") || !strings.Contains(m.HTML, "&lt;script&gt;") {
		t.Errorf("html %q", m.HTML)
	}
}

func TestNoticeStandsInsideTheDocument(t *testing.T) {
	mail := "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n\n<HTML><BODY>Hi</BODY></HTML>\n--b\nContent-Type: image/png\n\nx\n--b--\n"
	o := testOptions()
	o.Attachments = StripAttachments
	m, err := Map([]byte(mail), "", o)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(m.HTML, "</BODY></HTML>") || strings.Index(m.HTML, NoticeTitle) < strings.Index(m.HTML, "Hi") {
		t.Errorf("html %q", m.HTML)
	}
	if m.Text != "" {
		t.Errorf("a text of its own: %q", m.Text)
	}
}

func TestAttachmentsSent(t *testing.T) {
	o := testOptions()
	o.Attachments = SendAttachments
	format := nexuspromail.Format{Attachments: "files", Filename: "name", Content: "data", ContentID: "cid"}
	m, err := mapFile(t, withFiles, o)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Files []map[string]string `json:"files"`
		HTML  string              `json:"html"`
	}
	if err := json.Unmarshal(encodedAs(t, m, format), &doc); err != nil {
		t.Fatal(err)
	}
	want := []map[string]string{
		{"name": "logo.png", "cid": "logo@x", "data": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgAAIAACAAAeIhvDMAAAAASUVORK5CYII="},
		{"name": "report.pdf", "data": "JVBERi0xLjQK"},
	}
	if len(doc.Files) != 2 || doc.Files[0]["name"] != want[0]["name"] || doc.Files[0]["cid"] != want[0]["cid"] || !reflect.DeepEqual(doc.Files[1], want[1]) {
		t.Errorf("got %v", doc.Files)
	}
	if got := m.Attachments[1].Content(); string(got) != "%PDF-1.4\n" || int64(len(got)) != m.Attachments[1].Size {
		t.Errorf("content %q, size %d", got, m.Attachments[1].Size)
	}
	if !strings.Contains(doc.HTML, "cid:logo@x") || !m.Attachments[0].Inline {
		t.Errorf("inline image lost: %q", doc.HTML)
	}
}

// TestSentContentSurvives checks that the file arrives, whatever its transfer
// encoding.
func TestSentContentSurvives(t *testing.T) {
	for _, part := range []string{
		"Content-Transfer-Encoding: base64\n\nAAEC\n/w==",
		"Content-Transfer-Encoding: base64\n\nAAEC/w",
		"Content-Transfer-Encoding: quoted-printable\n\n=00=01=02=FF",
		"Content-Transfer-Encoding: binary\n\n\x00\x01\x02\xFF",
	} {
		o := testOptions()
		o.Attachments = SendAttachments
		m, err := Map([]byte("Content-Type: application/x-test\n"+part), "", o)
		if err != nil {
			t.Fatal(err)
		}
		var doc struct {
			Attachments []struct {
				Content     []byte `json:"content"`
				Filename    string `json:"filename"`
				ContentType string `json:"content_type"`
			} `json:"attachments"`
		}
		if err := json.Unmarshal(encoded(t, m), &doc); err != nil {
			t.Fatal(err)
		}
		if len(doc.Attachments) != 1 || string(doc.Attachments[0].Content) != "\x00\x01\x02\xFF" || doc.Attachments[0].ContentType != "application/x-test" || doc.Attachments[0].Filename == "" {
			t.Errorf("%q: got %+v", part, doc.Attachments)
		}
	}
}

// TestSentMessagesAreFiles checks that an account that takes files gets forwarded
// messages and reports as files, even if they are declared inline.
func TestSentMessagesAreFiles(t *testing.T) {
	const mail = "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nsee below\n" +
		"--b\nContent-Type: message/rfc822\nContent-Disposition: inline\n\nSubject: in\n\nbody\n" +
		"--b\nContent-Type: text/rfc822-headers\nContent-Disposition: inline\n\nSubject: x\n--b--\n"
	o := testOptions()
	for policy, files := range map[AttachmentPolicy]int{RefuseAttachments: 0, SendAttachments: 2} {
		o.Attachments = policy
		m, err := Map([]byte(mail), "", o)
		if err != nil {
			t.Fatal(err)
		}
		if shown := strings.Contains(m.Text, "Subject: in"); len(m.Attachments) != files || shown != (files == 0) {
			t.Errorf("policy %s: %d files, text %q", policy, len(m.Attachments), m.Text)
		}
	}
}

func TestForeignSenderRefused(t *testing.T) {
	o := testOptions()
	o.ForeignSender = Refuse
	for _, name := range []string{"from-foreign-domain", "from-foreign-no-name"} {
		var r *Refusal
		if _, err := mapFile(t, name, o); !errors.As(err, &r) || r.Reason != SenderDomain || !strings.Contains(r.Detail, "@") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, name := range []string{"from-no-domain", "from-name-only", "from-missing", "from-group", "text-only"} {
		if _, err := mapFile(t, name, o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestVerifiedDomains checks that exactly the listed domains count, in any spelling.
func TestVerifiedDomains(t *testing.T) {
	for _, c := range []struct {
		domains []string
		from    string
		own     bool
	}{
		{[]string{"example.com"}, "a@example.com", true},
		{[]string{"Example.COM."}, "a@EXAMPLE.com", true},
		{[]string{"example.com"}, "a@sub.example.com", false},
		{[]string{"example.com"}, "a@notexample.com", false},
		{[]string{"example.com"}, "a@example.com.evil.example", false},
		{[]string{"bücher.example"}, "a@xn--bcher-kva.example", true},
		{[]string{"xn--bcher-kva.example"}, "a@bücher.example", true},
		{[]string{"a_b.xn--bcher-kva.example"}, "a@A_b.bücher.example", true},
		{[]string{"a․bücher.example"}, "a@a․bücher.example", false}, // what one cannot be sure of
		{[]string{"example.com"}, "a@xn--example-.com", false},
		{[]string{"xn--example-.com"}, "a@xn--example-.com", false},
		{nil, "a@app.example.com", true},
		{nil, "a@example.com", false},
		{[]string{"example.com"}, "other@app.example.com", false},
		{[]string{"example.com"}, "Default@app.example.com", true},
	} {
		o := testOptions()
		o.Domains = c.domains
		m, err := Map([]byte("From: "+c.from+"\n\nx"), "", o)
		if err != nil {
			t.Fatal(err)
		}
		if own := !omits(m, SenderRewritten); own != c.own {
			t.Errorf("%v, %s: own is %v", c.domains, c.from, own)
		}
	}
}

// TestAuthorFromEnvelope checks that a mail without an author's address is sent from
// the envelope sender, with the name that the mail gives.
func TestAuthorFromEnvelope(t *testing.T) {
	for _, c := range []struct {
		from, envelope string
		want           relay.Address
		replyTo        string
	}{
		{"From: root (Cron Daemon)\n", "root@example.com", relay.Address{Email: "root@example.com", Name: "Cron Daemon"}, ""},
		{"From: a@x_y.bücher.example\n", "", relay.Address{Email: "default@app.example.com", Name: "a (x_y.xn--bcher-kva.example)"}, ""},
		{"From: a@x_y.bücher.org\n", "", relay.Address{Email: "default@app.example.com", Name: "a (x_y.xn--bcher-kva.org)"}, "a@x_y.xn--bcher-kva.org"},
		{"From: a@x․bücher.org\n", "", relay.Address{Email: "default@app.example.com", Name: "a (x․bücher.org)"}, ""},
		{"From: root\n", "root@web1.example.org", relay.Address{Email: "default@app.example.com", Name: "root"}, "root@web1.example.org"},
		{"", "root@web1", relay.Address{Email: "default@app.example.com", Name: "root (web1)"}, ""},
		{"", "", relay.Address{Email: "default@app.example.com", Name: "The App"}, ""},
		{"From: Printer\n", "", relay.Address{Email: "default@app.example.com", Name: "Printer"}, ""},
		{"From: <root>\n", "", relay.Address{Email: "default@app.example.com", Name: "root"}, ""},
		{"From: undisclosed:;\nSender: s@example.com\n", "e@example.com", relay.Address{Email: "s@example.com"}, ""},
		{"From: default@app.example.com\n", "", relay.Address{Email: "default@app.example.com", Name: "The App"}, ""},
	} {
		m, err := Map([]byte(c.from+"Subject: x\n\nx"), c.envelope, testOptions())
		if err != nil {
			t.Fatal(err)
		}
		replyTo := ""
		if m.ReplyTo != nil {
			replyTo = m.ReplyTo.Email
		}
		if m.From != c.want || replyTo != c.replyTo {
			t.Errorf("%q from %q: got %v, reply to %q", c.from, c.envelope, m.From, replyTo)
		}
	}
}

func TestHeadersPassedOn(t *testing.T) {
	o := testOptions()
	o.PassHeaders = true
	m, err := mapFile(t, "from-bcc-must-not-leak", o)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Headers map[string]string }
	raw := encodedAs(t, m, nexuspromail.Format{Headers: "headers"})
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"X-Mailer": "Old 1.0", "In-Reply-To": "<1@x>", "List-Unsubscribe": "<https://example.com/u>"}
	if !reflect.DeepEqual(doc.Headers, want) {
		t.Errorf("got %v", doc.Headers)
	}
	if strings.Contains(string(raw), "secret") || strings.Contains(string(raw), "seen@") {
		t.Errorf("a recipient of the header in %s", raw)
	}
}

// TestHeadersNotPassedOn checks that no header about recipients or transport is passed
// on.
func TestHeadersNotPassedOn(t *testing.T) {
	o := testOptions()
	o.PassHeaders = true
	const secret = "secret@example.net"
	var mail strings.Builder
	for _, name := range []string{"To", "Cc", "Bcc", "Resent-Bcc", "X-Original-To", "X-Envelope-To", "X-Rcpt-To", "X-Bcc", "Delivered-To", "Envelope-To", "Received", "Return-Path", "Apparently-To"} {
		mail.WriteString(name + ": " + secret + "\n")
	}
	m, err := Map([]byte(mail.String()+"\nbody"), "", o)
	if err != nil {
		t.Fatal(err)
	}
	if doc := string(encodedAs(t, m, nexuspromail.Format{Headers: "headers"})); strings.Contains(doc, secret) {
		t.Errorf("a recipient in %s", doc)
	}
}

// TestBrokenSignatureIsAFile: what claims to be signed is not encrypted.
func TestBrokenSignatureIsAFile(t *testing.T) {
	o := testOptions()
	o.Attachments = SendAttachments
	m, err := Map([]byte("Content-Type: application/pkcs7-mime; smime-type=signed-data\n\ntext\n"), "", o)
	if err != nil || len(m.Attachments) != 1 {
		t.Fatalf("got %+v, %v", m, err)
	}
	_, err = Map([]byte("Content-Type: application/pkcs7-mime; smime-type=enveloped-data\n\ntext\n"), "", o)
	if r := (*Refusal)(nil); !errors.As(err, &r) || r.Reason != Encrypted {
		t.Fatalf("got %v", err)
	}
}

func TestOpaqueSignaturesAreOpenedOnlySoOften(t *testing.T) {
	mail := "Content-Type: text/plain\r\n\r\ninside"
	for i := range MaxOpened + 1 {
		m, err := Map([]byte(mail), "", testOptions())
		if err != nil || m.Text != "inside" {
			t.Fatalf("%d wrappings: %v", i, err)
		}
		mail = "Content-Type: application/pkcs7-mime; smime-type=signed-data\r\nContent-Transfer-Encoding: binary\r\n\r\n" + signed(mail)
	}
	var r *Refusal
	if _, err := Map([]byte(mail), "", testOptions()); !errors.As(err, &r) || r.Reason != Encrypted {
		t.Errorf("got %v", err)
	}
}

// signed wraps content in CMS signed data, as far as the mapping reads it.
func signed(content string) string {
	tlv := func(tag byte, body string) string {
		return string([]byte{tag, 0x83, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}) + body
	}
	const oid = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07"
	return tlv(0x30, oid+"\x02"+tlv(0xA0, tlv(0x30, oid+"\x01"+tlv(0xA0, tlv(0x04, content)))))
}

// TestBodyForManyReaders reads one Body for many recipients at the same time.
func TestBodyForManyReaders(t *testing.T) {
	m, err := mapFile(t, "text-only", testOptions())
	if err != nil {
		t.Fatal(err)
	}
	body, err := settings.Defaults[nexuspromail.Format]().Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, to := range []string{"a@example.net", `"q\"uote"@example.net`, "ü@example.net", ""} {
		for range 8 {
			wg.Go(func() {
				// One byte at a time, so that a reader that moved another's position
				// would show.
				doc, err := io.ReadAll(io.MultiReader(io.LimitReader(body.Open(to), 0), &oneByte{body.Open(to)}))
				if err != nil || int64(len(doc)) != body.Len(to) {
					t.Errorf("%v, %d bytes, Len %d", err, len(doc), body.Len(to))
				}
				var back struct{ To map[string]string }
				if err := json.Unmarshal(doc, &back); err != nil || back.To["email"] != to {
					t.Errorf("%v, to %q", err, back.To)
				}
			})
		}
	}
	wg.Wait()
}

type oneByte struct{ r io.Reader }

func (o *oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 1)]) }

func TestOnlyDocumentedFields(t *testing.T) {
	m, err := mapFile(t, "from-foreign-with-reply-to", testOptions())
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(encoded(t, m), &doc); err != nil {
		t.Fatal(err)
	}
	for name := range doc {
		if !strings.Contains(" to from subject html text reply_to ", " "+name+" ") {
			t.Errorf("%s is not documented", name)
		}
	}
	if got := string(doc["reply_to"]); got != `{"email":"help@elsewhere.org"}` {
		t.Errorf("reply_to is %s", got)
	}
}

func TestNamesOfClosedSets(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range OmissionKinds() {
		seen[k.String()] = true
	}
	for _, r := range RefusalReasons() {
		seen[r.String()] = true
	}
	if len(seen) != len(OmissionKinds())+len(RefusalReasons()) || seen["unknown"] {
		t.Errorf("names are not unique: %v", seen)
	}
	if OmissionKind(-1).String() != "unknown" || RefusalReason(99).String() != "unknown" {
		t.Error("a name for what is outside the set")
	}
}

func TestUnparsable(t *testing.T) {
	var r *Refusal
	if _, err := Map([]byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x03\x00>\x00\x01\x00"), "a@example.com", testOptions()); !errors.As(err, &r) || r.Reason != Unparsable {
		t.Errorf("got %v", err)
	}
	if _, err := Map([]byte("Gr\xfc\xdfe \x1b[1mfett\x1b[0m\n"), "a@example.com", testOptions()); err != nil {
		t.Errorf("a text without a header: %v", err)
	}
}
