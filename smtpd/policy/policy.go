// Package policy decides which addresses may be used, by lists of addresses, domains
// and patterns that an operator wrote. smtpd asks it at MAIL and RCPT, relay/intake at
// the end of DATA for the author that the mail itself names.
package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// Null is how a list names the null sender, MAIL FROM:<>.
const Null = "<>"

// A List matches some addresses. The zero List matches none.
type List []pattern

// pattern is one entry of a list, in lower case. Local part and domain are compared
// separately, so that no * matches across the @.
type pattern struct {
	entry         string // as written
	local, domain string
	below         bool // the domain, and all below it
	null          bool
}

// Parse reads a list. Its error says what is wrong with an entry and what may be
// written instead.
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

// Entries returns the list as it was written.
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

// isDomainPattern accepts the characters of a domain or an address literal, in the
// ASCII form in which domains are compared, and *.
func isDomainPattern(s string) bool {
	other := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("*.-_[]:", r))
	}
	return s != "" && s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..") && !strings.ContainsFunc(s, other)
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// Has reports whether the list matches an address; "" is the null sender. Upper and
// lower case are the same, and so are all spellings of a domain or a local part. An
// address whose domain other programs may read as another one matches no domain.
func (l List) Has(address string) bool { return l.find(address, false) }

// mayHave is Has, except that such an address matches every domain.
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

// unquoted returns the one spelling of a local part in which they are compared:
// "a.b" with quotes is a.b, and an ë of two code points is the one (RFC 6532 section
// 3.1).
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

// matches compares with a pattern in which * stands for any characters, or none. At
// worst its time is proportional to the product of the lengths.
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
		// The first match leaves the most for the rest of the pattern.
		i := strings.Index(s, piece)
		if i < 0 {
			return false
		}
		s, rest = s[i+len(piece):], after
	}
}

// A Rule permits the addresses in Allow, or all if Allow is empty, except those in
// Deny.
type Rule struct{ Allow, Deny List }

// Permits reports whether an address may be used.
func (r Rule) Permits(address string) bool {
	return !r.Deny.mayHave(address) && (len(r.Allow) == 0 || r.Allow.Has(address))
}

// Rules are the rules for everybody, for the clients of one listener, or for one user.
// Senders are those of MAIL FROM, recipients those of RCPT TO; From is the author that
// the mail itself names. internal/settings explains the tags.
type Rules struct {
	AllowSenders    List `toml:"allow_senders" doc:"If there are any, only these may be in MAIL FROM."`
	DenySenders     List `toml:"deny_senders" doc:"These may not be in MAIL FROM."`
	AllowFrom       List `toml:"allow_from" doc:"If there are any, only these may be in the From of a mail."`
	DenyFrom        List `toml:"deny_from" doc:"These may not be in the From of a mail."`
	AllowRecipients List `toml:"allow_recipients" doc:"If there are any, mail may only go to these, as RCPT names them."`
	DenyRecipients  List `toml:"deny_recipients" doc:"Mail may not go to these."`
}

// of returns the rule for one part of a mail.
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

// A Chain is all the rules that bind one client. Each of them has to permit an address.
type Chain []Rules

// Part is the part of a mail in which an address stands.
type Part int

// The parts that have rules.
const (
	Sender Part = iota
	Author
	Recipient
)

// Broken finds the first rule that does not permit an address. level is its index in
// the chain. allow says that the rule has an Allow list without the address, rather than
// a Deny list with it. broken is false if all rules permit the address.
func (c Chain) Broken(part Part, address string) (level int, allow, broken bool) {
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

// Permits reports whether all rules permit an address.
func (c Chain) Permits(part Part, address string) bool {
	_, _, broken := c.Broken(part, address)
	return !broken
}

// Domain returns the form in which domains are compared: lower case, without the
// root's dot, and in ASCII (RFC 5890). Labels need not be those of a host name:
// companies have underscores in theirs.
//
// sure is false for a name that other programs may read as another one, such as one
// with letters that IDNA does not allow. A rule that denies domains has to deny such a
// name, and a rule that allows some must not allow it.
func Domain(name string) (form string, sure bool) {
	name = strings.TrimRight(name, ".")
	lower := lowerASCII(name)
	switch {
	case isASCII(name) && strings.HasPrefix(name, "["):
		return literal(lower), true
	case isASCII(name) && !strings.Contains(lower, "xn--"):
		return lower, true
	}
	ascii, err := international().ToASCII(name)
	ascii = strings.TrimRight(ascii, ".") // of a full stop in another script
	switch {
	case isASCII(name): // DNS looks up this very name, whatever it decodes to
		return lower, err == nil && ascii == lower
	case err != nil || !isASCII(ascii) || !utf8.ValidString(name):
		return lower, false
	}
	return ascii, true
}

// international is idna.Lookup without the checks of host names.
func international() *idna.Profile {
	return idna.New(
		idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false), idna.VerifyDNSLength(true),
		idna.StrictDomainName(false), idna.CheckHyphens(false))
}

// literal returns the form of an address literal (RFC 5321 section 4.1.3) in which they
// are compared. Anything else in brackets stays as it is.
func literal(s string) string {
	inside, closed := strings.CutSuffix(strings.TrimPrefix(s, "["), "]")
	addr, err := netip.ParseAddr(strings.TrimPrefix(inside, "ipv6:"))
	switch {
	case !closed || err != nil || addr.Zone() != "":
		return s
	case addr.Unmap().Is4():
		return "[" + addr.Unmap().String() + "]"
	}
	return "[ipv6:" + addr.String() + "]"
}

// lowerASCII leaves letters beyond ASCII: a doubtful name must not change.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}
