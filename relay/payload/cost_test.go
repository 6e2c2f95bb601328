package payload

import (
	"encoding/base64"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/payload/mime"
)

// All that mapping and encoding a mail allocates, garbage as well, is within
// its Cost; and what Mail.Cost says is what encoding takes.
func TestCost(t *testing.T) {
	o := testOptions()
	o.Attachments = SendAttachments
	const size = 4 << 20
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
		"file":        string(benchAttachment()),
	} {
		if name == "small" || name == "alternative" {
			raw += strings.Repeat("and so it goes on and on\r\n", 800) // so that what every mail takes does not count
		}
		mapping, encoding, mail := allocations(t, []byte(raw), o)
		cost := Cost([]byte(raw), mime.Limits{})
		t.Logf("%-12s %8d bytes: mapping takes %.2f times that, encoding %.2f, Cost is %.2f", name, len(raw),
			float64(mapping)/float64(len(raw)), float64(encoding)/float64(len(raw)), float64(cost)/float64(len(raw)))
		if mapping+encoding > cost {
			t.Errorf("%s: %d bytes are allocated, Cost is %d", name, mapping+encoding, cost)
		}
		if encoding > mail.Cost() {
			t.Errorf("%s: encoding allocates %d bytes, Mail.Cost is %d", name, encoding, mail.Cost())
		}
	}
	if file := benchAttachment(); Cost(file, mime.Limits{}) > 3*int64(len(file)) {
		t.Error("a file costs like text")
	}
}

func allocations(t *testing.T, raw []byte, o Options) (mapping, encoding int64, mail *Mail) {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var before, between, after runtime.MemStats
	runtime.ReadMemStats(&before)
	mail, err := Map(raw, "a@example.com", o)
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&between)
	if _, err := mail.Encode(); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	return int64(between.TotalAlloc - before.TotalAlloc), int64(after.TotalAlloc - between.TotalAlloc), mail
}
