package mail_test

import (
	"encoding/base64"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	. "github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// The mails here are large texts such as people and programs write, some in charsets
// that are wrong or not declared. None is built to take memory.
func TestNoOrdinaryTextIsTooCostly(t *testing.T) {
	const head = "From: a@example.com\r\nSubject: x\r\n"
	for name, text := range map[string]string{
		"Russian, no charset":      head + "\r\n|Привет мир это слова\r\n",
		"Russian, wrong charset":   head + "Content-Type: text/plain; charset=iso-8859-1\r\n\r\n|Привет мир это слова\r\n",
		"Russian, one bad octet":   head + "Content-Type: text/plain; charset=utf-8\r\n\r\n\xff\r\n|Привет мир это слова\r\n",
		"Japanese, no charset":     head + "\r\n|これは日本語の文章です。\r\n",
		"German, no charset":       head + "\r\n|Grüße aus Köln, und schöne Tage für alle\r\n",
		"German, as windows-1252":  head + "Content-Type: text/plain; charset=windows-1252\r\n\r\n|Grüße aus Köln, und schöne Tage\r\n",
		"dense JSON":               head + "\r\n|{\"a\":\"b\",\"c\":[\"d\",\"e\"]},\r\n",
		"JSON lines":               head + "\r\n|{\"time\":\"2026-11-30T10:00:00Z\",\"level\":\"info\",\"msg\":\"request\",\"path\":\"/a/b\"}\r\n",
		"a diff":                   head + "\r\n|+\tif a < b && c > d { return \"x\" }\r\n",
		"a table of tabs":          head + "\r\n|\"a\"\t\"b\"\t\"c\"\t\"d\"\r\n",
		"quoted CSV":               head + "\r\n|\"Ann\",\"ann@example.net\",\"12.50\",\"<b>\"\r\n",
		"HTML as text":             head + "\r\n|<tr><td class=\"a\">x</td><td>y</td></tr>\r\n",
		"XML, no charset, Russian": head + "\r\n|<name lang=\"ru\">Привет</name>\r\n",
		"quotes and nothing else":  head + "\r\n|\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\r\n",
	} {
		for _, size := range []int{50 << 10, 300 << 10, 3 << 20}[:harness.Scaled(2, 3)] {
			fixed, unit, _ := strings.Cut(text, "|")
			raw := fixed + strings.Repeat(unit, size/len(unit))
			if _, err := Map([]byte(raw), "", testOptions()); err != nil {
				t.Errorf("%s of %d KiB: %v", name, size>>10, err)
			}
		}
	}
}

// Cost covers everything that mapping and encoding a mail allocates, garbage included.
// What people write is never refused for it.
func TestCost(t *testing.T) {
	o := testOptions()
	o.Attachments = SendAttachments
	const size = 1 << 20
	head := func(kind, more string) string {
		return "From: a@example.com\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/" + kind + "; charset=utf-8\r\n" + more + "\r\n"
	}
	lines := strings.Repeat(strings.Repeat("x", 76)+"\r\n", size/78)
	rows := strings.Repeat("<tr><td>"+strings.Repeat("x", 40)+"</td></tr>\r\n", size/61)
	var base64Lines strings.Builder
	for text := base64.StdEncoding.EncodeToString([]byte(lines[:size*3/4])); text != ""; text = text[min(76, len(text)):] {
		base64Lines.WriteString(text[:min(76, len(text))] + "\r\n")
	}
	for name, raw := range map[string]string{
		"small":       head("plain", "") + "Hello\r\n",
		"text":        head("plain", "") + lines,
		"base64":      head("plain", "Content-Transfer-Encoding: base64\r\n") + base64Lines.String(),
		"html":        head("html", "") + rows,
		"html in QP":  head("html", "Content-Transfer-Encoding: quoted-printable\r\n") + rows,
		"alternative": string(benchAlternative()),
		"Russian":     strings.ReplaceAll(head("plain", ""), "utf-8", "koi8-r") + strings.Repeat(strings.Repeat("\xd0\xd2\xc9\xd7\xc5\xd4 ", 10)+"\r\n", size/72),
		"Thai":        strings.ReplaceAll(head("plain", ""), "utf-8", "tis-620") + strings.Repeat(strings.Repeat("\xca\xc7\xd1\xca\xb4\xd5", 10)+"\r\n", size/62),
		"Japanese":    strings.ReplaceAll(head("plain", ""), "utf-8", "iso-2022-jp") + strings.Repeat("\x1b$B"+strings.Repeat("F|K\\", 10)+"\x1b(B\r\n", size/48),
		"indented":    head("plain", "") + strings.Repeat("        if (a && b) {\r\n            c(\"d\");\r\n", size/44),
		"list":        mixed(head("plain", "")+lines, head("html", "")+rows, head("plain", "")+"the footer\r\n"),
		"file":        string(benchAttachment()),
		"broken file": mixed("Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n*" + base64Lines.String()),
		"file in QP":  mixed("Content-Type: image/png\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + lines),
	} {
		taken, err := allocations(t, []byte(raw), o)
		cost := Cost([]byte(raw), mime.Limits{})
		t.Logf("%-12s %8d bytes: %.2f times that is taken, Cost is %.2f", name, len(raw), float64(taken)/float64(len(raw)), float64(cost)/float64(len(raw)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if taken > cost {
			t.Errorf("%s: %d bytes are allocated, Cost is %d", name, taken, cost)
		}
	}
	if file := benchAttachment(); Cost(file, mime.Limits{}) > 3*int64(len(file)) {
		t.Error("a file costs like text")
	}
}

// TestHostileMailKeepsToItsCost checks that a mail which is built to take more than
// its Cost is refused before it does.
func TestHostileMailKeepsToItsCost(t *testing.T) {
	for name, of := range hostile() {
		sizes := []int{5 << 10, 128 << 10, 512 << 10}[:harness.Scaled(2, 3)]
		if name == "winmail.dat again" || name == "documents between texts" { // worse, the larger they are
			sizes = append(sizes, 2<<20)
		}
		for _, size := range sizes {
			raw := []byte(of(size))
			for _, policy := range []AttachmentPolicy{StripAttachments, SendAttachments} {
				o := testOptions()
				o.Attachments = policy
				taken, err := allocations(t, raw, o)
				if cost := Cost(raw, o.Limits); taken > cost {
					t.Errorf("%s, policy %s: %d bytes take %.2f times that, Cost is %.2f (%v)", name, policy, len(raw),
						float64(taken)/float64(len(raw)), float64(cost)/float64(len(raw)), err)
				}
			}
		}
	}
}

// TestMemoryThatIsGiven: a mail that could take more than there is is mapped when
// it does not, and refused before it does; one that takes more only to be read says
// so.
func TestMemoryThatIsGiven(t *testing.T) {
	const size = 1 << 20
	head := "From: a@example.com\r\nSubject: x\r\nContent-Type: text/plain; charset="
	koi8 := head + "koi8-r\r\n\r\n" + strings.Repeat(strings.Repeat("\xd0\xd2\xc9\xd7\xc5\xd4 ", 10)+"\r\n", size/72)
	thai := head + "tis-620\r\n\r\n" + strings.Repeat(strings.Repeat("\xca\xc7\xd1\xca\xb4\xd5", 10)+"\r\n", size/62)
	for name, tt := range map[string]struct {
		raw     string
		refused bool
	}{"Russian": {koi8, false}, "Thai": {thai, true}} {
		o := testOptions()
		o.Memory = NewOutline([]byte(tt.raw), o.Limits).CostWithin(UsualCost(size))
		if o.Memory != UsualCost(size) || o.Memory > Cost([]byte(tt.raw), o.Limits) {
			t.Errorf("%s: %d of %d", name, o.Memory, UsualCost(size))
		}
		taken, err := allocations(t, []byte(tt.raw), o)
		if (err != nil) != tt.refused || taken > o.Memory {
			t.Errorf("%s: %d of %d, %v", name, taken, o.Memory, err)
		}
	}
	if messages := []byte(hostile()["messages in messages"](size)); NewOutline(messages, mime.Limits{}).CostWithin(2*size) <= 2*size {
		t.Error("there is room for what takes 30 times its size to be read")
	}
}

// mixed returns a mail of these parts.
func mixed(parts ...string) string {
	return "From: a@example.com\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + strings.Join(parts, "\r\n--b\r\n") + "\r\n--b--\r\n"
}

// allocations returns what mapping and encoding a mail allocates, garbage included.
func allocations(t *testing.T, raw []byte, o Options) (int64, error) {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m, err := Map(raw, "a@example.com", o)
	if err == nil {
		_, err = settings.Defaults[nexuspromail.Format]().Encode(m)
	}
	runtime.ReadMemStats(&after)
	taken := int64(after.TotalAlloc - before.TotalAlloc)
	if underRace {
		taken -= taken / 4 // code under the race detector has more on the heap: up to a fifth was seen
	}
	return taken, err
}
