package payload

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/payload/mime"
)

// hostile are mails made to cost more than their size. Each must be mapped in
// a time that a quadratic step anywhere would exceed by far.
func hostile() map[string]string {
	const from = "From: ann@example.com\r\n"
	mails := map[string]string{
		"nested 5,000 deep":          from + nested(5000, "inside"),
		"nested, never closed":       from + strings.TrimRight(nested(5000, "inside"), "-b0123456789\r\n"),
		"messages in messages":       from + strings.Repeat("Content-Type: message/rfc822\r\n\r\n", 5000) + "Subject: inside\r\n\r\ninside",
		"200,000 empty parts":        from + "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\n", 200_000) + "--b--\r\n",
		"100,000 header fields":      from + strings.Repeat("X-A: b\r\n", 100_000) + "\r\nbody",
		"one header of 8 MiB":        from + "Subject: " + strings.Repeat("word ", 1<<20) + "\r\n\r\nbody",
		"header of junk":             from + strings.Repeat(strings.Repeat("a\n", 990)+"X-A: b\n", 500) + "\nbody",
		"beginnings of words":        from + "Subject: " + strings.Repeat("=?a?q? ", 145_000) + "\r\n\r\nbody",
		"encoded words":              from + "Subject: " + strings.Repeat("=?utf-8?q?x?= ", 60_000) + "\r\n\r\nbody",
		"addresses":                  "From: " + strings.Repeat("a,", 200_000) + "<ann@example.com>\r\n\r\nbody",
		"comments":                   "From: " + strings.Repeat("(", 500_000) + "\r\n\r\nbody",
		"quotes":                     "From: " + strings.Repeat(`"\"`, 200_000) + "\r\n\r\nbody",
		"parameters":                 from + "Content-Type: text/plain" + strings.Repeat("; a=b", 100_000) + "\r\n\r\nbody",
		"parameter sections":         from + "Content-Type: text/plain" + strings.Repeat("; a*1=b", 100_000) + "\r\n\r\nbody",
		"bare parameters":            from + "Content-Type: text/plain" + strings.Repeat("; a", 100_000) + "\r\n\r\nbody",
		"boundaries that are none":   from + "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + strings.Repeat("--c\r\n", 400_000) + "--b--\r\n",
		"begin without end":          from + "\r\n" + strings.Repeat("begin 644 a\r\n", 200_000),
		"links":                      from + "\r\n" + strings.Repeat("http://a@b.c:", 100_000),
		"brackets after a link":      from + "\r\nhttp://a/" + strings.Repeat(")", 1_000_000),
		"images":                     from + "Content-Type: text/html\r\n\r\n" + strings.Repeat("<img ", 400_000),
		"images, alternating case":   from + "Content-Type: text/html\r\n\r\n" + strings.Repeat("<IMG src=cid:x>", 200_000),
		"flowed":                     from + "Content-Type: text/plain; format=flowed\r\n\r\n" + strings.Repeat("> a \r\n", 300_000),
		"one line of 8 MiB":          from + "\r\n" + strings.Repeat("x", 8<<20),
		"guessed boundaries":         from + strings.Repeat("Content-Type: multipart/mixed; boundary=a\r\n\r\n--b\r\n", 20_000),
		"base64 garbage":             from + "Content-Transfer-Encoding: base64\r\n\r\n" + strings.Repeat("*=\r\n", 500_000),
		"uuencode of nothing":        from + "\r\nbegin 644 a\r\n" + strings.Repeat("`\r\n", 500_000) + "end\r\n",
		"calendar folds":             from + "Content-Type: text/calendar\r\n\r\nBEGIN:VEVENT\r\n" + strings.Repeat("SUMMARY:a\r\n b\r\n", 100_000),
		"undeclared, 8-bit":          from + "\r\n" + strings.Repeat("\xe4\xf6\xfc ", 1_000_000),
		"alternatives of the same":   from + "Content-Type: multipart/alternative; boundary=b\r\n\r\n" + strings.Repeat("--b\r\nContent-Type: text/html\r\n\r\n<body>x</body>\r\n", 20_000),
		"styles that do not end":     from + "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\nContent-Type: text/html\r\n\r\n"+strings.Repeat("<style>", 2000)+"<body>\r\n", 100),
		"enriched":                   from + "Content-Type: text/enriched\r\n\r\n" + strings.Repeat("<", 1_000_001),
		"null bytes":                 from + "\r\n" + strings.Repeat("\x00", 4<<20),
		"carriage returns":           from + "\r\n" + strings.Repeat("\r", 4<<20),
		"header of carriage returns": from + strings.Repeat("\r", 4<<20) + "\n\nbody",
	}
	return mails
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

func TestHostileMailIsLinear(t *testing.T) {
	for name, mail := range hostile() {
		for _, policy := range []AttachmentPolicy{StripAttachments, SendAttachments} {
			o := testOptions()
			o.Attachments = policy
			begin := time.Now()
			c := &composer{options: &o, mail: &Mail{}}
			err := c.run(mime.Parse([]byte(mail), o.Limits), "")
			m := c.mail
			if c.leaves != c.fates {
				t.Errorf("%s: %d parts, %d of them carried or left out", name, c.leaves, c.fates)
			}
			// A linear step takes a few hundred milliseconds at most for these
			// sizes, with the race detector on a busy machine too; a quadratic
			// one minutes.
			if took := time.Since(begin); took > 3*time.Second {
				t.Errorf("%s: %d bytes took %v", name, len(mail), took)
			}
			var r *Refusal
			if err != nil && !errors.As(err, &r) {
				t.Errorf("%s: %v", name, err)
			}
			if err == nil && len(m.Text)+len(m.HTML) > 30*len(mail)+1000 {
				t.Errorf("%s: %d bytes became %d", name, len(mail), len(m.Text)+len(m.HTML))
			}
		}
	}
}

// TestOverLimitIsStillShown: what is over a bound is read more coarsely, and
// says so.
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
		if strings.TrimSpace(m.Text) != c.text || !hasNote(m, OverLimit) {
			t.Errorf("%s: text %q, notes %v", name, m.Text, m.Notes)
		}
	}
}

// TestTooManyParts: what follows the limit is one file, so that the default
// policy refuses the mail rather than drop it.
func TestTooManyParts(t *testing.T) {
	mail := "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\ntext\r\n", 30) + "--b--\r\n"
	o := testOptions()
	o.Limits.Parts = 10
	var r *Refusal
	if _, err := Map([]byte(mail), "", o); !errors.As(err, &r) || r.Reason != HasAttachment {
		t.Errorf("got %v", err)
	}
}

func hasNote(m *Mail, kind NoteKind) bool {
	for _, n := range m.Notes {
		if n.Kind == kind {
			return true
		}
	}
	return false
}
