package nexuspromail

import (
	"bytes"
	"encoding/json"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
)

// TestARedirectedMailGoesToOneAddress: whoever it was for, who is named in the subject and
// at the top of the bodies and nowhere else.
func TestARedirectedMailGoesToOneAddress(t *testing.T) {
	b, err := Format{}.Encode(&mail.Mail{
		From: relay.Address{Email: "shop@example.com"}, Redirect: "dev@example.com",
		Subject: "Order", HTML: "<html><body class=x><p>Hi</p></body></html>", Text: "Hi\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"bob@example.net", `"a\"<b>&c"@example.net`, "z\u00f6e@example.net"} {
		raw, err := io.ReadAll(b.Open(to))
		if err != nil || int64(len(raw)) != b.Len(to) {
			t.Errorf("%s: %d bytes, Len is %d, %v", to, len(raw), b.Len(to), err)
		}
		var written bytes.Buffer
		if _, err := b.Open(to).(io.WriterTo).WriteTo(&written); err != nil || !bytes.Equal(written.Bytes(), raw) {
			t.Errorf("%s: written as %s, %v", to, written.Bytes(), err)
		}
		var got struct {
			To                  struct{ Email string }
			Subject, HTML, Text string
		}
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatalf("%s: %v in %s", to, err, raw)
		}
		if got.To.Email != "dev@example.com" || got.Subject != "[for "+to+"] Order" || got.Text != "This mail was for <"+to+"> and was redirected.\n\nHi\n" {
			t.Errorf("%s: %+v", to, got)
		}
		if !strings.HasPrefix(got.HTML, "<html><body class=x><p><strong>This mail was for &lt;") || strings.Contains(got.HTML, "<b>") || !strings.HasSuffix(got.HTML, "<p>Hi</p></body></html>") {
			t.Errorf("%s: html %q", to, got.HTML)
		}
	}
}

// TestARedirectedMailTakesNoMoreMemory: the budget of the memory knows nothing of it.
func TestARedirectedMailTakesNoMoreMemory(t *testing.T) {
	m := mail.Mail{From: relay.Address{Email: "shop@example.com"}, Subject: "Order",
		HTML: "<html><body>" + strings.Repeat("<p>words</p>", 100_000), Text: strings.Repeat("words\n", 200_000)}
	took := func(redirect string) uint64 {
		m.Redirect = redirect
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := (Format{}).Encode(&m); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	plain, redirected := took(""), took("dev@example.com")
	if redirected > plain+16<<10 {
		t.Errorf("%d bytes, and %d for one that is not redirected", redirected, plain)
	}
}
