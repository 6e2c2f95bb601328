package payload

import (
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/payload/mime"
)

// What mapping a mail takes besides the mail itself, for each octet of text
// and of anything else: TestCost measures it. Text is decoded, shown as
// html as well, and both are quoted in the JSON; a file is copied once, in
// base64.
const (
	textCost = 6
	fileCost = 2
)

// smallMail is so little that its parts need not be looked at.
const smallMail = 64 << 10

// Cost is how much memory mapping and encoding a mail takes at most, besides
// the mail. It is an estimate: a text of nothing but line ends or markup, or in
// an old charset, takes up to twice as much for the moment of its mapping.
func Cost(raw []byte, limits mime.Limits) int64 {
	if len(raw) <= smallMail {
		return MostCost(int64(len(raw)))
	}
	return partCost(mime.Parse(raw, limits)) + smallMail
}

// MostCost is Cost for a mail of which only the size is known.
func MostCost(size int64) int64 { return textCost * size }

func partCost(p *mime.Part) int64 {
	if !p.Container() {
		if strings.HasPrefix(p.Type, "text/") || strings.HasPrefix(p.Type, "message/") {
			return textCost * int64(len(p.Body))
		}
		return fileCost * int64(len(p.Body))
	}
	var sum int64
	for _, child := range p.Parts {
		sum += partCost(child)
	}
	return sum
}

// Cost is how much memory the Mail takes until it is encoded, besides the mail
// it refers to.
func (m *Mail) Cost() int64 {
	text := int64(len(m.Subject) + len(m.HTML) + len(m.Text))
	sum := 3 * text // as it is, and quoted
	for i := range m.Attachments {
		sum += fileCost * m.Attachments[i].Size
	}
	return sum
}
