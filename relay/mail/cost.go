package mail

import (
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
)

// What mapping and writing a mail takes besides the mail itself, for each octet
// of text and of anything else: TestCost measures it. A text is decoded, shown as
// html as well, and both are quoted in what the API gets. Where texts and documents stand
// beside each other, each is shown as the other too. A file is copied once, in
// base64; one that is looked into is decoded before.
const (
	textCost   = int64(5)
	mixedCost  = int64(10)
	fileCost   = 2
	insideCost = 6
	headerCost = 16
	escapeCost = 30  // of each quote and angle bracket: it becomes five or six octets in HTML, and that in JSON
	fieldCost  = 200 // of each header field and part
)

// smallMail is what any mail may take, so that no small one is too costly.
const smallMail = 128 << 10

// Cost is how much memory mapping and encoding a mail takes at most, besides the
// mail: Map refuses a mail that is made to take more.
func Cost(raw []byte, limits mime.Limits) int64 {
	return costOf(raw, mime.Outline(raw, limits))
}

// MostCost is Cost for a mail of which only the size is known. It is too little
// for a mail in an old charset of other letters than Latin ones, for one of mixed
// texts and documents, and for one that consists of headers.
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

// sizes are what there is of each in a mail, in octets.
type sizes struct {
	text, file, inside, decoded, bodies int64
	escaped                             int64 // characters that HTML or JSON writes with more
	texts                               int64 // parts that are text
	versions                            bool  // the first two are versions of each other
	fields                              int64 // and parts
	found                               int64 // files that may be in others, at most
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
	case isMessage(p), isSMIME(p):
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

// escapes are the characters of a text that take more in the HTML that is made of
// it, and in JSON. Of one in base64, which is not decoded to count them, a fifth are taken to be such.
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
