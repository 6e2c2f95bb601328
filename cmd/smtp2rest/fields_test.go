package main

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

const tagged = "From: <hello@mail.example.com>\r\nSubject: Receipt\r\nX-Tag: receipt\r\nX-Tag: =?utf-8?q?eu=0D=0ABcc:_eve?=\r\nX-Team: core\r\n" +
	"List-Unsubscribe: <https://example.com/u>\r\nX-Mailer: shop\r\n\r\nThank you.\r\n"

const fieldsConfig = "[[listener]]\naddress = \"127.0.0.1:0\"\nfields = { \"metadata.via\" = \"relay\" }\n" +
	"[mail.fields]\nX-Tag = \"tags[]\"\nX-Team = \"metadata.team\"\nList-Unsubscribe = \"headers\"\n"

// TestHeadersInFields: with mail.fields the values of headers are in the call of a mail
// that is sent at once, and of one that was queued; explain shows the same, and names
// what was left out. Without it, and for an account that does not take them, nothing
// changes.
func TestHeadersInFields(t *testing.T) {
	const want = `"metadata":{"via":"relay","team":"core"},"tags":["receipt","eu  Bcc: eve"]`
	for name, tt := range map[string]struct {
		config string
		takes  []string
		reply  string
		calls  []string
		not    string
	}{
		"set":                                {fieldsConfig, []string{"--fields", "tags,metadata,headers"}, "250 2.0.0 ", []string{want, `"headers":{"List-Unsubscribe":"\u003chttps://example.com/u\u003e"}`}, "X-Mailer"},
		"not set":                            {"[[listener]]\naddress = \"127.0.0.1:0\"\n", nil, "250 2.0.0 ", nil, `"tags"`},
		"an account that does not take them": {fieldsConfig, []string{"--fields", "headers"}, "554 5.6.0 ", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, env, sandbox := harness.SandboxProcess(t, tt.takes...)
			env = harness.Environ(t, env...)
			file := harness.ConfigFile(t, tt.config+"[delivery]\nretry_first = \"200ms\"\n")
			p := harness.Launch(t, env, "serve", "--config", file)
			c := harness.Dial(t, p.Await(p.Err, `msg=listening address=(127\.0\.0\.1:\d+)`))
			c.Do("", "220", "EHLO app.example", "250")
			for _, to := range []string{"bob@example.net", "down+1@example.net"} {
				c.Do("MAIL FROM:<hello@mail.example.com>", "250", "RCPT TO:<"+to+">", "250", "DATA", "354")
				if got := c.Say(tagged + "."); !strings.HasPrefix(got, tt.reply) {
					t.Fatalf("the mail for %s is answered %q", to, got)
				}
				if tt.reply[0] != '2' {
					return
				}
				harness.PollUntil(t, to+" has the mail", func() bool {
					calls := harness.CallsTo(t, sandbox, to)
					return len(calls) > 0 && calls[len(calls)-1].Status == 200
				})
				var body bytes.Buffer
				calls := harness.CallsTo(t, sandbox, to)
				if err := json.Compact(&body, calls[len(calls)-1].Raw); err != nil {
					t.Fatal(err)
				}
				for _, want := range tt.calls {
					if !strings.Contains(body.String(), want) {
						t.Errorf("%s: no %s in %s", to, want, body.String())
					}
				}
				if strings.Contains(body.String(), tt.not) {
					t.Errorf("%s: %s", to, body.String())
				}
			}
			if tt.calls == nil {
				return
			}
			got := harness.Execute(t, env, tagged, "explain", "-", "--config", file, "--listener", "127.0.0.1:0", "--json")
			if !strings.Contains(got.Out, want) {
				t.Errorf("explain does not show the fields:\n%s", got.All())
			}
			if !strings.Contains(got.Out, `"detail":"X-Mailer"`) {
				t.Errorf("explain does not name what was left out:\n%s", got.All())
			}
		})
	}
	for flag, value := range map[string]string{"--user": "nobody", "--listener": "127.0.0.1:1", "--account": "none"} {
		got := harness.Execute(t, harness.Environ(t), tagged, "explain", "-", "--config", harness.ConfigFile(t, fieldsConfig), flag, value)
		if got.Code == 0 || !strings.Contains(got.Err, strconv.Quote(value)) {
			t.Errorf("%s %s: %+v", flag, value, got)
		}
	}
}

// TestTheRecipeOfFields: docs/recipes.md as it is written.
func TestTheRecipeOfFields(t *testing.T) {
	text, err := os.ReadFile(harness.File(t, "docs/recipes.md"))
	if err != nil {
		t.Fatal(err)
	}
	recipe := regexp.MustCompile("(?s)<!-- recipe: fields -->\n```toml\n(.*?)```\n").FindSubmatch(text)
	if recipe == nil {
		t.Fatal("there is no such recipe")
	}
	_, env, sandbox := harness.SandboxProcess(t, "--fields", "tags,metadata,headers")
	env = harness.Environ(t, env...)
	p := harness.Launch(t, env, "serve", "--config", harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n"+string(recipe[1])))
	c := harness.Dial(t, p.Await(p.Err, `msg=listening address=(127\.0\.0\.1:\d+)`))
	c.Do("", "220", "EHLO app.example", "250", "MAIL FROM:<hello@mail.example.com>", "250", "RCPT TO:<bob@example.net>", "250", "DATA", "354", tagged+".", "250")
	calls := harness.CallsTo(t, sandbox, "bob@example.net")
	var body bytes.Buffer
	if len(calls) != 1 || json.Compact(&body, calls[0].Raw) != nil {
		t.Fatalf("%+v", calls)
	}
	for _, want := range []string{`"metadata":{"team":"core"}`, `"tags":["receipt","eu  Bcc: eve"]`, `"headers":{"List-Unsubscribe":`} {
		if !strings.Contains(body.String(), want) {
			t.Errorf("no %s in %s", want, body.String())
		}
	}
}
