package intake

import (
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// Account is what sends the mail of one account.
type Account struct {
	Attempts     *attempt.Sender
	Suppressions *suppress.List
	Warming      Warming
}

// AccountSettings are those of one account.
type AccountSettings struct {
	Mapping provider.Mapping
	Bounce  bounce.Options
	Archive string // gets a copy of each mail that is accepted; "": nobody
}

// Choice says which account sends a mail, where there are several. The first that
// applies: the account of the user, that of the listener, the one that has the domain of
// the mail's From, or of its envelope's sender, and the default account.
type Choice struct {
	Users   map[string]string // users who have an account of their own
	Domains map[string]string // in lower case, with those of the default account
}

// of returns an account's part of the relay.
func (in *Intake) of(account string) Account {
	if a, ok := in.opt.Others[account]; ok {
		return a
	}
	return Account{in.opt.Attempts, in.opt.Suppressions, in.opt.Warming}
}

func (in *Intake) settingsOf(account string) AccountSettings {
	s := in.set.Load()
	if a, ok := s.Others[account]; ok {
		return a
	}
	return AccountSettings{s.Mapping, s.Bounce, s.Archive}
}

// several reports whether there is a choice at all.
func (in *Intake) several() bool { return len(in.opt.Others) > 0 }

// known returns the account that will send a mail, if that is known before it comes: by
// its client, or by the domain of its envelope's sender.
func (in *Intake) known(env *smtpd.Envelope) (account string, ok bool) {
	if !in.several() {
		return "", true
	}
	account, by := in.set.Load().Choice.known(env.Client, env.From)
	return account, by != byNothing
}

// choose returns the account that sends a mail.
func (in *Intake) choose(env *smtpd.Envelope, raw []byte) string {
	if !in.several() {
		return ""
	}
	return in.set.Load().Choice.Account(env.Client, env.From, raw)
}

// Account returns the account that sends a mail; "" is the default one.
func (c Choice) Account(client smtpd.Client, from string, raw []byte) string {
	account, by := c.known(client, from)
	if by == byClient {
		return account
	}
	if own, ok := c.Domains[domainOf(mail.Identify(raw).Author)]; ok {
		return own
	}
	return account
}

// by is what an account is known by, before the mail has come.
type by int

const (
	byNothing by = iota
	bySender     // of the envelope: the mail's From counts before it
	byClient
)

func (c Choice) known(client smtpd.Client, from string) (account string, _ by) {
	if account, ok := c.Users[client.User]; ok && client.User != "" {
		return account, byClient
	}
	if client.Account != "" {
		return accountNamed(client.Account), byClient
	}
	if account, ok := c.Domains[domainOf(from)]; ok {
		return account, bySender
	}
	return "", byNothing
}

// accountNamed returns the account that people call by a name.
func accountNamed(name string) string {
	if name == relay.DefaultAccount {
		return ""
	}
	return name
}
