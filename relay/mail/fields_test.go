package mail

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
)

func target(t *testing.T, s string) Target {
	t.Helper()
	parsed, err := ParseTarget(s)
	if err != nil || parsed.String() != s {
		t.Fatalf("%q is %+v, %v", s, parsed, err)
	}
	return parsed
}

func TestTargets(t *testing.T) {
	for text, want := range map[string]Target{
		"tag": {Name: "tag"}, "tags[]": {Name: "tags", List: true}, "meta.team": {Name: "meta", Key: "team"},
	} {
		if got := target(t, text); got != want {
			t.Errorf("%q is %+v", text, got)
		}
	}
	for _, text := range []string{
		"", "[]", ".", "a.", ".b", "a.b[]", "a.b.c", "a b", "a\nb", "tägs[]", strings.Repeat("a", 65),
		"to", "cc[]", "BCC", "to.email", "headers.Bcc", "headers.Cc", "recipients[]",
	} {
		if got, err := ParseTarget(text); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

func TestSources(t *testing.T) {
	for _, name := range []string{"X-Tag", "List-Unsubscribe", "Message-ID", "In-Reply-To", "Sender"} {
		if err := CheckSource(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "Bcc", "To", "cc", "Resent-Bcc", "X-Bcc", "From", "Subject", "Content-Type", "Received", "a b", "X:Y", "X\r\nY"} {
		if CheckSource(name) == nil {
			t.Errorf("%q is taken", name)
		}
	}
}

// withFields maps a mail with X-Tag in tags[], X-Team in meta.team, X-Kind in kind and
// List-Unsubscribe in headers.
func withFields(t *testing.T, header string, c relay.Client) (*Mail, []string) {
	t.Helper()
	var left []string
	o := Options{
		Default: relay.Address{Email: "relay@sandbox.example"}, Domains: []string{"sandbox.example"}, Limits: mime.Limits{},
		HeaderField: "headers",
		Sources: []Source{
			{"X-Tag", target(t, "tags[]")}, {"X-Team", target(t, "meta.team")}, {"X-Kind", target(t, "kind")},
			{"List-Unsubscribe", target(t, "headers")}, {"Message-ID", target(t, "meta.id")},
		},
		UserValues: map[string][]Value{"app": {{target(t, "tags[]"), "app"}, {target(t, "meta.team"), "billing"}}},
		Explain: func(kind OmissionKind, words string) {
			if kind == HeadersDropped {
				left = append(left, words)
			}
		},
	}
	m, err := Map([]byte("From: shop@sandbox.example\r\nSubject: s\r\n"+header+"\r\nbody\r\n"), "", o.ForClient(c))
	if err != nil {
		t.Fatal(err)
	}
	return m, left
}

func fieldsText(m *Mail) string {
	var b strings.Builder
	for _, f := range m.Fields {
		fmt.Fprintf(&b, "%s:%d%q ", f.Name, f.Kind, f.Values)
	}
	return b.String() + fmt.Sprintf("headers:%q", m.Headers)
}

func TestFields(t *testing.T) {
	for _, tt := range []struct {
		name, header string
		client       relay.Client
		want         string
		left         []string
	}{
		{"none", "X-Other: 1\r\n", relay.Client{}, `headers:[]`, []string{"X-Other"}},
		{"each kind", "x-tag: a\r\nX-Tag: b, c\r\nX-Team: core\r\nX-Kind: receipt\r\nList-Unsubscribe: <https://example.com/u>\r\nMessage-ID: <1@x>\r\n", relay.Client{},
			`tags:1[{"" "a"} {"" "b, c"}] meta:2[{"team" "core"} {"id" "<1@x>"}] kind:0[{"" "receipt"}] headers:[{"List-Unsubscribe" "<https://example.com/u>"}]`, nil},
		{"one where only one can be", "X-Kind: a\r\nX-Kind: b\r\nX-Team: c\r\nX-Team: d\r\nList-Unsubscribe: <e>\r\nlist-unsubscribe: <f>\r\n", relay.Client{},
			`kind:0[{"" "a"}] meta:2[{"team" "c"}] headers:[{"List-Unsubscribe" "<e>"}]`,
			[]string{"X-Kind (kind has a value already), X-Team (meta.team has a value already), List-Unsubscribe (headers has a value already)"}},
		{"empty ones", "X-Kind:\r\nX-Kind: b\r\nX-Tag: \r\n", relay.Client{}, `kind:0[{"" "b"}] headers:[]`, nil},
		{"lines and control characters", "X-Tag: =?utf-8?q?a=0D=0ABcc:_eve@example.net=00=1B?=\r\nX-Team: a\x01\r\n\tb\xC2\x85c\r\n", relay.Client{},
			`tags:1[{"" "a  Bcc: eve@example.net"}] meta:2[{"team" "a b c"}] headers:[]`, nil},
		{"a user's values come first", "X-Tag: a\r\nX-Team: core\r\n", relay.Client{User: "app"},
			`tags:1[{"" "app"} {"" "a"}] meta:2[{"team" "billing"}] headers:[]`, []string{"X-Team (meta.team has a value already)"}},
		{"then a listener's", "X-Kind: a\r\n", relay.Client{User: "app", Fields: FormatValues([]Value{{target(t, "tags[]"), "l=1"}, {target(t, "meta.team"), "no"}, {target(t, "headers.X-Via"), "relay"}})},
			`tags:1[{"" "app"} {"" "l=1"}] meta:2[{"team" "billing"}] kind:0[{"" "a"}] headers:[{"X-Via" "relay"}]`, nil},
		{"too long", "X-Kind: " + strings.Repeat("a", MaxFieldValue+1) + "\r\nX-Tag: " + strings.Repeat("b", MaxFieldValue) + "\r\n", relay.Client{},
			`tags:1[{"" "` + strings.Repeat("b", MaxFieldValue) + `"}] headers:[]`, []string{"X-Kind (longer than 2048 bytes)"}},
	} {
		m, left := withFields(t, tt.header, tt.client)
		if got := fieldsText(m); got != tt.want {
			t.Errorf("%s: %s\nwant %s", tt.name, got, tt.want)
		}
		if !slices.Equal(left, tt.left) {
			t.Errorf("%s: left out %q\nwant %q", tt.name, left, tt.left)
		}
	}
}

// TestFieldsAreBounded: what a mail can put into a payload, and into the explanation of
// what was left out, has an end.
func TestFieldsAreBounded(t *testing.T) {
	m, left := withFields(t, strings.Repeat("X-Tag: a\r\n", 5000), relay.Client{})
	if n := len(m.Fields[0].Values); n != MaxFieldValues {
		t.Errorf("%d values", n)
	}
	if len(left) != 1 || len(left[0]) > maxWords+10 || m.Omissions[len(m.Omissions)-1].Kind != HeadersDropped {
		t.Errorf("left out: %q, %+v", left, m.Omissions)
	}
}

// TestBouncesHaveNoValues: what no client sent has none.
func TestBouncesHaveNoValues(t *testing.T) {
	m, _ := withFields(t, "X-Tag: a\r\n", relay.Client{})
	if got := fieldsText(m); got != `tags:1[{"" "a"}] headers:[]` {
		t.Error(got)
	}
}

// TestTheCopyOfAnArchiveSaysWhomItWasFor, in both bodies, and as text.
func TestTheCopyOfAnArchiveSaysWhomItWasFor(t *testing.T) {
	m, _ := withFields(t, "", relay.Client{CopyOf: "id", CopyFor: "bob@example.net, <b>@example.net\r\nand 3 more"})
	const line = "Copy for the archive. This mail was for bob@example.net, "
	if m.Text != line+"<b>@example.net  and 3 more.\n\nbody\n" || !strings.HasPrefix(m.HTML, "<p><em>"+line+"&lt;b&gt;@example.net  and 3 more.</em></p>\n") {
		t.Errorf("%q\n%q", m.Text, m.HTML)
	}
}
