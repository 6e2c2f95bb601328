package mail_test

import (
	"errors"
	"strings"
	"testing"

	. "github.com/smtp2rest/smtp2rest/relay/mail"
)

// letter has a html and files, each of which is its header.
func letter(html string, files ...string) []byte {
	mail := "From: app@example.com\nContent-Type: multipart/related; boundary=b\n\n--b\nContent-Type: text/html\n\n" + html + "\n"
	for _, f := range files {
		mail += "--b\n" + f + "\n\nx\n"
	}
	return []byte(mail + "--b--\n")
}

const (
	logo   = "Content-Type: image/png; name=logo.png\nContent-ID: <logo@x>\nContent-Disposition: inline"
	report = "Content-Type: application/pdf; name=report.pdf\nContent-Disposition: attachment"
)

// TestALogoRefusesNoLetter: images that the html shows have a policy of their own.
func TestALogoRefusesNoLetter(t *testing.T) {
	for name, tt := range map[string]struct {
		inline, attachments AttachmentPolicy
		html                string
		files               []string
		want                string // of the html
		sent                int
		kinds               []OmissionKind
		refused             string // what the reply names
	}{
		"the alternative text stays":   {StripAttachments, RefuseAttachments, `<p>Hi <img src="cid:logo@x" alt="ACME &amp; Sons"></p>`, []string{logo}, "<p>Hi [ACME &amp; Sons]</p>", 0, []OmissionKind{InlineStripped}, ""},
		"a > in it":                    {StripAttachments, RefuseAttachments, `<p><img alt="a > b" src='cid:logo@x'/></p>`, []string{logo}, "<p>[a &gt; b]</p>", 0, []OmissionKind{InlineStripped}, ""},
		"no alternative text":          {StripAttachments, RefuseAttachments, `<p><IMG SRC=CID:logo@x></p>`, []string{logo}, "<p>[logo.png]</p>", 0, []OmissionKind{InlineStripped}, ""},
		"an image that only decorates": {StripAttachments, RefuseAttachments, `<p>Hi<img alt="" src="cid:logo@x"></p>`, []string{logo}, "<p>Hi</p>", 0, []OmissionKind{InlineStripped}, ""},
		"an id as a URL":               {StripAttachments, RefuseAttachments, `<p><img alt=A src="cid:logo%40x"></p>`, []string{logo}, "<p>[A]</p>", 0, []OmissionKind{InlineStripped}, ""},
		"other images stay":            {StripAttachments, RefuseAttachments, `<img src="https://x.example/a.png"><img alt=A src="cid:logo@x">`, []string{logo}, `<img src="https://x.example/a.png">[A]`, 0, []OmissionKind{InlineStripped}, ""},
		"nothing refers to it":         {StripAttachments, RefuseAttachments, `<p>Hi</p>`, []string{logo}, "", 0, nil, "logo.png (image/png"},
		"no image":                     {StripAttachments, RefuseAttachments, `<a href="cid:r@x">R</a>`, []string{report + "\nContent-ID: <r@x>"}, "", 0, nil, "report.pdf"},
		"a file beside it":             {StripAttachments, RefuseAttachments, `<img src="cid:logo@x">`, []string{logo, report}, "", 0, nil, "here: report.pdf"},
		"both refused":                 {RefuseAttachments, RefuseAttachments, `<img src="cid:logo@x">`, []string{logo}, "", 0, nil, "logo.png"},
		"images sent alone":            {SendAttachments, StripAttachments, `<img src="cid:logo@x">`, []string{logo, report}, "report.pdf (application/pdf", 1, []OmissionKind{AttachmentStripped}, ""},
		"files sent alone":             {StripAttachments, SendAttachments, `<img alt=A src="cid:logo@x">`, []string{logo, report}, "[A]", 1, []OmissionKind{InlineStripped}, ""},
		"as the attachments":           {"", StripAttachments, `<img alt=A src="cid:logo@x">`, []string{logo}, "[A]", 0, []OmissionKind{AttachmentStripped}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions()
			o.Inline, o.Attachments = tt.inline, tt.attachments
			m, err := Map(letter(tt.html, tt.files...), "", o)
			if tt.refused != "" {
				var r *Refusal
				if !errors.As(err, &r) || r.Reason != HasAttachment || !strings.Contains(r.Detail, tt.refused) || strings.Contains(tt.refused, "report") && strings.Contains(r.Detail, "logo") {
					t.Errorf("got %v, want a refusal that names %s", err, tt.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(m.HTML, tt.want) || len(m.Attachments) != tt.sent {
				t.Errorf("%d files, html %q", len(m.Attachments), m.HTML)
			}
			for _, kind := range tt.kinds {
				if !omits(m, kind) {
					t.Errorf("no %s in %v", kind, m.Omissions)
				}
			}
			if strings.Contains(m.HTML, NoticeTitle) != omits(m, AttachmentStripped) {
				t.Errorf("the notice: %q", m.HTML)
			}
		})
	}
}

// TestHostileTags: what never ends costs no more than its length.
func TestHostileTags(t *testing.T) {
	o := testOptions()
	o.Inline = StripAttachments
	for _, piece := range []string{`<img alt="`, `<img src="cid:logo@x" alt='>`, `<img =`, `<img / = > cid:`, `cid:`, `<img x`, `<img ====cid:`, "<img\talt=cid:>"} {
		html := `<img src="cid:logo@x">` + strings.Repeat(piece, 100_000)
		if _, err := Map(letter(html, logo), "", o); err != nil {
			t.Errorf("%q: %v", piece, err)
		}
	}
}
