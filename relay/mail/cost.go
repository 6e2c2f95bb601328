package mail

import (
	"bytes"
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
	fieldCost  = 210 // of each header field, and of each part
)

// smallMail is what every mail may take, so that no small mail is too costly.
const smallMail = 160 << 10

// shortLine: of shorter lines the ends count too, because they become "<br>".
const shortLine = 16

// usual is how many times its size a mail of people or programs takes at most. Russian or
// Chinese in an old charset, and JSON, take 9. Thai in an old charset, or nothing but
// quotes, takes 15.
const usual = 10

// Cost returns the memory that mapping and encoding a mail take at most, besides the
// mail. Map refuses a mail that is built to take more.
func Cost(raw []byte, limits mime.Limits) int64 {
	return NewOutline(raw, limits).cost()
}

// Outline is what is known of a mail before it is mapped.
type Outline struct {
	raw        []byte
	root       *mime.Part
	whole      bool // root is all that there is to be read
	read, made int64
}

// NewOutline reads the outline of a mail, which takes hardly any memory.
func NewOutline(raw []byte, limits mime.Limits) *Outline {
	o := &Outline{raw: raw}
	o.root, o.whole = mime.Outline(raw, limits)
	o.read, o.made = costs(raw, o.root)
	return o
}

func (l *Outline) cost() int64 { return l.read + l.made }

// CostWithin returns Cost where there is no more memory than most. How much is made of
// many a text turns out only when it is decoded, and Options.Memory sees to it that it is
// no more than that. Where reading the mail alone takes more than most, so is the result.
func (l *Outline) CostWithin(most int64) int64 {
	return max(l.read, min(l.cost(), most))
}

// UsualCost returns the most that CostWithin is for a mail of that size, if people or
// programs write such mail.
func UsualCost(size int64) int64 { return usual*size + smallMail }

// MostCost estimates Cost from the size of a mail. It is too low for a mail in an old
// non-Latin charset, for one that mixes texts and documents, and for one that is mostly
// header.
func MostCost(size int64) int64 { return textCost*size + smallMail }

// costs are what reading a mail takes, and what is made of its bodies.
func costs(raw []byte, root *mime.Part) (read, made int64) {
	var s sizes
	s.count(root)
	made = textCost * s.text
	if s.texts > 1 && !s.versions || s.texts > 2 {
		made = mixedCost*s.text + int64(perDocument)*s.texts
	}
	made += escapeCost*s.escaped + s.decoded + fileCost*s.file + insideCost*s.inside + perFile*s.found
	return smallMail + headerCost*max(int64(len(raw))-s.bodies, 0) + fieldCost*s.fields, made
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
		s.found = min(s.found+size/8, maxInside+1)
	case isBody(p), p.Type == "text/calendar" && p.Disposition() != "attachment":
		s.texts++
		s.text += int64(p.MostText())
		s.found = min(s.found+int64(bytes.Count(p.Body, []byte("begin "))), maxInside+1) // files in uuencode
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
	for _, c := range []byte("\"'<>&\\\t") {
		n += bytes.Count(p.Body, []byte{c}) // many times as fast as a switch
	}
	lines := bytes.Count(p.Body, []byte("\n"))
	return int64(n + max(lines-len(p.Body)/shortLine, 0))
}
