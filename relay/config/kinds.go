package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay/alias"
	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/policy"
)

// kinds returns the Value of settings whose type or check internal/settings does not
// know.
func kinds(field any, tag reflect.StructTag) settings.Value {
	check := tag.Get("check")
	switch p := field.(type) {
	case *string:
		switch check {
		case "":
			return nil
		case "hash":
			return hash{p, checkHash, "write a bcrypt hash in quotes; 'smtp2rest hash-password' makes one"}
		case "token hash":
			return hash{p, checkTokenHash, "write the hash of a token in quotes; 'smtp2rest token' makes both"}
		}
		if check == "hook url" {
			return hookURL{text{p, checkOf(check)}}
		}
		return text{p, checkOf(check)}
	case *[]string:
		switch check {
		case "domains":
			return domains{p}
		case "emails":
			return emails{p}
		case "event types":
			return list{p, checkEventType, `write a list of types, as in ["relay.failed", "provider.bounced.hard"]`}
		case "header names":
			return list{p, checkHeaderName, `write a list of names, as in ["X-Order-Id"]`}
		}
		return senders{p}
	case *Secret:
		if check == "store url" {
			return secret{p, checkStoreURL}
		}
		return secret{p: p}
	case *policy.List:
		return patterns{p}
	case *auth.Rate:
		return perTime{p}
	case *settings.Pairs:
		return fields{p, check == "header fields"}
	case *[]alias.Entry:
		return aliases{p}
	case *time.Time:
		return date{p}
	case *[]int:
		return caps{p}
	case *uint16:
		return tlsVersion{p}
	}
	return nil
}

// text is text with a check.
type text struct {
	p     *string
	check func(string) error
}

func (t text) Set(v any) error {
	s, ok := v.(string)
	if !ok {
		return settings.WrongType(v, `write text in quotes`)
	}
	if err := t.check(s); err != nil {
		return err
	}
	*t.p = s
	return nil
}

func (t text) Text() string { return settings.Quote(*t.p) }

// hookURL is an address of the operator's own, whose path and query may be a secret.
type hookURL struct{ text }

// Text is what may be shown: where it leads to, and whether there is more.
func (h hookURL) Text() string {
	u, err := url.Parse(*h.p)
	if err != nil || *h.p == "" {
		return settings.Quote("")
	}
	shown := u.Scheme + "://" + u.Host
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		shown += "/…"
	}
	return settings.Quote(shown)
}

// secret is a secret. The file cannot set it (see readSecrets), unless the text is one
// that need not be secret.
type secret struct {
	p     *Secret
	check func(string) error // nil: every text is secret
}

// errInFile is that of a secret in the file.
var errInFile = errors.New("secrets are not kept in this file")

func (s secret) Set(v any) error {
	if s.check == nil {
		return errInFile
	}
	text, ok := v.(string)
	if !ok {
		return errors.New("found something that is not text; write text in quotes")
	}
	if hasPassword(text) {
		return errInFile
	}
	if err := orEmpty(s.check)(text); err != nil {
		return err
	}
	*s.p = NewSecret(text)
	return nil
}

func (s secret) Text() string { return s.p.String() }

// hash is the hash of a password or of a token, which is never shown either.
type hash struct {
	p     *string
	check func(string) error
	want  string
}

func (h hash) Set(v any) error {
	s, ok := v.(string)
	if !ok {
		return errors.New(h.want)
	}
	if err := h.check(s); err != nil {
		return err
	}
	*h.p = s
	return nil
}

func (h hash) Text() string {
	if *h.p == "" {
		return "not set"
	}
	return "set"
}

type domains struct{ p *[]string }

func (d domains) Set(v any) error {
	list, err := settings.TextList(v, `write a list of domains, as in ["mail.example.com"]`)
	if err != nil {
		return err
	}
	for i, s := range list {
		if err := checkDomain(s); err != nil {
			return err
		}
		list[i] = strings.ToLower(s)
	}
	*d.p = list
	return nil
}

func (d domains) Text() string { return settings.QuoteList(*d.p) }

// list is a list of texts, each with a check.
type list struct {
	p     *[]string
	check func(string) error
	want  string
}

// maxList bounds a list.
const maxList = 20

func (l list) Set(v any) error {
	all, err := settings.TextList(v, l.want)
	if err != nil {
		return err
	}
	if len(all) > maxList {
		return fmt.Errorf("found %d; allowed are at most %d", len(all), maxList)
	}
	for _, s := range all {
		if err := l.check(s); err != nil {
			return err
		}
	}
	*l.p = all
	return nil
}

func (l list) Text() string { return settings.QuoteList(*l.p) }

// emails are addresses that get mail of ours.
type emails struct{ p *[]string }

// maxEmails bounds the recipients of a mail of ours.
const maxEmails = 20

func (e emails) Set(v any) error {
	list, err := settings.TextList(v, `write a list of addresses, as in ["ops@example.com"]`)
	if err != nil {
		return err
	}
	if len(list) > maxEmails {
		return fmt.Errorf("found %d addresses; allowed are at most %d", len(list), maxEmails)
	}
	for _, s := range list {
		if s == "" {
			return errors.New(`found ""; write an address, as in "ops@example.com"`)
		}
		if err := checkEmail(s); err != nil {
			return err
		}
	}
	*e.p = list
	return nil
}

func (e emails) Text() string { return settings.QuoteList(*e.p) }

// senders are addresses, or "@domain" for all of a domain.
type senders struct{ p *[]string }

func (u senders) Set(v any) error {
	list, err := settings.TextList(v, `write a list of addresses, as in ["alerts@mail.example.com"]`)
	if err != nil {
		return err
	}
	for _, s := range list {
		if s == "" {
			return errors.New(`found ""; write an address, or "@" and a domain`)
		}
		check := checkEmail
		if domain, ok := strings.CutPrefix(s, "@"); ok {
			s, check = domain, checkDomain
		}
		if err := check(s); err != nil {
			return err
		}
	}
	*u.p = list
	return nil
}

func (u senders) Text() string { return settings.QuoteList(*u.p) }

type patterns struct{ p *policy.List }

func (p patterns) Set(v any) error {
	entries, err := settings.TextList(v, `write a list of addresses, as in ["ann@example.com", "@example.net"]`)
	if err != nil {
		return err
	}
	list, err := policy.Parse(entries)
	if err == nil {
		*p.p = list
	}
	return err
}

func (p patterns) Text() string { return settings.QuoteList(p.p.Entries()) }

// perTime is "number/time"; "" is no limit.
type perTime struct{ p *auth.Rate }

func timeWords() map[string]time.Duration {
	return map[string]time.Duration{"minute": time.Minute, "hour": time.Hour, "day": settings.Day}
}

func (r perTime) Set(v any) error {
	const want = `write a number in a time in quotes, as in "600/hour"; the times are minute, hour and day`
	s, ok := v.(string)
	if !ok {
		return settings.WrongType(v, want)
	}
	if s == "" {
		*r.p = auth.Rate{}
		return nil
	}
	number, word, _ := strings.Cut(s, "/")
	n, err := strconv.Atoi(number)
	per, known := timeWords()[word]
	if err != nil || n < 1 || n > 10_000_000 || !known {
		return fmt.Errorf("found %s; %s", settings.Show(s), want)
	}
	*r.p = auth.Rate{Number: n, Per: per}
	return nil
}

func (r perTime) Text() string {
	for word, per := range timeWords() {
		if r.p.Number > 0 && per == r.p.Per {
			return settings.Quote(fmt.Sprintf("%d/%s", r.p.Number, word))
		}
	}
	return settings.Quote("")
}

type aliases struct{ p *[]alias.Entry }

func (a aliases) Set(given any) error {
	const want = `write a table of lists, as in root = ["ops@example.com"]`
	table, ok := given.(map[string]any)
	if !ok {
		return settings.WrongType(given, want)
	}
	var entries []alias.Entry
	for _, name := range slices.Sorted(maps.Keys(table)) {
		if one, ok := table[name].(string); ok {
			entries = append(entries, alias.Entry{Name: name, Targets: []string{one}})
			continue
		}
		targets, err := settings.TextList(table[name], want)
		if err != nil {
			return fmt.Errorf("%s: %w", settings.Show(name), err)
		}
		entries = append(entries, alias.Entry{Name: name, Targets: targets})
	}
	*a.p = entries
	return nil
}

func (a aliases) Text() string {
	list := make([]string, len(*a.p))
	for i, e := range *a.p {
		list[i] = settings.Quote(e.Name) + " = " + settings.QuoteList(e.Targets)
	}
	if len(list) == 0 {
		return "{}"
	}
	return "{ " + strings.Join(list, ", ") + " }"
}

type date struct{ p *time.Time }

// Set also accepts a TOML date without quotes, which the library returns as midnight
// in the local time zone. It refuses a time of day, because days are in UTC.
func (d date) Set(v any) error {
	const want = `write a date in quotes, as in "2026-12-01"`
	s, ok := v.(string)
	if at, isTime := v.(time.Time); isTime && at.Equal(time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, at.Location())) {
		s, ok = at.Format(time.DateOnly), true
	}
	if !ok {
		return settings.WrongType(v, want)
	}
	day, err := time.Parse(time.DateOnly, s)
	if err != nil || day.IsZero() {
		return fmt.Errorf("found %s; %s", settings.Show(s), want)
	}
	*d.p = day
	return nil
}

func (d date) Text() string { return settings.Quote(d.p.Format(time.DateOnly)) }

// caps are the numbers of mails that a new domain may send on its first days.
type caps struct{ p *[]int }

const maxCap = 1_000_000_000

func (c caps) Set(v any) error {
	const want = "write a list of whole numbers, as in [50, 100, 500]"
	list, ok := v.([]any)
	if !ok {
		return settings.WrongType(v, want)
	}
	caps := make([]int, len(list))
	for i, item := range list {
		n, ok := item.(int64)
		switch last := i > 0 && i == len(list)-1; {
		case !ok:
			return fmt.Errorf("item %d of the list is %s; %s", i+1, settings.KindOf(item), want)
		case n == 0 && last: // no cap from here on
		case n < 1 || n > maxCap:
			return fmt.Errorf("found %d; allowed is from 1 to %d, and 0 at the end", n, maxCap)
		case i > 0 && int(n) < caps[i-1]:
			return fmt.Errorf("found %d after %d; no day may send less than the one before", n, caps[i-1])
		}
		caps[i] = int(n)
	}
	*c.p = caps
	return nil
}

func (c caps) Text() string {
	list := make([]string, len(*c.p))
	for i, n := range *c.p {
		list[i] = strconv.Itoa(n)
	}
	return "[" + strings.Join(list, ", ") + "]"
}

type tlsVersion struct{ p *uint16 }

func tlsVersions() []string { return []string{"1.0", "1.1", "1.2", "1.3"} }

func (t tlsVersion) Set(v any) error {
	s, err := settings.OneOf(v, tlsVersions())
	if err == nil {
		*t.p = tls.VersionTLS10 + uint16(slices.Index(tlsVersions(), s))
	}
	return err
}

func (t tlsVersion) Text() string { return settings.Quote(tlsVersions()[*t.p-tls.VersionTLS10]) }
