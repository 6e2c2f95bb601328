package config

import "github.com/smtp2rest/smtp2rest/smtpd/policy"

// Patterns are a list as smtpd/policy reads it.
type Patterns struct {
	Text []string
	List policy.List
}

// Rules say whom mail may be from and to.
type Rules struct {
	AllowSenders, DenySenders       Patterns // of MAIL FROM
	AllowFrom, DenyFrom             Patterns // of the mail's own From
	AllowRecipients, DenyRecipients Patterns // of RCPT TO
}

// ruleSettings are the same for everybody and for a listener.
func ruleSettings(r *Rules, prefix string) []setting {
	return []setting{
		{path: prefix + ".allow_senders", value: patternsValue{&r.AllowSenders}, def: []any{},
			doc: "The only ones that may be in MAIL FROM. None is anybody."},
		{path: prefix + ".deny_senders", value: patternsValue{&r.DenySenders}, def: []any{},
			doc: "Who may not be in MAIL FROM."},
		{path: prefix + ".allow_from", value: patternsValue{&r.AllowFrom}, def: []any{},
			doc: "The only ones that may be in a mail's From. None is anybody."},
		{path: prefix + ".deny_from", value: patternsValue{&r.DenyFrom}, def: []any{},
			doc: "Who may not be in a mail's From."},
		{path: prefix + ".allow_recipients", value: patternsValue{&r.AllowRecipients}, def: []any{},
			doc: "The only ones that mail may be to, as RCPT names them. None is anybody."},
		{path: prefix + ".deny_recipients", value: patternsValue{&r.DenyRecipients}, def: []any{},
			doc: "Whom mail may not be to."},
	}
}

// Policy is the rules in the words of smtpd.
func (r Rules) Policy() policy.Rules {
	return policy.Rules{
		Sender:    policy.Rule{Allow: r.AllowSenders.List, Deny: r.DenySenders.List},
		From:      policy.Rule{Allow: r.AllowFrom.List, Deny: r.DenyFrom.List},
		Recipient: policy.Rule{Allow: r.AllowRecipients.List, Deny: r.DenyRecipients.List},
	}
}

type patternsValue struct{ p *Patterns }

func (p patternsValue) set(v any) error {
	text, err := textList(v, `write a list of addresses, as in ["ann@example.com", "@example.net"]`)
	if err != nil {
		return err
	}
	list, err := policy.Parse(text)
	if err != nil {
		return err
	}
	*p.p = Patterns{text, list}
	return nil
}

func (p patternsValue) text() string { return quoteList(p.p.Text) }
