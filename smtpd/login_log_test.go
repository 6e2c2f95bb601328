package smtpd

import (
	"log/slog"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The expression in docs/access.md finds the address in the line of each wrong
// password, and in no other: whatever a client says, it cannot have another
// banned.
func TestFailedLoginsAreFoundByFail2ban(t *testing.T) {
	doc, err := os.ReadFile("../docs/access.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^failregex = (.*)$`).FindSubmatch(doc)
	if found == nil {
		t.Fatal("docs/access.md has no failregex")
	}
	failregex := regexp.MustCompile(strings.Replace(string(found[1]), "<ADDR>", `([0-9a-fA-F.:]+?)`, 1))

	var log records
	s := start(t, &fakeBackend{}, func(o *Options) {
		if err := addUsers(o); err != nil {
			t.Fatal(err)
		}
		fromLoopback(o)
		o.Listeners[0].AuthWithoutTLS = true
		o.Listeners[0].Networks = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	const forged = ` msg="login failed" session=x client=203.0.113.9:1 `
	for _, proxied := range []string{"TCP4 192.0.2.1 192.0.2.2 4711 25", "TCP6 2001:db8::1 2001:db8::2 4711 25"} {
		c := dial(t, s)
		c.send("PROXY " + proxied + "\r\n")
		c.want("220 ")
		c.do("EHLO"+forged, "250 ", "MAIL FROM:<"+strings.ReplaceAll(forged, `"`, ``)+"@b.test>", "553 ", `MAIL FROM:<"`+strings.ReplaceAll(forged, `"`, `\"`)+`"@b.test>`, "250 ",
			`RCPT TO:<"`+strings.ReplaceAll(forged, `"`, `\"`)+`"@b.test> X`, "555 ", "RSET", "250 ", "AUTH "+forged, "504 ",
			plain("ann", "wrong"), "535 ", plain("nobody"+forged, forged), "535 ", "AUTH PLAIN x", "501 ", "QUIT", "221 ")
	}
	waitFor(t, s, 0)
	var got []string
	log.mu.Lock()
	defer log.mu.Unlock()
	for line := range strings.Lines(log.buf.String()) {
		if m := failregex.FindStringSubmatch(line); m != nil {
			got = append(got, m[1])
		}
	}
	if want := "192.0.2.1 192.0.2.1 2001:db8::1 2001:db8::1"; strings.Join(got, " ") != want {
		t.Errorf("found %v, want %s in\n%s", got, want, log.buf.String())
	}
}
