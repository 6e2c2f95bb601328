package mail

import "github.com/smtp2rest/smtp2rest/relay/mail/mime"

// What the tests look at, which are in a package of their own: they write mails in
// a provider's format, and its package imports this one.
const (
	MaxInside   = maxInside
	MaxOpened   = maxOpened
	MaxDetail   = maxDetail
	NoticeTitle = noticeTitle
)

// Composed is what became of a mail, and of its parts.
type Composed struct {
	Leaves, Placed int // parts that were looked at, and that were carried or left out
	Readable       bool
	Mail           *Mail
	Refusal        *Refusal
}

// Compose is Map, told in full.
func Compose(raw []byte, envelopeFrom string, o Options) Composed {
	root := mime.Parse(raw, o.Limits)
	c := newComposer(&o, root, costOf(raw, root))
	refusal := c.run(root, envelopeFrom)
	return Composed{c.leaves, c.placed, readable(root), c.mail, refusal}
}
