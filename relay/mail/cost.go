package mail

import (
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
)

// The memory that mapping and encoding take besides the mail itself, in octets for each
// octet of the mail. TestCost measures it. A text is decoded and turned into html, and
// both are escaped in the API request. If texts and documents stand side by side, each is
// also converted to the other. A file is copied once, as base64. A part that is searched
// for files is decoded before.
const (
	textCost   = int64(5)
	mixedCost  = int64(10)
	fileCost   = 2
	insideCost = 6
	headerCost = 16
	escapeCost = 30  // of each quote or angle bracket: five or six octets in html, escaped again in JSON
	fieldCost  = 200 // of each header field, and of each part
)

// smallMail is what every mail may take, so that no small mail is too costly.
const smallMail = 128 << 10

// Cost returns the memory that mapping and encoding a mail take at most, besides the
// mail. Map refuses a mail that is built to take more.
func Cost(raw []byte, limits mime.Limits) int64 {
	return costOf(raw, mime.Outline(raw, limits))
}

// MostCost estimates Cost from the size of a mail. It is too low for a mail in an old
// non-Latin charset, for one that mixes texts and documents, and for one that is mostly
// header.
func MostCost(size int64) int64 { return textCost*size + smallMail }

func costOf(raw []byte, root *mime.Part) int64 {
	var s sizes
	s.count(root)
	text := textCost * s.text
	if s.texts > 1 && !s.versions || s.texts > 2 {
		text = mixedCost*s.text + int64(perDocument)*s.texts
	}
	header := max(int64(len(raw))-s.bodies, 0)
	return smallMail + text + escapeCost*s.escaped + s.decoded + fileCost*s.file + insideCost*s.inside + perFile*s.found + headerCost*header + fieldCost*s.fields
}

// sizes adds up what a mail consists of, in octets.
type sizes struct {
	text, file, inside, decoded, bodies int64
	escaped                             int64 // characters that html or JSON escapes
	texts                               int64 // parts that are text
	versions                            bool  // the first two texts are alternatives
	fields                              int64 // header fields, and parts
	found                               int64 // files that may be inside parts, at most
}

func (s *sizes) count(p *mime.Part) {
	s.fields += 4 + int64(len(p.Header))
	size := int64(len(p.Body))
	if p.Container() && !p.Encoded() {
		s.versions = s.versions || p.Type == "multipart/alternative" && s.texts == 0
		for _, child := range p.Parts {
			s.count(child)
		}
		return
	}
	s.bodies += size
	switch {
	case p.IsMessage(), isSMIME(p):
		s.inside += size
		s.text += size
		s.texts += 2
	case isTNEF(p):
		s.inside += size
		s.found = min(s.found+size/8, maxInside)
	case strings.HasPrefix(p.Type, "text/"), strings.HasPrefix(p.Type, "message/"):
		s.texts++
		s.text += int64(p.MostText())
		s.decoded += int64(p.Guessed())
		s.escaped += escapes(p)
		if p.Encoded() {
			s.decoded += size
		}
	default:
		s.file += size
		if p.Quoted() {
			s.decoded += size
		}
	}
}

// EscapedSize returns the length of a text in a format that escapes line ends, tabs,
// quotes and backslashes with one more octet, as JSON does. Other characters that need
// an escape are rare in clean text.
func EscapedSize(s string) int {
	return len(s) + strings.Count(s, "\n") + strings.Count(s, `"`) + strings.Count(s, `\`) + strings.Count(s, "\t") +
		3*(strings.Count(s, "\u2028")+strings.Count(s, "\u2029"))
}

// escapes counts the characters of a text that html and JSON escape. A text in base64 is
// not decoded for that; a fifth of it is assumed.
func escapes(p *mime.Part) int64 {
	switch {
	case p.Type == "text/html":
		return 0 // it is HTML already
	case p.Base64():
		return int64(len(p.Body)) / 5
	}
	n := 0
	for _, c := range p.Body {
		switch c {
		case '"', '\'', '<', '>', '&', '\\', '\t':
			n++
		}
	}
	return int64(n)
}
