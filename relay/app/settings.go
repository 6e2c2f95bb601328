package app

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/deliver"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/intake"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/relay/webhook"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// Each function of this file is what one part takes from a configuration, at the
// start and at each reload.

// accountNames are all accounts there are, the default one first.
func accountNames(c *config.Config) []string {
	names := []string{""}
	for _, a := range c.Accounts {
		names = append(names, a.Name)
	}
	return names
}

// accountOf returns the settings of an account.
func accountOf(name string) func(*config.Config) accountSettings {
	return func(c *config.Config) accountSettings {
		s := mainAccount(c)
		if a := c.Account(name); a != nil {
			s.client.Connection = provider.Connection{
				URL: a.URL, Path: a.Path, Key: a.Key.Reveal(), Concurrency: a.Concurrency,
				Timeouts: provider.Timeouts{Timeout: a.Timeout, ConnectTimeout: a.ConnectTimeout},
			}
			s.pace.Concurrency, s.pace.Rate, s.pace.Burst = a.Concurrency, a.Rate, a.Burst
		}
		return s
	}
}

// longestCall is the longest time-out of a call of any account.
func longestCall(c *config.Config) time.Duration {
	longest := c.API.Timeout
	for _, a := range c.Accounts {
		longest = max(longest, a.Timeout)
	}
	return longest
}

// AccountFor returns the account that sends a mail, by a configuration; 'smtp2rest explain'
// uses it as well.
func AccountFor(c *config.Config, client smtpd.Client, from string, raw []byte) string {
	if len(c.Accounts) == 0 {
		return ""
	}
	return choice(c).Account(client, from, raw)
}

// choice is how a configuration has the account of a mail chosen.
func choice(c *config.Config) intake.Choice {
	choice := intake.Choice{Users: map[string]string{}, Domains: c.AccountDomains()}
	for _, domain := range c.Sender.Domains {
		choice.Domains[domain] = ""
	}
	for _, u := range c.Users {
		switch u.Account {
		case "":
		case relay.DefaultAccount:
			choice.Users[u.Name] = ""
		default:
			choice.Users[u.Name] = u.Account
		}
	}
	return choice
}

// mainAccount is the account of [api].
func mainAccount(c *config.Config) accountSettings {
	a := c.API
	suppressed := c.Suppression
	suppressed.Forget, suppressed.Unsubscribed = max(c.History.Keep, eventsKept), c.Webhook.SuppressUnsubscribed
	return accountSettings{
		client: clientSettings{
			Connection: provider.Connection{URL: a.URL, Path: a.Path, Key: a.Key.Reveal(), Timeouts: a.Timeouts, Concurrency: a.Concurrency},
			caFile:     a.CAFile,
		},
		pace:     a.Settings,
		suppress: suppressed,
	}
}

// eventsKept is how long an event is known again where less history is kept:
// the provider may send it more than once.
const eventsKept = 3 * 24 * time.Hour

func aliasSettings(c *config.Config) config.Addresses { return c.Addresses }

// StoreURL is the URL of the store that a configuration names.
func StoreURL(c *config.Config) string {
	if c.Store.URL.IsSet() {
		return c.Store.URL.Reveal()
	}
	return store.SQLite(c.Queue.DataDir)
}

func queueOptions(c *config.Config) queue.Options { return c.Queue.Options }

func historyBounds(c *config.Config) history.Bounds { return c.History.Bounds }

func engineSettings(c *config.Config, account string) deliver.Settings {
	concurrency := accountOf(account)(c).pace.Concurrency
	return deliver.Settings{
		Mapping:  Mapping(c, account),
		Schedule: c.Delivery.Retry,
		// A quarter of the calls at once is left to fresh mail.
		Workers:  concurrency - concurrency/4,
		KeepSent: c.Queue.KeepSent,

		KeepFailed: c.Queue.KeepFailed,
		Bounce:     bounces(c, account),
		Bounces:    c.Bounce.Bounces,
	}
}

func intakeSettings(c *config.Config) intake.Settings {
	s := intake.Settings{Mapping: Mapping(c, ""), Bounce: bounces(c, ""), Wait: c.Delivery.Wait, Subjects: c.History.Subjects, Headers: c.KeptHeaders()}
	s.Archive = c.ArchiveBcc
	s.Choice, s.Others = choice(c), map[string]intake.AccountSettings{}
	for _, name := range accountNames(c)[1:] {
		s.Others[name] = intake.AccountSettings{Mapping: Mapping(c, name), Bounce: bounces(c, name)}
		if a := c.Account(name); a != nil {
			of := s.Others[name]
			of.Archive = a.ArchiveBcc
			s.Others[name] = of
		}
	}
	return s
}

func bounces(c *config.Config, account string) bounce.Options {
	o := bounce.Options{From: defaultSender(c, account), Hostname: c.Hostname}
	if c.Bounce.Postmaster != config.Nobody {
		o.Postmaster = c.Bounce.Postmaster
	}
	return o
}

func defaultSender(c *config.Config, account string) relay.Address {
	if a := c.Account(account); a != nil {
		return relay.Address{Email: a.Email, Name: a.EmailName}
	}
	return relay.Address{Email: c.Sender.Email, Name: c.Sender.Name}
}

// EventSettings are those of an account's endpoint for events.
func EventSettings(c *config.Config, account string) webhook.Settings {
	if account != "" {
		s := webhook.Settings{Path: strings.TrimSuffix(c.Webhook.Path, "/") + "/" + account}
		if a := c.Account(account); a != nil {
			s.Secrets = a.WebhookSecrets()
		}
		return s
	}
	return webhook.Settings{Secrets: c.Webhook.Secrets(), Path: c.Webhook.Path}
}

// webhookSettings are those of the endpoint for events.
func webhookSettings(c *config.Config) any {
	return []any{c.Webhook.Address, c.Webhook.CertFile, c.Webhook.KeyFile}
}

// smtpSettings are smtpd's Options as far as a configuration has them.
func smtpSettings(c *config.Config) smtpd.Options {
	return smtpd.Options{
		Hostname:      c.Hostname,
		Listeners:     c.Listeners,
		Limits:        c.Limits.Limits,
		Rules:         c.Rules,
		QualifyDomain: c.Addresses.QualifyDomain,
	}
}

// Mapping is how a configuration wants the mail of an account mapped; 'smtp2rest explain' uses
// it as well, so that it shows what the daemon would do.
func Mapping(c *config.Config, account string) provider.Mapping {
	o := mail.Options{
		Default:       defaultSender(c, account),
		Defaults:      defaultSenders(c.Users),
		Domains:       c.Sender.Domains,
		ForeignSender: c.Sender.Foreign,
		Attachments:   c.Mail.Attachments,
		Inline:        c.Mail.Inline,
		Redirect:      c.RedirectAll,
		Redirects:     redirects(c.Users),
		Sources:       sources(c.Mail.HeaderFields),
		UserValues:    userValues(c.Users),
	}
	if a := c.Account(account); a != nil {
		o.Domains, o.ForeignSender, o.Sources, o.OtherRedirect = a.Domains, a.Foreign, sources(a.Fields), a.RedirectAll
	}
	o.HeaderField, o.PassHeaders = c.Mail.Fields.HeaderField()
	return provider.Mapping{Options: o, Format: c.Mail.Fields}
}

// sources are the headers whose values go into fields.
func sources(pairs settings.Pairs) (list []mail.Source) {
	for _, one := range pairs {
		if target, err := mail.ParseTarget(one.Text); err == nil { // relay/config has checked it
			list = append(list, mail.Source{Header: one.Name, Target: target})
		}
	}
	return list
}

// userValues are the values that the mail of users has in fields.
func userValues(users []config.User) map[string][]mail.Value {
	values := map[string][]mail.Value{}
	for _, u := range users {
		if len(u.Fields) > 0 {
			values[u.Name] = mail.Values(u.Fields)
		}
	}
	return values
}

// defaultSenders are those of users who have their own.
func defaultSenders(users []config.User) map[string]relay.Address {
	senders := map[string]relay.Address{}
	for _, u := range users {
		if u.From != "" {
			senders[u.Name] = relay.Address{Email: u.From, Name: u.FromName}
		}
	}
	return senders
}

// redirects are the addresses that get the mail of users in place of its recipients.
func redirects(users []config.User) map[string]string {
	to := map[string]string{}
	for _, u := range users {
		if u.RedirectAll != "" {
			to[u.Name] = u.RedirectAll
		}
	}
	return to
}

// Registrar registers endpoints of an account with the provider.
func Registrar(c *config.Config, account string) (provider.Registrar, error) {
	to := accountOf(account)(c).client.Connection
	to.Path = c.Webhook.RegisterPath
	var err error
	to.ExtraCAs, err = ExtraCAs(c)
	return c.API.Vendor.Registrar(to), err
}

// ExtraCAs are the certificates that are trusted besides the system's.
func ExtraCAs(c *config.Config) ([]byte, error) { return readCAs(c.API.CAFile) }

func readCAs(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("api.ca_file: %w", err)
	}
	return pem, nil
}
