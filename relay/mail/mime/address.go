package mime

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// Address is a mailbox in a header. Email is "" for a name without an address; it may lack
// a domain.
type Address struct {
	Name, Email string
}

// maxLocal is the longest local part (RFC 5321 section 4.5.3.1.1).
const maxLocal = 64

// maxAddresses bounds the addresses that are read from one field.
const maxAddresses = 200

// maxMailboxes bounds the mailboxes that are examined for them, empty ones included.
const maxMailboxes = 10_000

// Addresses reads an address field in any shape, in order, and includes the members of
// groups. net/mail, and so go-message, refuses the whole field for one unquoted comma, dot,
// bracket or non-ASCII byte. People can read such addresses all the same.
func (d *Decoder) Addresses(v []byte, hint string) []Address {
	p := addressParser{decoder: d, rest: Unfold(v), hint: hint}
	for len(p.rest) > 0 && len(p.list) < maxAddresses && p.mailboxes < maxMailboxes {
		p.next()
	}
	p.flush()
	return p.list
}

// addressParser splits a field at commas and semicolons outside quotes, comments and angle
// brackets. Pieces without an address belong to the name of the angle address after them,
// as in `Doe, John <john@example.com>`.
type addressParser struct {
	decoder *Decoder
	rest    []byte
	hint    string
	list    []Address
	phrase  []byte // the words of the current mailbox
	comment []byte
	angle   []byte
	quoted  bool // phrase holds a quoted string
	hasAddr bool // an angle address was seen
	hasAt   bool // phrase holds an "@"

	mailboxes int  // so far
	unclosed  bool // there is no ">" in rest
}

func (p *addressParser) next() {
	c := p.rest[0]
	switch c {
	case '"':
		p.quote()
	case '(':
		after := skipComment(p.rest)
		inner := bytes.TrimSuffix(p.rest[1:len(p.rest)-len(after)], []byte(")"))
		if len(p.comment) == 0 {
			p.comment = inner
		}
		p.rest = after
	case '<':
		p.angleAddr()
	case ',', ';':
		p.separator()
	case ':':
		p.colon()
	case '\\':
		p.rest = p.rest[1:]
		if len(p.rest) > 0 {
			p.add(p.rest[:1])
			p.rest = p.rest[1:]
		}
	case '=':
		if _, n := cutWord(p.rest); n > 0 {
			// A comma inside an encoded word is no separator.
			p.add(p.rest[:n])
			p.rest = p.rest[n:]
			near := p.rest[:min(len(p.rest), maxLocal+1)]
			if i := bytes.IndexAny(near, "@,;<\"( \t"); i > 0 && near[i] == '@' {
				p.phrase = append(p.phrase, ' ') // `=?utf-8?q?Ann?=ann@example.com`
			}
			return
		}
		fallthrough
	default:
		p.add(p.rest[:1])
		p.rest = p.rest[1:]
	}
}

// add appends to the words of the mailbox, without leading blanks.
func (p *addressParser) add(words []byte) {
	if len(p.phrase) == 0 {
		words = bytes.TrimLeft(words, " \t")
	}
	p.hasAt = p.hasAt || looksLikeEmail(words)
	p.phrase = append(p.phrase, words...)
}

// quote reads a quoted string: a name, or a local part if "@" follows.
func (p *addressParser) quote() {
	value, rest := quotedString(p.rest)
	if len(rest) > 0 && rest[0] == '@' {
		p.add(p.rest[:len(p.rest)-len(rest)])
	} else {
		p.add(value)
		p.quoted = true
	}
	p.rest = rest
}

func (p *addressParser) angleAddr() {
	end := -1
	if !p.unclosed {
		end = bytes.IndexByte(p.rest, '>')
		p.unclosed = end < 0
	}
	if end < 0 {
		end = bytes.IndexAny(p.rest, ",; ")
		if end < 0 {
			end = len(p.rest)
		}
	}
	inner := bytes.TrimSpace(bytes.TrimLeft(p.rest[:end], "< "))
	p.rest = bytes.TrimLeft(p.rest[min(end, len(p.rest)):], ">")
	if i := bytes.LastIndexByte(inner, ':'); i >= 0 && bytes.HasPrefix(inner, []byte("@")) {
		inner = inner[i+1:] // RFC 5322 section 4.4: an obsolete route
	}
	if !p.hasAddr || len(p.angle) == 0 {
		p.angle, p.hasAddr = inner, true
	}
}

func (p *addressParser) separator() {
	c := p.rest[0]
	p.rest = p.rest[1:]
	if !p.hasAddr && c == ',' && !p.hasAt && p.angleFollows() {
		p.add([]byte{c})
		return
	}
	p.flush()
}

// angleFollows reports whether the next mailbox is a name with an angle address. If so,
// the text before the comma belongs to that name.
func (p *addressParser) angleFollows() bool {
	if p.quoted || len(bytes.TrimSpace(p.phrase)) == 0 {
		return false
	}
	next := p.rest[:min(len(p.rest), 200)]
	i := bytes.IndexAny(next, "<,;\"")
	return i >= 0 && next[i] == '<' && !looksLikeEmail(next[:i])
}

// colon ends the name of a group, or is part of "mailto:".
func (p *addressParser) colon() {
	p.rest = p.rest[1:]
	if p.hasAddr || p.hasAt || bytes.HasPrefix(p.phrase, []byte("[")) {
		p.add([]byte{':'})
		return
	}
	p.reset()
}

func (p *addressParser) reset() {
	p.phrase, p.comment, p.angle, p.quoted, p.hasAddr, p.hasAt = nil, nil, nil, false, false, false
}

// flush ends the current mailbox.
func (p *addressParser) flush() {
	p.mailboxes++
	phrase := bytes.TrimSpace(p.phrase)
	a := Address{}
	switch {
	case p.hasAddr && len(p.angle) > 0:
		a.Email = email(p.angle)
		a.Name = p.name(phrase)
		if a.Email == "" {
			inside := p.bare(p.angle) // `<ann@example.com Ann>`
			a.Email, a.Name = inside.Email, strings.TrimSpace(a.Name+" "+inside.Name)
		}
	case looksLikeEmail(phrase):
		a = p.bare(phrase)
	default:
		a.Name = p.name(phrase)
		if comment := p.decoder.Words(p.comment, p.hint); comment != "" && !p.quoted && isLocal(a.Name) {
			a = Address{Email: a.Name, Name: comment} // cron's `root (Cron Daemon)`
		}
	}
	if strings.EqualFold(a.Name, a.Email) {
		a.Name = "" // it says nothing more
	}
	if a.Email != "" || a.Name != "" {
		p.list = append(p.list, a)
	}
	p.reset()
}

// bare reads an address without angle brackets among other words.
func (p *addressParser) bare(phrase []byte) Address {
	var words [][]byte
	a := Address{}
	if phrase[0] == '"' {
		a.Email = email(phrase) // a quoted local part may hold blanks
	}
	if a.Email == "" {
		for _, w := range bytes.Fields(phrase) {
			if e := email(w); e != "" && a.Email == "" && bytes.IndexByte(w, '@') > 0 {
				a.Email = e
			} else {
				words = append(words, w)
			}
		}
	}
	a.Name = p.name(bytes.Join(words, []byte(" ")))
	return a
}

// name decodes a display name. If there is none, the comment is the name, in the way of
// RFC 822: `root@host (Cron Daemon)`.
func (p *addressParser) name(phrase []byte) string {
	if len(phrase) == 0 {
		phrase = p.comment
	}
	name := p.decoder.Words(phrase, p.hint)
	name = strings.TrimSpace(strings.Trim(name, `"`))
	if len(name) >= 2 && name[0] == '\'' && name[len(name)-1] == '\'' {
		name = name[1 : len(name)-1] // Outlook's quotes around quotes
	}
	return strings.Join(strings.Fields(name), " ")
}

// looksLikeEmail reports whether words have an address. An address inside an encoded word
// does not count (RFC 2047 section 5): whoever checked the header before would not see it.
func looksLikeEmail(b []byte) bool { return bytes.IndexByte(b, '@') >= 0 }

// isLocal reports whether a word can be the name of a local user, as in `From: root`.
func isLocal(s string) bool {
	for i := range len(s) {
		if !nameByte(s[i]) && s[i] != '+' {
			return false
		}
	}
	return s != ""
}

// email cleans an address. It returns "" for what cannot be one: an address may lack a
// domain, but has no blank, control character or bracket.
func email(b []byte) string {
	s := strings.Trim(uncomment(b), " \t'<>,;.")
	if len(s) > 7 && strings.EqualFold(s[:7], "mailto:") {
		s = s[7:]
	}
	if len(s) > 320 || !utf8.ValidString(s) {
		return ""
	}
	at := strings.LastIndexByte(s, '@')
	local, domain := s, ""
	if at >= 0 {
		local, domain = s[:at], s[at+1:]
		if domain == "" || strings.HasPrefix(domain, ".") || strings.Contains(domain, "..") {
			return ""
		}
	}
	if len(local) > 2 && local[0] == '"' && local[len(local)-1] == '"' {
		local = "" // a quoted local part may have anything except control characters
	} else if local == "" {
		return ""
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7F && r < 0xA0 || r == '\u2028' || r == '\u2029' }) ||
		strings.Contains(local, "=?") || strings.ContainsAny(local, " <>()[]:;@,\\\"") || strings.ContainsAny(domain, " <>();@,\\\"/") {
		return ""
	}
	return s
}

// uncomment removes comments, and blanks around dots and the "@", which RFC 5322 section
// 4.4 still allows.
func uncomment(b []byte) string {
	if len(b) > 0 && b[0] == '"' || bytes.IndexByte(b, '@') < 0 {
		return string(b)
	}
	if bytes.IndexByte(b, '(') >= 0 {
		var out []byte
		for len(b) > 0 {
			i := bytes.IndexByte(b, '(')
			if i < 0 {
				break
			}
			out = append(out, b[:i]...)
			b = skipComment(b[i:])
		}
		b = append(out, b...)
	}
	s := string(b)
	for _, c := range []string{"@", "."} {
		if strings.Contains(s, " "+c) || strings.Contains(s, c+" ") {
			parts := strings.Split(s, c)
			for i := range parts {
				parts[i] = strings.TrimSpace(parts[i])
			}
			s = strings.Join(parts, c)
		}
	}
	return s
}
