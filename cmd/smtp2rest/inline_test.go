package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// logoLetter is a letter whose html shows a logo; more are further parts.
func logoLetter(more string) string {
	return "From: <hello@mail.example.com>\r\nSubject: Offer\r\nMIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=b\r\n\r\n" +
		"--b\r\nContent-Type: text/html\r\n\r\n<p>Dear Bob <img src=\"cid:logo@x\" alt=\"ACME\"></p>\r\n" +
		"--b\r\nContent-Type: image/png; name=logo.png\r\nContent-ID: <logo@x>\r\n\r\npng\r\n" + more + "--b--\r\n."
}

// TestALogoAndAnAttachment: by default a logo becomes its alternative text, an attachment
// is refused by name, and status says whose it was.
func TestALogoAndAnAttachment(t *testing.T) {
	const pdf = "--b\r\nContent-Type: application/pdf; name=report.pdf\r\n\r\npdf\r\n"
	for name, tt := range map[string]struct {
		config           string
		sandbox          []string
		logo, attachment string
		calls            []string
	}{
		"default":                               {"", nil, "250 2.0.0 accepted", "554 5.6.1 ", []string{`"html":"<p>Dear Bob [ACME]</p>`}},
		"send":                                  {"[mail]\ninline = \"send\"\n", []string{"--fields", "attachments"}, "250 2.0.0 accepted", "554 5.6.1 ", []string{`"attachments":[{"content":"cG5n"`, `cid:logo@x`}},
		"refused":                               {"[mail]\ninline = \"refuse\"\n", nil, "554 5.6.1 ", "554 5.6.1 ", nil},
		"send, which the account does not take": {"[mail]\ninline = \"send\"\n", nil, "554 5.6.0 ", "554 5.6.1 ", nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, env, sandbox := harness.SandboxProcess(t, tt.sandbox...)
			env = harness.Environ(t, env...)
			p := harness.Launch(t, env, "serve", "--config", harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n"+tt.config))
			c := harness.Dial(t, p.Await(p.Err, `msg=listening address=(127\.0\.0\.1:\d+)`))
			c.Do("", "220", "EHLO app.example", "250")
			hand := func(letter string) string {
				c.Do("MAIL FROM:<hello@mail.example.com>", "250", "RCPT TO:<bob@example.net>", "250", "DATA", "354")
				return c.Say(letter)
			}
			if got := hand(logoLetter("")); !strings.HasPrefix(got, tt.logo) {
				t.Errorf("the logo is answered %q", got)
			}
			if got := hand(logoLetter(pdf)); !strings.HasPrefix(got, tt.attachment) || !strings.Contains(got, "report.pdf (application/pdf") {
				t.Errorf("the attachment is answered %q", got)
			}
			var bodies bytes.Buffer
			for _, call := range harness.CallsTo(t, sandbox, "bob@example.net") {
				if err := json.Compact(&bodies, call.Raw); err != nil {
					t.Fatal(err)
				}
			}
			for _, want := range tt.calls {
				if !strings.Contains(strings.NewReplacer(`\u003c`, "<", `\u003e`, ">").Replace(bodies.String()), want) {
					t.Errorf("the API was not given %s: %s", want, bodies.String())
				}
			}
			if got := harness.Execute(t, env, "", "status").Out; !strings.Contains(got, "refused for an attachment") || !strings.Contains(got, "127.0.0.1 (") {
				t.Errorf("status does not say who:\n%s", got)
			}
		})
	}
}
