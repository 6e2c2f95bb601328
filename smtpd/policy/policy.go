// Package policy decides which addresses may be used, by lists of addresses,
// domains and patterns that an operator wrote. It is pure: smtpd asks it at
// MAIL and RCPT, relay/intake at the end of DATA for the author that the mail
// itself names.
package policy

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// Null is how a list names the null sender, MAIL FROM:<>.
const Null = "<>"

// A List is some addresses. The zero List is empty.
type List []pattern

// pattern is one entry of a list, in lower case. Local part and domain are
// compared apart, so that no * reaches over the @ between them.
type pattern struct {
	entry         string // as written
	local, domain string
	below         bool // the domain, and all below it
	null          bool
}

// Parse reads a list. The error says what is wrong with an entry and what may
// be written.
func Parse(entries []string) (List, error) {
	list := make(List, len(entries))
	for i, entry := range entries {
		p, err := parse(entry)
		if err != nil {
			return nil, err
		}
		p.entry = entry
		list[i] = p
	}
	return list, nil
}

// Entries is the list as it was written.
func (l List) Entries() []string {
	entries := make([]string, len(l))
	for i, p := range l {
		entries[i] = p.entry
	}
	return entries
}

var errForms = errors.New(`write an address, "@example.com" for a domain, "@.example.com" for it and all below it, or either with * for any characters`)

func parse(entry string) (pattern, error) {
	if entry == Null {
		return pattern{null: true}, nil
	}
	if entry == "*" {
		return pattern{local: "*", domain: "*"}, nil
	}
	at := strings.LastIndexByte(entry, '@')
	if at < 0 {
		return pattern{}, fmt.Errorf("found %q; %w", entry, errForms)
	}
	p := pattern{local: unquoted(entry[:at]), domain: strings.ToLower(entry[at+1:])}
	if p.local == "" {
		p.local = "*"
		p.domain, p.below = strings.CutPrefix(p.domain, ".")
	}
	if strings.HasPrefix(p.domain, "[") {
		p.domain = literal(p.domain)
	}
	if !isDomainPattern(p.domain) || strings.ContainsFunc(p.local, isControl) {
		return pattern{}, fmt.Errorf("found %q; %w", entry, errForms)
	}
	return p, nil
}

// isDomainPattern takes what a domain or an address literal can have in it, in
// the ASCII form in which domains are compared.
func isDomainPattern(s string) bool {
	other := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("*.-_[]:", r))
	}
	return s != "" && s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..") && !strings.ContainsFunc(s, other)
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// Has reports whether an address is in the list; "" is the null sender. Case
// never counts, nor does how a domain or a local part is spelt. An address
// whose domain may be read as another one is in no list of domains.
func (l List) Has(address string) bool { return l.find(address, false) }

// mayHave is Has with the doubt against the address.
func (l List) mayHave(address string) bool { return l.find(address, true) }

func (l List) find(address string, doubtful bool) bool {
	local, domain, sure := address, "", true
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		local = address[:at]
		domain, sure = Domain(address[at+1:])
	}
	local = unquoted(local)
	for _, p := range l {
		switch {
		case p.null || address == "":
			if p.null && address == "" {
				return true
			}
		case !matches(p.local, local):
		case !sure && p.domain != "*":
			if doubtful {
				return true
			}
		case matches(p.domain, domain), p.below && matches("*."+p.domain, domain):
			return true
		}
	}
	return false
}

// unquoted is a local part as it is meant: "a.b" with quotes is a.b, and an ë is
// one letter or two (RFC 6532 section 3.1).
func unquoted(local string) string {
	local = norm.NFC.String(strings.ToLower(local))
	if len(local) < 2 || local[0] != '"' || local[len(local)-1] != '"' {
		return local
	}
	var b strings.Builder
	for i := 1; i < len(local)-1; i++ {
		if local[i] == '\\' && i < len(local)-2 {
			i++
		}
		b.WriteByte(local[i])
	}
	return b.String()
}

// matches compares with a pattern in which * stands for any characters, or
// none. It takes time in proportion to the product of the lengths at worst.
func matches(pattern, s string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, first)
	if !ok {
		return false
	}
	for {
		piece, after, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(s, piece)
		}
		// The earliest place leaves the most to what follows.
		i := strings.Index(s, piece)
		if i < 0 {
			return false
		}
		s, rest = s[i+len(piece):], after
	}
}

// A Rule says which addresses may be used: none that is denied, and only those
// that are allowed, if any are.
type Rule struct{ Allow, Deny List }

// Permits reports whether an address may be used.
func (r Rule) Permits(address string) bool {
	return !r.Deny.mayHave(address) && (len(r.Allow) == 0 || r.Allow.Has(address))
}

// Rules are those of one place: of everything, of a listener, of a user. Senders
// are those of MAIL FROM, recipients those of RCPT TO; From is the author that the
// mail itself names. internal/settings explains the tags.
type Rules struct {
	AllowSenders    List `toml:"allow_senders" doc:"If there are any, only these may be in MAIL FROM."`
	DenySenders     List `toml:"deny_senders" doc:"These may not be in MAIL FROM."`
	AllowFrom       List `toml:"allow_from" doc:"If there are any, only these may be in the From of a mail."`
	DenyFrom        List `toml:"deny_from" doc:"These may not be in the From of a mail."`
	AllowRecipients List `toml:"allow_recipients" doc:"If there are any, mail may only go to these, as RCPT names them."`
	DenyRecipients  List `toml:"deny_recipients" doc:"Mail may not go to these."`
}

// of is the rule for one part of a mail.
func (r Rules) of(p Part) Rule {
	switch p {
	case Sender:
		return Rule{r.AllowSenders, r.DenySenders}
	case Author:
		return Rule{r.AllowFrom, r.DenyFrom}
	default:
		return Rule{r.AllowRecipients, r.DenyRecipients}
	}
}

// A Chain is all the rules that bind one client. Each has to permit an address.
type Chain []Rules

// Part is what of a mail an address is.
type Part int

// The parts that there are rules for.
const (
	Sender Part = iota
	Author
	Recipient
)

// Broken is the first of the rules that does not permit an address: in which
// place of the chain it is, and whether it is one that allows others. It is
// false when all permit it.
func (c Chain) Broken(part Part, address string) (place int, allow, broken bool) {
	for i, r := range c {
		rule := r.of(part)
		switch {
		case rule.Deny.mayHave(address):
			return i, false, true
		case !rule.Permits(address):
			return i, true, true
		}
	}
	return 0, false, false
}

// Sender reports whether an address may be in MAIL FROM; "" is the null sender.
func (c Chain) Sender(address string) bool { return c.permits(Sender, address) }

// From reports whether an address may be the author of a mail.
func (c Chain) From(address string) bool { return c.permits(Author, address) }

// Recipient reports whether an address may be in RCPT TO.
func (c Chain) Recipient(address string) bool { return c.permits(Recipient, address) }

func (c Chain) permits(part Part, address string) bool {
	_, _, broken := c.Broken(part, address)
	return !broken
}
