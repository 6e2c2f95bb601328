package bounce

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	options = Options{
		From:       relay.Address{Email: "hello@example.com", Name: "App"},
		Hostname:   "relay.example.com",
		Postmaster: "postmaster@example.com",
	}
	now = time.Date(2026, 5, 13, 10, 24, 31, 0, time.UTC)
)

func message(from, header string) *relay.Message {
	return &relay.Message{ID: "01abc", From: from, ReceivedAt: now, Raw: []byte(header + "\r\n\r\nsecret body")}
}

func TestGolden(t *testing.T) {
	m := message("ann@example.com", "From: ann@example.com\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nX-Raw: \x1b[31mred\x00")
	raw, to, ok := Compose(options, m, []Failure{
		{"bob@example.net", "the mail provider refused the message: subject is missing"},
		{"eve@example.net\r\nBcc: mallory@example.org", "the address is on the list\r\n\r\nforged"},
	}, now)
	if !ok || to != "ann@example.com" {
		t.Fatalf("to %q, ok %t", to, ok)
	}
	const golden = "testdata/bounce.eml"
	if *update {
		if err := os.WriteFile(golden, raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(raw) != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", raw, want)
	}
	if strings.Contains(string(raw), "secret body") {
		t.Error("the bounce quotes the body")
	}
}

func TestWhoGetsABounce(t *testing.T) {
	tests := []struct {
		name, from, header, to string
	}{
		{"a sender", "ann@example.com", "Subject: x", "ann@example.com"},
		{"the null sender", "", "Subject: x", ""},
		{"a bounce with a sender", "ann@example.com", "Subject: x\r\nauto-submitted: Auto-Replied (failure)", ""},
		{"cron is no bounce", "ann@example.com", "Auto-Submitted: auto-generated", "ann@example.com"},
		{"no domain", "root", "Subject: x", "postmaster@example.com"},
		{"localhost", "root@localhost", "Subject: x", "postmaster@example.com"},
		{"a host name", "root@web1", "Subject: x", "postmaster@example.com"},
		{"a local domain", "root@web1.local", "Subject: x", "postmaster@example.com"},
		{"an address literal", "root@[192.0.2.1]", "Subject: x", "postmaster@example.com"},
		{"the daemon of another machine", "MAILER-DAEMON@mx.example.com", "Subject: x", "postmaster@example.com"},
		{"the word in the body", "ann@example.com", "Subject: x\r\n\r\nAuto-Submitted: auto-replied", "ann@example.com"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, to, ok := Compose(options, message(tt.from, tt.header), []Failure{{"bob@example.net", "x"}}, now)
			if to != tt.to || ok != (tt.to != "") {
				t.Errorf("to %q, %t, want %q", to, ok, tt.to)
			}
		})
	}
	nobody := options
	nobody.Postmaster = ""
	if _, _, ok := Compose(nobody, message("root@localhost", "Subject: x"), nil, now); ok {
		t.Error("a bounce for nobody")
	}
}

func TestAHugeHeaderIsCut(t *testing.T) {
	m := message("ann@example.com", strings.Repeat("X-Long: "+strings.Repeat("a", 100)+"\r\n", 10_000)+"Subject: end")
	raw, _, ok := Compose(options, m, []Failure{{"bob@example.net", "x"}}, now)
	if !ok || len(raw) > maxHeader+8192 {
		t.Errorf("%d bytes, ok %t", len(raw), ok)
	}
}
