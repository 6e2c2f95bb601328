package mail

import (
	"encoding/base64"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
)

// Mail is a mail as a provider's API takes it, for all its recipients.
type Mail struct {
	From        relay.Address
	ReplyTo     *relay.Address // nil: none
	Subject     string
	HTML        string // always something, if only empty markup
	Text        string // "" when the mail has none
	Attachments []Attachment
	Headers     []Header   // what Options.PassHeaders passes on
	Authors     []string   // addresses that the mail names as its author, as they are written there
	MessageID   string     // the client's own, without angles, for logs
	Omissions   []Omission // one of a kind
}

// Attachment is a file that goes with the mail, or an image inside it.
type Attachment struct {
	Filename    string // may be ""
	ContentType string
	ContentID   string // without angles; "" when nothing refers to it
	Inline      bool
	Size        int64 // decoded, bytes

	part *mime.Part // where its content is
	data []byte     // or, for a file found inside a part, the content itself
}

// Content returns the decoded file.
func (a *Attachment) Content() []byte {
	if a.part != nil {
		return a.part.Decoded()
	}
	return a.data
}

// omit adds to what is known of a kind.
func (m *Mail) omit(kind OmissionKind, size int64) {
	for i := range m.Omissions {
		if o := &m.Omissions[i]; o.Kind == kind {
			o.Count, o.Size = o.Count+1, o.Size+size
			return
		}
	}
	m.Omissions = append(m.Omissions, Omission{Kind: kind, Count: 1, Size: size})
}

// AppendBase64 appends the file in base64 without line breaks. One that came in
// clean base64 is copied rather than decoded and encoded again.
func (a *Attachment) AppendBase64(dst []byte) []byte {
	if a.part != nil {
		return a.part.AppendBase64(dst)
	}
	return base64.StdEncoding.AppendEncode(dst, a.data)
}

// Header is a header field that is passed on, decoded to UTF-8, one line.
type Header struct{ Name, Value string }
