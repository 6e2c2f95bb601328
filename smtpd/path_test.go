package smtpd

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParsePath: whatever is taken as an address is fit for a log line, a
// header and a reply, has one @ that splits it, and reads back as itself.
func FuzzParsePath(f *testing.F) {
	for _, s := range []string{
		"TO:<a@b>", "to: a@b x=y", `TO:<"a@b"@c>`, `TO:<"a\"\\b"@c> X`, "TO:<@x,@y:a@b>", "TO:<>", "TO:", "TO:<a@[1.2.3.4]>", "TO:<a@[IPv6:::1]>",
		"TO:<\"\"@x>", "TO:<a\x00@b>", "TO:<ü@ü>", "TO:<\"a\n\"@b>", "TO:<a@b>c", "TO:<\"a>b\"@c>", `TO:<"a`, `TO:<"a\`, "TO:<..@b>", "TO:<@>", "TO:<@:>",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		cmd, _, refused := parsePath("RCPT", "TO:", arg)
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
		again, _, refused := parsePath("RCPT", "TO:", "TO:<"+a+">")
		if refused != nil && len(a) <= maxAddress || refused == nil && again.address != a {
			t.Fatalf("%q gives %q, which gives %q, %v", arg, a, again.address, refused)
		}
	})
}
