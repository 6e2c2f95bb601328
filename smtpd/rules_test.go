package smtpd

import (
	"context"
	"net/netip"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/policy"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// holding is a backend that holds the author to the rules: the first line.
type holding struct{ discard }

func (holding) Message(_ context.Context, env *Envelope, data []byte) *reply.Reply {
	author := string(data[:len(data)-len("\r\n")])
	if !env.Author(author) {
		return reply.FromNotAllowed(author)
	}
	return reply.Queued("q")
}

// Each rule that refuses somebody is counted by its setting, and no other is.
func TestRulesAreCounted(t *testing.T) {
	const from, to = "a@b.test", "c@d.test"
	bad, other := patterns("bad@x.test"), patterns(from, to)
	all := func(who policy.List, allow bool) policy.Rules {
		if allow {
			return policy.Rules{AllowSenders: who, AllowFrom: who, AllowRecipients: who}
		}
		return policy.Rules{DenySenders: who, DenyFrom: who, DenyRecipients: who}
	}
	type dialog = []string
	sender := dialog{"MAIL FROM:<bad@x.test>", "553 5.7.1"}
	author := dialog{"MAIL FROM:<" + from + ">", "250 ", "RCPT TO:<" + to + ">", "250 ", "DATA", "354 ", "bad@x.test\r\n.", "550 5.7.1"}
	recipient := dialog{"MAIL FROM:<" + from + ">", "250 ", "RCPT TO:<bad@x.test>", "550 5.7.1"}
	type place = func(o *Options, r policy.Rules)
	everybody := place(func(o *Options, r policy.Rules) { o.Rules = r })
	listener := place(func(o *Options, r policy.Rules) { o.Listeners[0].Rules = r })
	user := place(func(o *Options, r policy.Rules) {
		o.Users = fixedUser{auth.User{Name: "ann", Rules: r}}
		o.Listeners[0].AuthWithoutTLS = true
	})
	closed := func(change func(l *Listener)) place {
		return func(o *Options, _ policy.Rules) { change(&o.Listeners[0]) }
	}
	met := map[rule]bool{}
	for _, tt := range []struct {
		rule  rule
		place place
		allow bool
		say   dialog
	}{
		{"rules.allow_senders", everybody, true, sender}, {"rules.deny_senders", everybody, false, sender},
		{"rules.allow_from", everybody, true, author}, {"rules.deny_from", everybody, false, author},
		{"rules.allow_recipients", everybody, true, recipient}, {"rules.deny_recipients", everybody, false, recipient},
		{"listener.allow_senders", listener, true, sender}, {"listener.deny_senders", listener, false, sender},
		{"listener.allow_from", listener, true, author}, {"listener.deny_from", listener, false, author},
		{"listener.allow_recipients", listener, true, recipient}, {"listener.deny_recipients", listener, false, recipient},
		{"user.senders", user, true, sender}, {"user.deny_senders", user, false, sender},
		{"user.senders", user, true, author}, {"user.deny_senders", user, false, author},
		{"user.allow_recipients", user, true, recipient}, {"user.deny_recipients", user, false, recipient},
		{ruleNetworks, closed(func(l *Listener) { l.Networks = nil }), false, dialog{"MAIL FROM:<a@b.test>", "554 5.7.1"}},
		{ruleRequireAuth, closed(func(l *Listener) { l.RequireAuth = true }), false, dialog{"MAIL FROM:<a@b.test>", "554 5.7.1"}},
		{ruleTLS, func(o *Options, r policy.Rules) {
			user(o, r)
			o.Listeners[0].AuthWithoutTLS = false
			o.Listeners[0].TLS = TLS{Mode: StartTLS, SelfSigned: true}
		}, false, nil},
	} {
		t.Run(string(tt.rule), func(t *testing.T) {
			met[tt.rule] = true
			reg := prometheus.NewPedanticRegistry()
			s := start(t, holding{}, func(o *Options) {
				o.Metrics = reg
				if tt.allow {
					tt.place(o, all(other, true))
				} else {
					tt.place(o, all(bad, false))
				}
			})
			c := dial(t, s)
			c.want("220 ")
			c.do("EHLO c", "250 ")
			switch {
			case tt.rule == ruleTLS:
				c.do(plain("ann", "x"), "538 5.7.11")
			case s.options.Users != nil:
				c.do(plain("ann", "x"), "235 ")
			}
			c.do(tt.say...)
			for label, n := range series(t, reg, "smtp2rest_smtp_rules_total") {
				if want := map[bool]float64{true: 1}[label == string(tt.rule)]; n != want {
					t.Errorf("%s refused %v times, want %v", label, n, want)
				}
			}
		})
	}
	if len(met) != len(unique(rules())) {
		t.Errorf("%d of %d rules were met", len(met), len(unique(rules())))
	}
}

func unique(list []rule) map[rule]bool {
	set := map[rule]bool{}
	for _, r := range list {
		set[r] = true
	}
	return set
}

// fixedUser is who every login is.
type fixedUser struct{ auth.User }

func (u fixedUser) Check(context.Context, netip.Addr, auth.Credentials) (auth.Result, error) {
	return auth.Result{User: &u.User}, nil
}

func (u fixedUser) Current(*auth.User) *auth.User { return &u.User }
