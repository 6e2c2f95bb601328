package mail_test

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	. "github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// hostile returns mails of about the given size that are built to cost more than that.
// TestCostGrowsWithTheSize checks the time for each, TestCost the memory.
func hostile() map[string]func(size int) string {
	const from = "From: ann@example.com\r\n"
	const mixed = from + "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
	const page = from + "Content-Type: text/html\r\n\r\n"
	const kyrillic = "\xcf\xf0\xe8\xe2\xe5\xf2 "
	// repeated returns head, followed by unit as often as there is room.
	repeated := func(head, unit, tail string) func(int) string {
		return func(size int) string { return head + strings.Repeat(unit, max(size/len(unit), 1)) + tail }
	}
	// parts returns 900 parts under a header that fills the rest of the room.
	parts := func(head string, part func(size int) string) func(int) string {
		return func(size int) string { return head + strings.Repeat(part(size/900), 900) + "--b--\r\n" }
	}
	return map[string]func(int) string{
		"nested deeply":        func(n int) string { return from + nested(n/70, "inside") },
		"nested, never closed": func(n int) string { return from + strings.TrimRight(nested(n/70, "inside"), "-b0123456789\r\n") },
		"messages in messages": repeated(from, "Content-Type: message/rfc822\r\n\r\n", "Subject: inside\r\n\r\ninside"),
		"messages, encoded":    repeated(from, "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n", "Subject: inside\r\n\r\ninside"),
		"messages, encoded, large": func(n int) string {
			return from + strings.Repeat("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n", 48) + "Subject: x\r\n\r\n" + strings.Repeat("text text\r\n", n/11)
		},
		"empty parts":               repeated(mixed, "--b\r\n\r\n", "--b--\r\n"),
		"header fields":             repeated(from, "X-A: b\r\n", "\r\nbody"),
		"header fields in parts":    parts(mixed, func(n int) string { return "--b\r\n" + strings.Repeat("a:\n", n/3) + "\n" }),
		"long header":               repeated(from+"Subject: ", "word ", "\r\n\r\nbody"),
		"header of junk":            repeated(from, strings.Repeat("a\n", 990)+"X-A: b\n", "\nbody"),
		"beginnings of words":       repeated(from+"Subject: ", "=?a?q? ", "\r\n\r\nbody"),
		"encoded words":             repeated(from+"Subject: ", "=?utf-8?q?x?= ", "\r\n\r\nbody"),
		"words of many charsets":    repeated(from+"Subject: ", "=?iso-8859-2?q?=e4?= =?iso-8859-3?q?=e4?= ", "\r\n\r\nbody"),
		"words of unknown charsets": repeated(from+"Subject: ", "=?a?q?=cf=f0=e8?= =?b?q?=cf=f0=e8?= ", "\r\n\r\nbody"),
		"words between 8-bit text":  repeated(from+"Subject: ", "\xcf\xf0 =?utf-8?q?x?= ", "\r\n\r\nbody"),
		"addresses":                 repeated("From: ", "a,", "<ann@example.com>\r\n\r\nbody"),
		"comments":                  repeated("From: ", "(", "\r\n\r\nbody"),
		"quotes":                    repeated("From: ", `"\"`, "\r\n\r\nbody"),
		"colons":                    repeated("From: [", ":", "\r\n\r\nbody"),
		"colons after an at":        repeated("From: @", "a:", "\r\n\r\nbody"),
		"angles that do not end":    repeated("From: ", "<,", "\r\n\r\nbody"),
		"angles of nothing":         repeated("From: ", "<>,", "\r\n\r\nbody"),
		"angles before blanks":      repeated("From: ", "< ", "\r\n\r\nbody"),
		"many authors":              authors,
		"addresses in 8 bits":       repeated("From: ", kyrillic+"<a@b.c>,", "\r\n\r\nbody"),
		"parameters":                repeated(from+"Content-Type: text/plain", "; a=b", "\r\n\r\nbody"),
		"parameter sections":        repeated(from+"Content-Type: text/plain", "; a*1=b", "\r\n\r\nbody"),
		"bare parameters":           repeated(from+"Content-Type: text/plain", "; a", "\r\n\r\nbody"),
		"parameters in 8 bits": parts(mixed, func(n int) string {
			return "--b\r\nContent-Disposition: attachment" + strings.Repeat("; a"+kyrillic+"="+kyrillic, n/20) + "\r\n\r\nx\r\n"
		}),
		"a long name in 8 bits": parts(mixed, func(n int) string {
			return "--b\r\nContent-Disposition: attachment; filename=\"" + strings.Repeat(kyrillic, n/7) + "\"\r\n\r\nx\r\n"
		}),
		"undeclared parts in 8 bits": parts(mixed, func(n int) string { return "--b\r\n\r\n" + strings.Repeat(kyrillic, n/7) + "\r\n" }),
		"boundaries that are none":   repeated(mixed+"--b\r\n\r\n", "--c\r\n", "--b--\r\n"),
		"begin without end":          repeated(from+"\r\n", "begin 644 a\r\n", ""),
		"files in uuencode":          repeated(from+"\r\n", "begin 644 a\nend\n", ""),
		"files in uuencode, encoded": repeated(from+"Content-Transfer-Encoding: x-uuencode\r\n\r\n", "begin 644 a\nend\n", ""),
		"files in winmail.dat":       winmail,
		"winmail.dat again": parts(mixed, func(n int) string {
			return "--b\r\nContent-Type: application/ms-tnef\r\n\r\n" + winmailFiles(n) + "\r\n"
		}),
		"links":                      repeated(from+"\r\n", "http://a@b.c:", ""),
		"links of dots":              repeated(from+"\r\n", "www..", ""),
		"short links":                repeated(from+"\r\n", "a@b.c ", ""),
		"brackets after a link":      repeated(from+"\r\nhttp://a/", ")", ""),
		"images":                     repeated(page, "<img ", ""),
		"images, alternating case":   repeated(page, "<IMG src=cid:x>", ""),
		"images of many files":       images,
		"flowed":                     repeated(from+"Content-Type: text/plain; format=flowed\r\n\r\n", "> a \r\n", ""),
		"one long line":              repeated(from+"\r\n", "x", ""),
		"guessed boundaries":         repeated(from, "Content-Type: multipart/mixed; boundary=a\r\n\r\n--b\r\n", ""),
		"base64 garbage":             repeated(from+"Content-Transfer-Encoding: base64\r\n\r\n", "*=\r\n", ""),
		"base64 of line ends":        repeated(from+"Content-Transfer-Encoding: base64\r\n\r\n", "CgoKCgoK", ""),
		"base64 of tabs, in Thai":    repeated(from+"Content-Type: text/plain; charset=tis-620\r\nContent-Transfer-Encoding: base64\r\n\r\n", "oaKho6Kh", ""),
		"uuencode of nothing":        repeated(from+"\r\nbegin 644 a\r\n", "`\r\n", "end\r\n"),
		"calendar folds":             repeated(from+"Content-Type: text/calendar\r\n\r\nBEGIN:VEVENT\r\n", "SUMMARY:a\r\n b\r\n", ""),
		"undeclared, 8-bit":          repeated(from+"\r\n", "\xe4\xf6\xfc ", ""),
		"undeclared, Cyrillic":       repeated(from+"\r\n", kyrillic, ""),
		"utf-16":                     repeated(from+"Content-Type: text/plain; charset=utf-16\r\n\r\n", "\t\x00", ""),
		"line ends":                  repeated(from+"\r\n", "\n", ""),
		"tabs":                       repeated(from+"\r\n", "a\tb\n\t\t\t\t\t\n\t\t\t\n\t\t\t\t\n\n\t\n", ""),
		"blanks":                     repeated(from+"\r\n", "  ", ""),
		"ampersands":                 repeated(from+"\r\n", "&", ""),
		"quotes in a text":           repeated(from+"\r\n", `"`, ""),
		"quotes in a document":       repeated(page, `"`, ""),
		"alternatives of the same":   repeated(from+"Content-Type: multipart/alternative; boundary=b\r\n\r\n", "--b\r\nContent-Type: text/html\r\n\r\n<body>x</body>\r\n", ""),
		"alternatives in each other": alternatives,
		"documents between texts": parts(mixed, func(n int) string {
			return "--b\r\nContent-Type: text/html\r\n\r\n<body>" + strings.Repeat("<p>x", n/8) + "\r\n--b\r\n\r\n" + strings.Repeat("x\n", n/4) + "\r\n"
		}),
		"styles that do not end": func(n int) string {
			return mixed + strings.Repeat("--b\r\nContent-Type: text/html\r\n\r\n"+strings.Repeat("<style>", n/700)+"<body>\r\n", 100)
		},
		"styles": func(n int) string {
			return mixed + strings.Repeat("--b\r\nContent-Type: text/html\r\n\r\n"+strings.Repeat("<style></style>", n/30)+"<body>\r\n", 2)
		},
		"attributes":                 repeated(page+"<body><p ", "a ", "><p>\r\n"),
		"enriched":                   repeated(from+"Content-Type: text/enriched\r\n\r\n", "<", "<"),
		"null bytes":                 repeated(from+"\r\n", "\x00", ""),
		"carriage returns":           repeated(from+"\r\n", "\r", ""),
		"header of carriage returns": repeated(from, "\r", "\n\nbody"),
		"signed again and again": func(n int) string {
			mail := "\r\n" + strings.Repeat("text\n", n/5)
			for range 10 {
				mail = "Content-Type: application/pkcs7-mime; smime-type=signed-data\r\nContent-Transfer-Encoding: binary\r\n\r\n" + signed(mail)
			}
			return mail
		},
	}
}

// authors names 200 addresses in each of 2,000 From fields, none of them twice.
func authors(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		b.WriteString("From: ")
		for j := range 200 {
			fmt.Fprintf(&b, "a%d@b,", i*200+j)
		}
		b.WriteString("\r\n")
	}
	return b.String() + "\r\nbody"
}

// images shows 900 files again and again.
func images(size int) string {
	var b strings.Builder
	b.WriteString("Content-Type: multipart/related; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n")
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "<img src=cid:%03d>", i%1000)
	}
	for i := range 900 {
		fmt.Fprintf(&b, "\r\n--b\r\nContent-Type: image/png\r\nContent-ID: <%03d>\r\n\r\nx", 900-i)
	}
	return b.String()
}

// alternatives nests 45 alternatives, each with a text and a document.
func alternatives(size int) string {
	var b strings.Builder
	for i := range 45 {
		fmt.Fprintf(&b, "Content-Type: multipart/alternative; boundary=b%d\r\n\r\n--b%d\r\n\r\n", i, i)
		b.WriteString(strings.Repeat("word ", size/900))
		fmt.Fprintf(&b, "%d\r\n--b%d\r\nContent-Type: text/html\r\n\r\n<body>", i, i)
		b.WriteString(strings.Repeat("<p>word", size/630))
		fmt.Fprintf(&b, "</body>\r\n--b%d\r\n", i)
	}
	return b.String() + "\r\ninside\r\n"
}

func winmail(size int) string {
	return "From: ann@example.com\r\nContent-Type: application/ms-tnef\r\nContent-Transfer-Encoding: binary\r\n\r\n" + winmailFiles(size)
}

// winmailFiles returns a winmail.dat with empty files without names.
func winmailFiles(size int) string {
	return "\x78\x9f\x3e\x22\x01\x00" + strings.Repeat("\x02\x02\x90\x06\x00\x00\x00\x00\x00\x00\x00", size/11)
}

func nested(depth int, text string) string {
	var b strings.Builder
	for i := range depth {
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	b.WriteString("\r\n" + text + "\r\n")
	for i := depth - 1; i >= 0; i-- {
		fmt.Fprintf(&b, "--b%d--\r\n", i)
	}
	return b.String()
}

// TestCostGrowsWithTheSize checks that four times the mail takes four times the work,
// and no mail more than 0.3 s for each MiB. It measures the processor time of this
// thread, which other programs hardly change.
func TestCostGrowsWithTheSize(t *testing.T) {
	const size = 256 << 10
	for name, of := range hostile() {
		small, large := []byte(of(size)), []byte(of(4*size))
		for _, policy := range []AttachmentPolicy{SendAttachments, StripAttachments}[:harness.Scaled(1, 2)] {
			took := mapTime(t, large, policy)
			if took < 15*time.Millisecond {
				continue // even if it were quadratic: 9 s for 25 MiB
			}
			before := mapTime(t, small, policy)
			for i := 0; i < 4 && took > 8*before; i++ { // a collection of garbage may fall into any of them
				took, before = min(took, mapTime(t, large, policy)), max(before, mapTime(t, small, policy))
			}
			if took > 8*before {
				t.Errorf("%s, policy %s: %d bytes take %v, %d bytes %v", name, policy, len(small), before, len(large), took)
			}
			if perMiB := took * (1 << 20) / time.Duration(len(large)); perMiB > 300*time.Millisecond && !underRace {
				t.Errorf("%s, policy %s: %v a MiB", name, policy, perMiB)
			}
		}
	}
}

// mapTime returns the processor time that mapping a mail takes.
func mapTime(t *testing.T, raw []byte, policy AttachmentPolicy) time.Duration {
	o := testOptions()
	o.Attachments = policy
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin := threadTime()
	_ = Cost(raw, o.Limits)
	if m, err := Map(raw, "", o); err == nil {
		if _, err := settings.Defaults[nexuspromail.Format]().Encode(m); err != nil {
			t.Fatal(err)
		}
	}
	return threadTime() - begin
}

// TestOverLimitIsStillShown checks that what exceeds a bound is read more coarsely,
// and recorded.
func TestOverLimitIsStillShown(t *testing.T) {
	for name, c := range map[string]struct {
		mail   string
		limits mime.Limits
		text   string
	}{
		"depth":         {"Subject: x\r\n" + nested(20, "inside"), mime.Limits{Depth: 3}, "inside"},
		"5,000 deep":    {"Subject: x\r\n" + nested(5000, "inside"), mime.Limits{}, "inside"},
		"header bytes":  {"Subject: x\r\nX-Long: " + strings.Repeat("x", 5000) + "\r\n\r\ninside", mime.Limits{HeaderBytes: 1000}, "inside"},
		"header fields": {"Subject: x\r\n" + strings.Repeat("X-A: b\r\n", 50) + "\r\ninside", mime.Limits{HeaderFields: 10}, "inside"},
		"subject":       {"Subject: " + strings.Repeat("long ", 5000) + "\r\n\r\ninside", mime.Limits{}, "inside"},
	} {
		o := testOptions()
		o.Limits = c.limits
		m, err := Map([]byte(c.mail), "", o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if strings.TrimSpace(m.Text) != c.text || !omits(m, OverLimit) {
			t.Errorf("%s: text %q, notes %v", name, m.Text, m.Omissions)
		}
	}
}

// TestTooManyParts checks that what follows the limit is one file. So the default
// policy refuses the mail, and does not drop it.
func TestTooManyParts(t *testing.T) {
	mail := "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\ntext\r\n", 30) + "--b--\r\n"
	o := testOptions()
	o.Limits.Parts = 10
	var r *Refusal
	if _, err := Map([]byte(mail), "", o); !errors.As(err, &r) || r.Reason != HasAttachment {
		t.Errorf("got %v", err)
	}
}

func omits(m *Mail, kind OmissionKind) bool {
	return slices.ContainsFunc(m.Omissions, func(o Omission) bool { return o.Kind == kind })
}

// TestTooManyFiles checks that a part with a thousand and one files keeps them all.
// The last one stays in one piece with what is around it.
func TestTooManyFiles(t *testing.T) {
	o := testOptions()
	o.Attachments = SendAttachments
	file := "begin 644 a\n" + strings.Repeat("M"+strings.Repeat("x", 60)+"\n", 20) + "end\n"
	for name, c := range map[string]struct {
		mail  string
		files int
		last  string // how the last file begins
	}{
		"uuencode":    {"From: a@example.com\n\nhello\n" + strings.Repeat(file, MaxInside+2), MaxInside + 1, file + file},
		"winmail.dat": {winmail(11 * (MaxInside + 1)), 1, "\x78\x9f\x3e\x22"},
	} {
		m, err := Map([]byte(c.mail), "", o)
		if err != nil {
			t.Fatal(name, err)
		}
		if len(m.Attachments) != c.files || !omits(m, OverLimit) || len(m.Omissions) > len(OmissionKinds()) {
			t.Errorf("%s: %d files, omissions %v", name, len(m.Attachments), m.Omissions)
		}
		if last := string(m.Attachments[len(m.Attachments)-1].Content()); !strings.HasPrefix(last, c.last) {
			t.Errorf("%s: the last file is %q", name, last[:min(len(last), 40)])
		}
	}
}

// TestOmissionsHoldNoWords checks that the words of a mail only go to Explain.
func TestOmissionsHoldNoWords(t *testing.T) {
	const secret = "Tulip"
	mail := "From: a@example.com\nX-" + secret + ": x\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\nSubject: " + secret +
		"\n\nx\n--b\nContent-Type: text/plain; name=" + secret + ".txt; charset=" + secret + "\n\n\xff\n--b\nContent-Type: image/png; name=" + secret + ".png\n\nx\n--b--\n" + secret + "\n"
	o := testOptions()
	o.Attachments = StripAttachments
	said := map[OmissionKind]bool{}
	o.Explain = func(kind OmissionKind, words string) { said[kind] = said[kind] || strings.Contains(words, secret) }
	m, err := Map([]byte(mail), "", o)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []OmissionKind{HeadersDropped, EmbeddedMessage, NameDropped, CharsetRepaired, AttachmentStripped, EpilogueDropped} {
		if !omits(m, kind) || !said[kind] {
			t.Errorf("%v is not omitted and explained: %v", kind, m.Omissions)
		}
	}
	if s := fmt.Sprintf("%+v", m.Omissions); strings.Contains(s, secret) {
		t.Errorf("a word of the mail in %s", s)
	}
}
