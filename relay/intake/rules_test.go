package intake

import (
	"testing"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/smtpd/policy"
)

// authors are mails for rules about From, with everybody whom a reader or the API
// would take for the author.
func authors() (list []cause) {
	shops, err := policy.Parse([]string{"@sandbox.example"})
	if err != nil {
		panic(err)
	}
	boss, err := policy.Parse([]string{"boss@sandbox.example"})
	if err != nil {
		panic(err)
	}
	rules := policy.Rules{AllowFrom: shops, DenyFrom: boss}
	const isBoss, isEve = `550 5\.7\.1 From <boss@sandbox\.example> is not allowed here`, `550 5\.7\.1 From <eve@elsewhere\.example> is not allowed here`
	for header, want := range map[string]string{
		"From: shop@sandbox.example":                               `250 2\.0\.0 accepted .*`,
		"From: =?utf-8?q?The_boss?= <BOSS@sandbox.example>":        `550 5\.7\.1 From <BOSS@sandbox\.example> is not allowed here`,
		"From: \"boss\"@sandbox.example":                           `550 5\.7\.1 From <"boss"@sandbox\.example> is not allowed here`,
		"From: boss@sandbox.example (shop@sandbox.example)":        isBoss,
		"From: shop@sandbox.example,\r\n boss@sandbox.example":     isBoss,
		"From: shop@sandbox.example\r\nfrom: boss@sandbox.example": isBoss,
		"From:\r\n <boss\r\n @sandbox.example>":                    isBoss,
		"From: eve@elsewhere.example":                              isEve,
		"From: root (Cron Daemon)":                                 `250 2\.0\.0 accepted .*`,
		"From: Shop\r\nSender: eve@elsewhere.example":              isEve,
		"X-From: boss@sandbox.example":                             `250 2\.0\.0 accepted .*`,
	} {
		c := cause{name: header, raw: header + "\r\nSubject: s\r\n\r\nb\r\n", rules: rules, now: want}
		if want[0] == '5' {
			c.check = nothingSent
		}
		list = append(list, c)
	}
	// A mail without a From is sent as from its envelope sender.
	return append(list, cause{name: "none", from: "boss@sandbox.example", raw: "Subject: s\r\n\r\nb\r\n", rules: rules, now: isBoss, check: nothingSent})
}

// A user's own sender replaces the relay's default for that user only.
func TestOwnSender(t *testing.T) {
	app := relay.Address{Email: "app@sandbox.example", Name: "The app"}
	for _, tt := range []struct {
		user, raw string
		want      relay.Address
	}{
		{"app", "From: Eve <eve@elsewhere.example>\r\n\r\n", relay.Address{Email: app.Email, Name: "Eve"}},
		{"app", "From: root\r\n\r\n", relay.Address{Email: app.Email, Name: "root"}},
		{"app", "From: shop@sandbox.example\r\n\r\n", relay.Address{Email: "shop@sandbox.example"}},
		{"other", "From: Eve <eve@elsewhere.example>\r\n\r\n", relay.Address{Email: "relay@sandbox.example", Name: "Eve"}},
	} {
		r := newRig(t, plan{mapping: func(o *mail.Options) { o.Defaults = map[string]relay.Address{"app": app} }})
		env := envelope("", "bob@example.net")
		env.Client.User = tt.user
		compare(t, r.Message(t.Context(), env, []byte(tt.raw)), `250 2\.0\.0 accepted .*`)
		if got := r.callTo("bob@example.net").From; got != tt.want {
			t.Errorf("%s, %q: from %+v, want %+v", tt.user, tt.raw, got, tt.want)
		}
	}
}
