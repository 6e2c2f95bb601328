package sendmail

import (
	"net/mail"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestAddresses(t *testing.T) {
	for field, want := range map[string]string{
		"":                                "",
		" , ;":                            "",
		"bob@example.net":                 "bob@example.net",
		"root":                            "root",
		"root, Bob <bob@example.net>":     "root bob@example.net",
		"Bob <bob@example.net>, <eve@x>;": "bob@example.net eve@x",
		`"Doe, John" <john@example.net>`:  "john@example.net",
		`John (a, b (c)) <john@x>, a@b`:   "john@x a@b",
		"root (Cron Daemon)":              "root",
		"bob@example.net (Bob)":           "bob@example.net",
		"bob@x <bob@y>":                   "bob@y",
		"undisclosed-recipients:;":        "",
		"Team: a@x, B <b@x>;, c@x":        "a@x b@x c@x",
		"a@x,\r\n\tb@x,\n c@x":            "a@x b@x c@x",
		`"a b"@example.net`:               `"a b"@example.net`,
		`<"a>b"@example.net>`:             `"a>b"@example.net`,
		"<@relay,@other:bob@example.net>": "bob@example.net",
		"bob@[192.0.2.1], a@[IPv6:::1]":   "bob@[192.0.2.1] a@[IPv6:::1]",
		"zoë@müller.example":              "zoë@müller.example",
		"=?utf-8?q?a=2Cb?= <a@x>":         "a@x",
		"a..b@docomo.example":             "a..b@docomo.example",
	} {
		got, err := Addresses(field)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %q, %v; want %q", field, got, err, want)
		}
	}
}

// What cannot be read is said, never left out.
func TestAddressesRefuses(t *testing.T) {
	for _, field := range []string{
		"a@", "@b", "a@b@c", "a b@x", "a@x b@x", "<a@x> <b@x>", "<a@x> b@x", "a@x <", "<a@x", "a@x>", `"a@x`, "(a@x", "a@[1.2.3.4",
		"<>", "a@x:b@x;", "a@x\x00", "a@x\rb", "a\x7f@x", "a@-..x", "<a<b@x>>", "\xff@x", strings.Repeat("a", 260) + "@x", `""@x`, `"a"b@x`, "Doe John, a@x",
		"\"a\rb\"@x", "<\"a\x00b\"@x>",
	} {
		if got, err := Addresses(field); err == nil {
			t.Errorf("%q gives %q", field, got)
		}
	}
}

// All 5,000 are read: relay/mail/mime would stop at 200.
func TestAddressesAreNotCut(t *testing.T) {
	got, err := Addresses(strings.Repeat("bob@example.net, ", 5000))
	if err != nil || len(got) != 5000 {
		t.Errorf("%d, %v", len(got), err)
	}
}

// FuzzAddresses: what we read is fit for an SMTP command, and where net/mail
// reads the field too, we find the same people or say that we cannot.
func FuzzAddresses(f *testing.F) {
	for _, s := range []string{"a@b, C <c@d>", "g: a@b;, c@d", `"x" <"a b"@c> (d)`, "<@a:b@c>", "root", "a@[1.2.3.4]", "a@b;c", "=?utf-8?q?x?= <a@b>", "a (b) @ c", "a. b@c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Addresses(s)
		if err != nil {
			return
		}
		for _, a := range got {
			if strings.ContainsAny(a, "\r\n\x00\x7f") || !utf8.ValidString(a) || !strings.HasPrefix(a, `"`) && strings.ContainsAny(a, "<> \t,;\"()") {
				t.Fatalf("%q gives %q", s, a)
			}
			again, err := Addresses("<" + a + ">")
			if err != nil || len(again) != 1 || again[0] != a {
				t.Fatalf("%q gives %q, which gives %q, %v", s, a, again, err)
			}
		}
		theirs, err := mail.ParseAddressList(s)
		if err != nil {
			return
		}
		var want []string
		for _, a := range theirs {
			want = append(want, a.Address)
		}
		if strings.Contains(s, `"`) { // net/mail takes the quotes off
			if len(got) != len(want) {
				t.Fatalf("%q: %q, net/mail has %q", s, got, want)
			}
		} else if !slices.Equal(got, want) {
			t.Fatalf("%q: %q, net/mail has %q", s, got, want)
		}
	})
}
