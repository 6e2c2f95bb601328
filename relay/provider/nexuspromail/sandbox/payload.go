package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// payload is what the sandbox remembers of a body. The rest is only checked.
type payload struct {
	to, from, subject string
}

// fieldError is the error for a body that is JSON but not what the API takes. Its
// text names the field by its path and is sent with the 422.
type fieldError struct{ text string }

func (e *fieldError) Error() string { return e.text }

// syntaxError is the error for a body that is not JSON.
type syntaxError struct{ offset int }

func (e *syntaxError) Error() string { return fmt.Sprintf("invalid JSON at byte %d", e.offset) }

var errNotUTF8 = errors.New("the body is not valid UTF-8")

// fields are the paths of all fields that provider-api.md documents.
func fields() []string {
	return []string{"to", "to.email", "from", "from.email", "from.name", "subject", "html", "text",
		"reply_to", "reply_to.email", "reply_to.name"}
}

// parse reads the body of a call. The error is errNotUTF8, a *syntaxError or a
// *fieldError. It names the first wrong field in the body, else the first missing
// one. The fields in more are taken as well, with any value.
func parse(body []byte, more ...string) (payload, error) {
	if !utf8.Valid(body) {
		return payload{}, errNotUTF8
	}
	var document json.RawMessage
	if err := json.Unmarshal(body, &document); err != nil {
		at := len(body) // it ends too early
		if e, ok := errors.AsType[*json.SyntaxError](err); ok && int(e.Offset) <= len(body) && e.Error() != "unexpected end of JSON input" {
			at = int(e.Offset) - 1
		}
		return payload{}, &syntaxError{at}
	}
	p := parser{fields: fields(), more: more, seen: map[string]bool{}}
	if document = bytes.TrimSpace(document); document[0] != '{' {
		return payload{}, &fieldError{"the body must be an object"}
	}
	p.object("", document)
	// html and subject may be empty: a mail without a body or a subject is a mail.
	for _, path := range [...]string{"to", "from", "subject", "html"} {
		if !p.seen[path] {
			p.complain(path + " is required")
		}
	}
	if p.wrong != "" {
		return p.payload, &fieldError{p.wrong}
	}
	return p.payload, nil
}

// parser walks through an object whose syntax was checked. It uses a Decoder,
// because Unmarshal keeps the last of two equal keys and does not name the field
// that is wrong.
type parser struct {
	payload payload
	fields  []string
	more    []string // further fields, of any value
	seen    map[string]bool
	wrong   string // the first complaint
}

func (p *parser) complain(text string) {
	if p.wrong == "" {
		p.wrong = text
	}
}

// object reads an object. parent is its path with a dot; "" for the body.
func (p *parser) object(parent string, raw []byte) {
	d := json.NewDecoder(bytes.NewReader(raw))
	_, _ = d.Token() // the opening brace
	for d.More() {
		key, _ := d.Token()
		var value json.RawMessage
		_ = d.Decode(&value) // cannot fail: the syntax was checked
		p.member(parent, key.(string), value)
	}
}

func (p *parser) member(parent, key string, raw []byte) {
	path := parent + key
	if parent == "" && slices.Contains(p.more, key) && !p.seen[path] && !slices.Contains(p.fields, path) {
		p.seen[path] = true
		return
	}
	switch {
	case strings.Contains(key, ".") || !slices.Contains(p.fields, path): // "to.email" is no field of the body
		p.complain(shorten(path) + " is not a known field")
		return
	case p.seen[path]:
		p.complain(path + " is given twice")
		return
	}
	p.seen[path] = true
	switch path {
	case "to", "from", "reply_to":
		if raw[0] != '{' {
			p.complain(path + " must be an object")
		} else if p.object(path+".", raw); !p.seen[path+".email"] {
			p.complain(path + ".email is required")
		}
		return
	}
	if raw[0] != '"' {
		p.complain(path + " must be a string")
	} else if path != "html" && path != "text" {
		var value string
		_ = json.Unmarshal(raw, &value) // cannot fail: the syntax was checked
		p.value(path, value)
	}
}

// value checks a short string.
func (p *parser) value(path, v string) {
	switch path {
	case "to.email":
		p.payload.to = v
	case "from.email":
		p.payload.from = v
	case "subject":
		p.payload.subject = v
	}
	switch {
	case !strings.HasSuffix(path, ".email"):
		// These become header fields of the mail that the provider sends. A line
		// break would begin a header of the caller's making.
		if strings.ContainsAny(v, "\r\n") {
			p.complain(path + " must be one line")
		}
	case v == "":
		p.complain(path + " is empty")
	case !validAddress(v):
		p.complain(path + " is not a valid address")
	}
}

// shorten bounds how many of the caller's own words are sent back.
func shorten(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// validAddress takes the addr-spec of RFC 5321, section 4.1.2, with UTF-8 in both
// halves (RFC 6531), up to the lengths of section 4.5.3.1. It refuses address
// literals, because no provider delivers to them.
func validAddress(s string) bool {
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at > 64 || len(s) > 254 {
		return false
	}
	return validLocal(s[:at]) && validDomain(s[at+1:])
}

func validLocal(s string) bool {
	if s[0] == '"' {
		return validQuoted(s)
	}
	for _, atom := range strings.Split(s, ".") {
		if atom == "" {
			return false
		}
		for i := range len(atom) {
			if !isAtext(atom[i]) {
				return false
			}
		}
	}
	return true
}

// validQuoted takes a local part that is one quoted string.
func validQuoted(s string) bool {
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return i == len(s)-1
		case c == '\\':
			i++
			if i < len(s) && (s[i] < ' ' || s[i] >= 0x7f) {
				return false
			}
		case c < ' ' || c == 0x7f:
			return false
		}
	}
	return false
}

func validDomain(s string) bool {
	for _, label := range strings.Split(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !isAlnum(c) && c != '-' {
				return false
			}
		}
	}
	return true
}

func isAtext(c byte) bool { return isAlnum(c) || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0 }

// isAlnum also takes the bytes of characters that are not ASCII.
func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}
