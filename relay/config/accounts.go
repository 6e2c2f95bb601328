package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/warm"
)

// Account is a further account at the provider, besides that of [api]. What is not set
// is as in [api] and [sender]; Load fills it in.
type Account struct {
	Name string `toml:"name" check:"account name" restart:"an account has workers of its own, and mail that waits is its" example:"\"shop\"" doc:"The name, of small letters, digits and hyphens. It must be set. Mail that waits keeps it: 'smtp2rest queue reassign' moves mail of an account that is gone."`
	Key  Secret `toml:"key" env:"<PROVIDER>_API_KEY_<NAME>" credential:"<provider>_api_key_<name>" doc:"The account's API key. It is a secret and not set in the file."`
	// As written; what is in it is in Key.
	KeyFile        string            `toml:"key_file" check:"secret file" doc:"File that holds the account's API key and nothing else: a path that begins with /, or with ./ for the directory of this file."`
	URL            string            `toml:"url" usual:"api.url" check:"account url" example:"\"<url>\"" doc:"The base URL of the API."`
	Path           string            `toml:"path" usual:"api.path" check:"account path" example:"\"<path>\"" doc:"The path of the call that sends a mail, below url."`
	Timeout        time.Duration     `toml:"timeout" usual:"api.timeout" range:"1ms..5m" example:"\"10s\"" doc:"The longest time for a whole call."`
	ConnectTimeout time.Duration     `toml:"connect_timeout" usual:"api.connect_timeout" range:"1ms..5m" example:"\"5s\"" doc:"The longest time for connecting, which is part of timeout."`
	Concurrency    int               `toml:"concurrency" usual:"api.concurrency" range:"1..1000" example:"32" doc:"The most calls of the account at the same time."`
	Rate           float64           `toml:"rate" range:"0..100000" doc:"How many calls per second the account allows. 0: not known, the relay finds it out."`
	Burst          int               `toml:"burst" range:"0..100000" doc:"How many calls may be made at once after a pause. 0: a tenth of rate, at least 1."`
	Email          string            `toml:"email" usual:"sender.email" check:"email" example:"\"hello@shop.example.com\"" doc:"The sender of the account's mail whose own From is in none of its domains."`
	EmailName      string            `toml:"email_name" usual:"sender.name, if email is not set" example:"\"The shop\"" doc:"The name that goes with it."`
	Domains        []string          `toml:"domains" usual:"the domain of email; if that is not set, sender.domains" check:"domains" example:"[\"shop.example.com\"]" doc:"The domains that are verified with the account. Mail that is from them is the account's, if neither user nor listener say otherwise."`
	Foreign        mail.SenderPolicy `toml:"foreign" usual:"sender.foreign" words:"rewrite refuse" example:"\"rewrite\"" doc:"What becomes of the account's mail from other domains, as sender.foreign."`
	Fields         settings.Pairs    `toml:"fields" usual:"mail.fields" check:"header fields" example:"{ \"X-Tag\" = \"tags[]\" }" doc:"The JSON fields that take the values of headers in the account's mail, as mail.fields."`
	RedirectAll    string            `toml:"redirect_all" check:"email" doc:"The account's mail goes to this address in place of its recipients (docs/staging.md). \"\": to them."`
	ArchiveBcc     string            `toml:"archive_bcc" usual:"archive_bcc" check:"email" example:"\"\"" doc:"A copy of each of the account's mails goes to this address. \"\": none."`
	WebhookSecret  Secret            `toml:"webhook_secret" env:"WEBHOOK_SECRET_<NAME>" credential:"webhook_secret_<name>" doc:"What the provider signs the account's events with. It is a secret and not set in the file."`
	// As written; what is in it is in WebhookSecret.
	WebhookSecretFile string `toml:"webhook_secret_file" check:"secret file" doc:"File that holds this secret. The account's events come in at webhook.path with / and its name behind it."`
}

// maxAccounts bounds the accounts: each has workers, connections and metrics.
const maxAccounts = 100

func checkAccountName(s string) error {
	switch {
	case s == "":
		return errors.New(`found ""; write a name, as in "shop"`)
	case s == relay.DefaultAccount:
		return fmt.Errorf("found %q, which is the account of [api]; write another name", s)
	case s == "file" || strings.HasSuffix(s, "-file") || s == "previous":
		return fmt.Errorf("found %q, and the environment variable of its key or secret would be that of another file or secret; write another name", s)
	case len(s) > 32 || s[0] == '-' || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return fmt.Errorf("found %s; write at most 32 small letters, digits and hyphens, as in \"shop\"", settings.Show(s))
	}
	return nil
}

// WebhookSecrets are those with which the account's events may be signed.
func (a Account) WebhookSecrets() []string {
	if !a.WebhookSecret.IsSet() {
		return nil
	}
	return []string{a.WebhookSecret.Reveal()}
}

// accountAt returns the path of a setting of the i-th account.
func (l *loader) accountAt(i int, name string) string {
	return settings.Numbered("account", i, len(l.cfg.Accounts)) + "." + name
}

// inherit gives a setting of an account that is not set another value.
func inherit[T any](l *loader, i int, name string, to *T, from T) {
	if l.find(l.accountAt(i, name)).origin == "default" {
		*to = from
	}
}

// deriveAccounts comes after [api] and [sender] are complete.
func (l *loader) deriveAccounts() {
	c := l.cfg
	for i := range c.Accounts {
		a := &c.Accounts[i]
		inherit(l, i, "url", &a.URL, c.API.URL)
		inherit(l, i, "path", &a.Path, c.API.Path)
		inherit(l, i, "timeout", &a.Timeout, c.API.Timeout)
		inherit(l, i, "connect_timeout", &a.ConnectTimeout, min(c.API.ConnectTimeout, a.Timeout))
		inherit(l, i, "concurrency", &a.Concurrency, c.API.Concurrency)
		inherit(l, i, "foreign", &a.Foreign, c.Sender.Foreign)
		inherit(l, i, "archive_bcc", &a.ArchiveBcc, c.ArchiveBcc)
		inherit(l, i, "fields", &a.Fields, c.Mail.HeaderFields)
		a.URL = strings.TrimRight(a.URL, "/")
		if a.Burst == 0 {
			a.Burst = max(1, int(a.Rate/10))
		}
		own := a.Email != ""
		if !own {
			a.Email = c.Sender.Email
			inherit(l, i, "email_name", &a.EmailName, c.Sender.Name)
		}
		switch {
		case len(a.Domains) > 0:
		case own:
			a.Domains = []string{domainOf(a.Email)}
		default:
			a.Domains = c.Sender.Domains
		}
	}
}

// Account returns the account of that name, or nil.
func (c *Config) Account(name string) *Account {
	for i := range c.Accounts {
		if c.Accounts[i].Name == name {
			return &c.Accounts[i]
		}
	}
	return nil
}

// AccountDomains returns whose mail from a domain is: the account that names it in
// domains, or whose email is in it. Those that several have are [sender]'s.
func (c *Config) AccountDomains() map[string]string {
	of := map[string]string{}
	for i := range c.Accounts {
		for _, domain := range c.Accounts[i].Domains {
			if !slices.Contains(c.Sender.Domains, domain) {
				of[domain] = c.Accounts[i].Name
			}
		}
	}
	return of
}

// WarmingOf returns the plans of an account, those that are its alone first; "" is the
// default account.
func (c *Config) WarmingOf(account string) []warm.Plan {
	var own, shared []warm.Plan
	for _, p := range c.Warming {
		switch p.Account {
		case relay.AccountName(account):
			own = append(own, p)
		case "":
			shared = append(shared, p)
		}
	}
	return append(own, shared...)
}

func (l *loader) validateAccounts() {
	all := l.cfg.Accounts
	if len(all) > maxAccounts {
		l.problem("account", "there are %d accounts, and %d at most", len(all), maxAccounts)
		return
	}
	for i := range all {
		l.validateAccount(i)
	}
	l.warnOfSharedKeys()
	known := func(path, name string) {
		if name != "" && name != relay.DefaultAccount && l.cfg.Account(name) == nil {
			l.problem(path, "found %s, and there is no [[account]] of that name", settings.Show(name))
		}
	}
	for i, u := range l.cfg.Users[:l.cfg.tableUsers] {
		known(settings.Numbered("user", i, l.cfg.tableUsers)+".account", u.Account)
	}
	for i, one := range l.cfg.Listeners {
		known(settings.Numbered("listener", i, len(l.cfg.Listeners))+".account", one.Account)
	}
	for i, one := range l.cfg.Warming {
		known(settings.Numbered("warming", i, len(l.cfg.Warming))+".account", one.Account)
	}
}

// warnOfSharedKeys warns of accounts that are one to the provider. The key itself is not
// shown.
func (l *loader) warnOfSharedKeys() {
	whose := map[string]string{}
	if key := l.cfg.API.Key; key.IsSet() {
		whose[key.Reveal()] = "[api]"
	}
	for _, a := range l.cfg.Accounts {
		if !a.Key.IsSet() {
			continue
		}
		if other, shared := whose[a.Key.Reveal()]; shared {
			l.warn("account %s: its API key is that of %s as well: to the provider they are one account with one rate, and here each is paced by itself; give each its own key", settings.Quote(a.Name), other)
			continue
		}
		whose[a.Key.Reveal()] = "account " + settings.Quote(a.Name)
	}
}

func (l *loader) validateAccount(i int) {
	a := l.cfg.Accounts[i]
	path := func(name string) string { return l.accountAt(i, name) }
	switch {
	case l.bad[path("name")]:
		return
	case a.Name == "":
		l.problem(path("name"), `is not set; write the name of the account, as in "shop"`)
		return
	}
	for _, earlier := range l.cfg.Accounts[:i] {
		if earlier.Name == a.Name {
			l.problem(path("name"), "found %s, which another account has already", settings.Show(a.Name))
			return
		}
	}
	l.validateURL(path("url"), a.URL)
	if a.ConnectTimeout > a.Timeout {
		l.problem(path("connect_timeout"), "found %s, longer than the account's timeout (%s), of which it is a part",
			settings.Quote(settings.FormatDuration(a.ConnectTimeout)), settings.Quote(settings.FormatDuration(a.Timeout)))
	}
	if a.Email != "" && !l.bad[path("domains")] && !slices.Contains(a.Domains, domainOf(a.Email)) {
		l.problem(path("email"), "the sender of this account, %s, is in none of its domains; set email to an address in one of them", settings.Show(a.Email))
	}
	l.validateAccountDomains(i)
	if (l.src.NeedAPI || l.src.NeedKey) && !a.Key.IsSet() && !l.secretRefused(l.secretAt(path("key"))) {
		l.problem(path("key"), "is not set; %s", l.ways(l.secretAt(path("key"))))
	}
}

// validateAccountDomains refuses a domain that two accounts name: whose its mail is
// would be chance. A sender in a domain of [sender] names none.
func (l *loader) validateAccountDomains(i int) {
	named := func(n int) bool {
		return l.find(l.accountAt(n, "domains")).origin == "file"
	}
	path, whose := l.accountAt(i, "domains"), map[string]string{}
	if l.bad[path] {
		return
	}
	for _, domain := range l.cfg.Sender.Domains {
		whose[domain] = "[sender]"
	}
	if !named(i) {
		clear(whose)
		path = l.accountAt(i, "email")
	}
	for n, earlier := range l.cfg.Accounts[:i] {
		for _, domain := range earlier.Domains {
			if named(n) || !slices.Contains(l.cfg.Sender.Domains, domain) {
				whose[domain] = "account " + settings.Quote(earlier.Name)
			}
		}
	}
	for _, domain := range l.cfg.Accounts[i].Domains {
		if other := whose[domain]; other != "" {
			l.problem(path, "found %s, which %s has already: whose mail from it is must be clear; keep it in one of them, and give users or listeners their account by name", settings.Quote(domain), other)
		}
	}
}
