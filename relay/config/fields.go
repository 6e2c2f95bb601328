package config

import (
	"fmt"
	"unicode/utf8"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay/mail"
)

// fields say where in the API's JSON the values of headers go; or, without headers, which
// values fields have.
type fields struct {
	p       *settings.Pairs
	headers bool
}

func (f fields) Set(v any) error {
	want := `write the values of fields, as in { "tags[]" = "shop" }`
	if f.headers {
		want = `write the fields of headers, as in { "X-Tag" = "tags[]" }`
	}
	pairs, err := settings.ParsePairs(v, want)
	if err != nil {
		return err
	}
	const most = 50
	if len(pairs) > most {
		return fmt.Errorf("found %d; %d are allowed", len(pairs), most)
	}
	for _, one := range pairs {
		if err := f.check(one); err != nil {
			return fmt.Errorf("found %s = %s; %w", settings.Show(one.Name), settings.Show(one.Text), err)
		}
	}
	*f.p = pairs
	return nil
}

func (f fields) check(one settings.Pair) error {
	target := one.Name
	if f.headers {
		target = one.Text
		if err := mail.CheckSource(one.Name); err != nil {
			return err
		}
	} else {
		if err := settings.CheckText(one.Text); err != nil {
			return err
		}
		const most = 500
		if one.Text == "" || len(one.Text) > most || !utf8.ValidString(one.Text) {
			return fmt.Errorf("write a value of 1 to %d bytes in UTF-8", most)
		}
	}
	_, err := mail.ParseTarget(target)
	return err
}

func (f fields) Text() string { return f.p.String() }

// validateFields has the vendor check its own settings, and fills in mail.inline.
func (l *loader) validateFields() {
	m := &l.cfg.Mail
	if m.Inline == "" {
		m.Inline = mail.StripAttachments
		if m.Attachments == mail.SendAttachments {
			m.Inline = mail.SendAttachments
		}
	}
	attachments := m.Attachments == mail.SendAttachments || m.Inline == mail.SendAttachments
	taken := m.Fields.Check(attachments, func(setting, found, wrong string) {
		l.problem("mail."+setting, "found %s, %s", settings.Quote(found), wrong)
	})
	l.validatePayloadFields(taken)
}

// payloadFields are the fields that the settings named so far use, and where.
type payloadFields struct {
	loader *loader
	taken  map[string]string // those of others
	header string            // the object of headers
	kinds  map[string]mail.Target
	once   map[string]string // texts that one header gives
}

// validatePayloadFields finds fields that are a text here and a list there, or that two
// headers give. taken are those that others have.
func (l *loader) validatePayloadFields(taken map[string]string) {
	headers, _ := l.cfg.Mail.Fields.HeaderField()
	p := payloadFields{loader: l, taken: taken, header: headers, kinds: map[string]mail.Target{}}
	p.headers("mail.fields", l.cfg.Mail.HeaderFields)
	for i, a := range l.cfg.Accounts {
		if path := l.accountAt(i, "fields"); l.find(path).origin == "file" {
			p.headers(path, a.Fields)
		}
	}
	tables := l.cfg.Users[:l.cfg.tableUsers]
	for i, u := range tables {
		p.values(settings.Numbered("user", i, len(tables))+".fields", u.Fields)
	}
	for i, one := range l.cfg.Listeners {
		p.values(settings.Numbered("listener", i, len(l.cfg.Listeners))+".fields", one.Fields)
	}
}

func (p *payloadFields) headers(path string, pairs settings.Pairs) {
	p.once = map[string]string{}
	for _, one := range pairs {
		t, _ := mail.ParseTarget(one.Text) // was checked
		if !p.take(path, t) || t.List || t.Name == p.header && t.Key == "" {
			continue
		}
		if other := p.once[t.String()]; other != "" {
			p.loader.problem(path, "found %s twice, of %s and of %s: a mail may have both; write a list, as in \"tags[]\", or another field", settings.Quote(t.String()), other, one.Name)
		}
		p.once[t.String()] = one.Name
	}
}

func (p *payloadFields) values(path string, pairs settings.Pairs) {
	for _, one := range pairs {
		t, _ := mail.ParseTarget(one.Name) // was checked
		if t.Name == p.header && t.Key == "" {
			p.loader.problem(path, "found %s, an object of headers; write which one, as in %s", settings.Quote(t.String()), settings.Quote(t.Name+".X-Tag"))
			continue
		}
		p.take(path, t)
	}
}

// take reports whether a field can be what a setting makes it.
func (p *payloadFields) take(path string, t mail.Target) bool {
	if other := p.taken[t.Name]; other != "" {
		p.loader.problem(path, "found %s, a field that %s has already", settings.Quote(t.Name), other)
		return false
	}
	if t.Name == p.header && t.List {
		p.loader.problem(path, "found %s, and %s is an object of headers; write another field", settings.Quote(t.String()), settings.Quote(p.header))
		return false
	}
	earlier, there := p.kinds[t.Name]
	if t.Name != p.header && there && (earlier.List != t.List || (earlier.Key == "") != (t.Key == "")) {
		p.loader.problem(path, "found %s, and elsewhere the same field as %s: it is a text, a list or an object, and no two of them", settings.Quote(t.String()), settings.Quote(earlier.String()))
		return false
	}
	p.kinds[t.Name] = t
	return true
}
