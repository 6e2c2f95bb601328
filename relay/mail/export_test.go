package mail

import "github.com/smtp2rest/smtp2rest/relay/mail/mime"

// What the tests need. They are in a package of their own, because they write mails in
// a provider's format and the provider's package imports this one.
const (
	MaxInside   = maxInside
	MaxOpened   = maxOpened
	MaxDetail   = maxDetail
	NoticeTitle = noticeTitle
)

// Composed is the full result of mapping a mail.
type Composed struct {
	Leaves, Placed int // parts that were looked at, and that were carried or left out
	Readable       bool
	Mail           *Mail
	Refusal        *Refusal
}

// Compose is Map with its full result.
func Compose(raw []byte, envelopeFrom string, o Options) Composed {
	root := mime.Parse(raw, o.Limits)
	read, made := costs(raw, root)
	c := newComposer(&o, root, read+made)
	refusal := c.run(root, envelopeFrom)
	return Composed{c.leaves, c.placed, readable(root), c.mail, refusal}
}
