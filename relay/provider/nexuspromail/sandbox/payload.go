package sandbox

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// payload is what the sandbox needs to know of a call's body; the rest is only
// checked.
type payload struct {
	to, from, subject string
}

// fieldError is a body that is JSON but not what the API takes. Its text names
// the field by its path and goes out in the 422.
type fieldError struct{ text string }

func (e *fieldError) Error() string { return e.text }

var errNotUTF8 = errors.New("the body is not valid UTF-8")

// The fields that provider-api.md documents, as bits of what was seen.
const (
	fieldTo = 1 << iota
	fieldToEmail
	fieldFrom
	fieldFromEmail
	fieldFromName
	fieldSubject
	fieldHTML
	fieldText
	fieldReplyTo
	fieldReplyToEmail
	fieldReplyToName
)

// field tells a path's bit, 0 for a field the API does not know.
func field(path string) int {
	switch path {
	case "to":
		return fieldTo
	case "to.email":
		return fieldToEmail
	case "from":
		return fieldFrom
	case "from.email":
		return fieldFromEmail
	case "from.name":
		return fieldFromName
	case "subject":
		return fieldSubject
	case "html":
		return fieldHTML
	case "text":
		return fieldText
	case "reply_to":
		return fieldReplyTo
	case "reply_to.email":
		return fieldReplyToEmail
	case "reply_to.name":
		return fieldReplyToName
	}
	return 0
}

// parse reads a call's body. The error is errNotUTF8, a *syntaxError or a
// *fieldError; the payload holds what could be read in each case. Syntax is
// checked to the end before any field is complained of, and of the fields the
// first wrong one in the body is named, then the first missing one.
func parse(body []byte) (payload, error) {
	if !utf8.Valid(body) {
		return payload{}, errNotUTF8
	}
	p := parser{scanner: scanner{b: body}}
	err := p.document()
	if err == nil {
		err = p.end()
	}
	if err != nil {
		return p.payload, err
	}
	p.required()
	if p.wrong != "" {
		return p.payload, &fieldError{text: p.wrong}
	}
	return p.payload, nil
}

type parser struct {
	scanner
	payload payload
	seen    int
	wrong   string // the first complaint
}

func (p *parser) complain(text string) {
	if p.wrong == "" {
		p.wrong = text
	}
}

func (p *parser) document() error {
	if p.next() != '{' {
		p.complain("the body must be an object")
		p.seen = -1 // it has no fields to be missing
		return p.skip()
	}
	return p.object(func(key string) error { return p.member("", key) })
}

// member reads the value of a field; parent is the path of the object that it
// is in, with its dot.
func (p *parser) member(parent, key string) error {
	path := parent + key
	bit := field(path)
	switch {
	case bit == 0 || strings.Contains(key, "."): // "to.email" is no field of the body
		p.complain(shorten(path) + " is not a known field")
		return p.skip()
	case p.seen&bit != 0:
		p.complain(path + " is given twice")
		return p.skip()
	}
	p.seen |= bit
	switch bit {
	case fieldTo, fieldFrom, fieldReplyTo:
		return p.mailbox(path)
	}
	if p.next() != '"' {
		p.complain(path + " must be a string")
		return p.skip()
	}
	written, err := p.text()
	if err == nil && bit != fieldHTML && bit != fieldText {
		p.value(bit, path, decode(written))
	}
	return err
}

// mailbox reads one of the objects that hold an address.
func (p *parser) mailbox(path string) error {
	if p.next() != '{' {
		p.complain(path + " must be an object")
		return p.skip()
	}
	err := p.object(func(key string) error { return p.member(path+".", key) })
	if err == nil && p.seen&field(path+".email") == 0 {
		p.complain(path + ".email is required")
	}
	return err
}

// value checks a short string and keeps what calls are listed by.
func (p *parser) value(bit int, path, v string) {
	switch bit {
	case fieldToEmail:
		p.payload.to = v
	case fieldFromEmail:
		p.payload.from = v
	case fieldSubject:
		p.payload.subject = v
	}
	switch bit {
	case fieldToEmail, fieldFromEmail, fieldReplyToEmail:
		if v == "" {
			p.complain(path + " is empty")
		} else if !validAddress(v) {
			p.complain(path + " is not a valid address")
		}
	default:
		// These become header fields of the mail the provider sends, where a
		// line break would start a header of the caller's making.
		if strings.ContainsAny(v, "\r\n") {
			p.complain(path + " must be one line")
		}
	}
}

// required complains of the first field that is missing. html and subject may
// be empty: a mail without a body, or without a subject, is a mail.
func (p *parser) required() {
	for _, path := range [...]string{"to", "from", "subject", "html"} {
		if p.seen&field(path) == 0 {
			p.complain(path + " is required")
		}
	}
}

// shorten bounds what of a caller's own words comes back to it.
func shorten(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
