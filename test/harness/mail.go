package harness

import (
	"strings"
	"testing"
)

// The texts in ClientMail.
const (
	ClientSubject = "Grüße aus Köln ☺"
	ClientText    = "Schöne Grüße!\n.\n.. dots\n"
)

// ClientMail is a mail in a file for a client: multipart, with lines that begin with a
// dot.
const ClientMail = "From: =?utf-8?q?Zo=C3=AB?= <zoe@sandbox.example>\r\nTo: Bob <bob@example.net>\r\n" +
	"Subject: =?utf-8?b?R3LDvMOfZSBhdXMgS8O2bG4g4pi6?=\r\nMIME-Version: 1.0\r\n" +
	"Content-Type: multipart/alternative; boundary=frontier\r\n\r\n" +
	"--frontier\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" +
	"Schöne Grüße!\r\n.\r\n.. dots\r\n" +
	"\r\n--frontier\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
	"PHA+U2Now7ZuZSA8Yj5HcsO8w59lPC9iPiE8L3A+\r\n--frontier--\r\n"

// Taken checks that the API got ClientMail once, and unchanged.
func Taken(t *testing.T, s Relay, to string) {
	t.Helper()
	calls := CallsTo(t, s.Sandbox, to)
	if len(calls) != 1 {
		t.Fatalf("the sandbox got %d calls for %s", len(calls), to)
	}
	b := calls[0].Body
	if calls[0].Status != 200 || b.Subject != ClientSubject || b.From.Email != "zoe@sandbox.example" || b.From.Name != "Zoë" {
		t.Errorf("the sandbox answered %d to %+v", calls[0].Status, b)
	}
	if strings.TrimRight(b.Text, "\n") != strings.TrimRight(ClientText, "\n") || strings.TrimSpace(b.HTML) != "<p>Schöne <b>Grüße</b>!</p>" {
		t.Errorf("the bodies are %q and %q", b.Text, b.HTML)
	}
}

// Letter is a small mail.
func Letter(to, subject string) []byte {
	return []byte("From: a@sandbox.example\r\nTo: " + to + "\r\nSubject: " + subject + "\r\n\r\nHello.\r\n")
}
