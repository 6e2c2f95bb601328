package smtpd

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// What stands alone gets a domain, and nothing else changes.
func TestUnqualified(t *testing.T) {
	for arg, want := range map[string]string{
		"TO:<root>": "root@mail.example.com", "TO:root": "root@mail.example.com", "TO:<postmaster>": "postmaster@mail.example.com",
		"TO:<MAILER-DAEMON>": "MAILER-DAEMON@mail.example.com", `TO:<"a b">`: `"a b"@mail.example.com`, `TO:<"root">`: "root@mail.example.com",
		"TO:<a@b>": "a@b", "TO:<@x,@y:a@b>": "a@b",
		"TO:<>": "", "TO:<a b>": "", "TO:<a@>": "", "TO:<@b>": "", `TO:<"a@b">`: "", "TO:<.>": "", `TO:<root\>`: "", "TO:<root\r\nDATA>": "",
	} {
		cmd, refused := parseRcpt(arg, false, "mail.example.com")
		if cmd.address != want && refused == nil || (refused == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", arg, cmd.address, refused, want)
		}
		if _, refused := parseRcpt(arg, false, ""); refused == nil && !strings.Contains(arg, "a@b>") {
			t.Errorf("%q is taken without a domain for it", arg)
		}
	}
	if cmd, refused := parseMail("FROM:<root> SIZE=5", 10, "mail.example.com"); refused != nil || cmd.address != "root@mail.example.com" || cmd.size != 5 {
		t.Errorf("%+v, %v", cmd, refused)
	}
	if cmd, refused := parseMail("FROM:<>", 10, "mail.example.com"); refused != nil || cmd.address != "" {
		t.Errorf("the null sender is %+v, %v", cmd, refused)
	}
}

// A domain beyond ASCII that has no form in ASCII is no name in DNS, and would
// slip through every list of domains.
func TestInternationalDomain(t *testing.T) {
	for domain, want := range map[string]bool{
		"bücher.test": true, "BÜ_cher.test": true, "a_b.bücher。test": true, "😀.test": true, "xn--0.test": true,
		"a․bücher.test": false, "́a.test": false, "אa.test": false, "a\u200db.test": false, strings.Repeat("ü", 31) + "ẃ" + strings.Repeat("漢", 20) + ".test": false,
	} {
		if _, refused := parseRcpt("TO:<a@"+domain+">", true, ""); (refused == nil) != want {
			t.Errorf("RCPT TO:<a@%s>: %v", domain, refused)
		}
		if _, refused := parseMail("FROM:<a@"+domain+"> SMTPUTF8", 10, ""); (refused == nil) != want {
			t.Errorf("MAIL FROM:<a@%s>: %v", domain, refused)
		}
	}
}

// FuzzParsePath: whatever is taken as an address is fit for a log line, a
// header and a reply, has one @ that splits it, and reads back as itself.
func FuzzParsePath(f *testing.F) {
	for _, s := range []string{
		"TO:<a@b>", "to: a@b x=y", `TO:<"a@b"@c>`, `TO:<"a\"\\b"@c> X`, "TO:<@x,@y:a@b>", "TO:<>", "TO:", "TO:<a@[1.2.3.4]>", "TO:<a@[IPv6:::1]>",
		"TO:<\"\"@x>", "TO:<a\x00@b>", "TO:<ü@ü>", "TO:<\"a\n\"@b>", "TO:<a@b>c", "TO:<\"a>b\"@c>", `TO:<"a`, `TO:<"a\`, "TO:<..@b>", "TO:<@>", "TO:<@:>",
		"TO:<root>", "TO:root", `TO:<"a b">`, `TO:<"a@b">`, "TO:<a b>", "TO:<@x:root>",
	} {
		f.Add(s, "")
		f.Add(s, "mail.example.com")
	}
	f.Fuzz(func(t *testing.T, arg, qualify string) {
		cmd, _, refused := parsePath("RCPT", "TO:", arg, qualify)
		if refused != nil || cmd.address == "" {
			return
		}
		a := cmd.address
		if len(a) > maxAddress+2*64 || !utf8.ValidString(a) || strings.ContainsAny(a, "\r\n\x00\x7f") {
			t.Fatalf("%q gives %q", arg, a)
		}
		i := strings.LastIndexByte(a, '@')
		local, domain := a[:i], a[i+1:]
		if !strings.HasPrefix(local, `"`) && strings.ContainsAny(local, `@<> ",;:()[]\`) || strings.ContainsAny(domain, `@<> ",;()\`) {
			t.Fatalf("%q gives %q", arg, a)
		}
		again, _, refused := parsePath("RCPT", "TO:", "TO:<"+a+">", qualify)
		if refused != nil && len(a) <= maxAddress || refused == nil && again.address != a {
			t.Fatalf("%q gives %q, which gives %q, %v", arg, a, again.address, refused)
		}
	})
}
