// Package mail maps a MIME mail to what a provider's API takes: subject, html, text, from,
// reply-to and files. It is pure, with no network, clock or disk, so that a queued mail
// can be mapped again at any time. The provider's package writes the result for its API.
//
// What the API cannot carry is refused or left out, by policy. Everything that was left
// out, changed or repaired is recorded as an Omission.
//
// relay/mail/mime reads the structure of a mail; this package applies the policy.
// relay/intake maps a mail while its client waits and turns a Refusal into a reply.
package mail

import (
	"cmp"
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
)

// SenderPolicy says what to do with a From outside the verified domains.
type SenderPolicy string

const (
	Rewrite SenderPolicy = "rewrite" // send from the default sender, with the author's name
	Refuse  SenderPolicy = "refuse"
)

// AttachmentPolicy says what to do with attachments and inline images. The documented API
// does not carry them.
type AttachmentPolicy string

const (
	RefuseAttachments AttachmentPolicy = "refuse"
	StripAttachments  AttachmentPolicy = "strip" // leave them out, with a notice at the end of the bodies
	SendAttachments   AttachmentPolicy = "send"  // send them
)

// Options are the account's rules for a mail.
type Options struct {
	Default       relay.Address            // the account's default sender
	Defaults      map[string]relay.Address // the default senders of users who have their own
	Domains       []string                 // verified sender domains; empty: the default sender's
	ForeignSender SenderPolicy
	Attachments   AttachmentPolicy
	// Inline is the policy for images that the html shows by their Content-ID (RFC 2392);
	// "": that of Attachments. A logo in a signature should not refuse a letter.
	Inline AttachmentPolicy
	// Redirect gets all mail in place of its recipients; "": they get it. Redirects are
	// those of users who have their own, and OtherRedirect gets what is nobody's of these.
	Redirect      string
	Redirects     map[string]string
	OtherRedirect string
	PassHeaders   bool   // pass on headers that have no field of their own; else they are left out
	CopyFor       string // whom the mail was for of which this is a copy for the archive; "": it is none
	// Sources are the headers whose values go into fields that the API does not document.
	// HeaderField is the one of Mail.Headers. Values are set whatever the mail says, and
	// UserValues are those of users who have their own.
	Sources     []Source
	HeaderField string
	Values      []Value
	UserValues  map[string][]Value
	Limits      mime.Limits
	Memory      int64 // what mapping and encoding may take, if that is less than Cost; 0: Cost

	// Explain, if set, is called for each omission, up to a bound. The words may be the
	// mail's own. They are for whoever has the mail and must not be logged.
	Explain func(kind OmissionKind, words string)
}

// For returns the options for the mail of a user; "" is an anonymous one.
func (o Options) For(user string) Options {
	if own, ok := o.Defaults[user]; ok {
		o.Default = own
	}
	return o
}

// ForClient returns the options for the mail of a client. The redirection of everybody
// counts before that of the listener, that before the user's, and the account's comes last.
func (o Options) ForClient(c relay.Client) Options {
	o = o.For(c.User)
	o.Redirect = cmp.Or(o.Redirect, c.Redirect, o.Redirects[c.User], o.OtherRedirect)
	o.Values = o.valuesOf(c)
	o.CopyFor = c.CopyFor
	return o
}

// Map maps a mail, in no more memory than Cost and Options.Memory say. The envelope sender is the author of
// a mail that names none. The error is always a *Refusal. The Mail refers to raw, which
// must not change while the Mail is in use.
func Map(raw []byte, envelopeFrom string, o Options) (*Mail, error) {
	return NewOutline(raw, o.Limits).Map(envelopeFrom, o)
}

// Map is Map of the outline's mail. It uses the outline up.
func (l *Outline) Map(envelopeFrom string, o Options) (*Mail, error) {
	if !l.whole {
		l.root = mime.Parse(l.raw, o.Limits)
		l.read, l.made = costs(l.raw, l.root)
	}
	memory := l.cost()
	if o.Memory > 0 {
		memory = min(memory, o.Memory)
	}
	c := newComposer(&o, l.root, memory)
	c.mail.Redirect = o.Redirect
	if refusal := c.run(l.root, envelopeFrom); refusal != nil {
		return nil, refusal
	}
	return c.mail, nil
}

// run maps the whole mail even if it is refused, so that people can see what is in it.
func (c *composer) run(root *mime.Part, envelopeFrom string) *Refusal {
	if !readable(root) {
		return refuse(Unparsable, "this is no mail: it has no header, and its body is no text")
	}
	refusal := c.compose(root)
	if r := c.sender(root.Header, envelopeFrom); refusal == nil {
		refusal = r
	}
	c.headers(root.Header)
	if refusal == nil && c.memory < 0 {
		refusal = refuse(TooCostly, "the mail is made to take many times its size to process")
	}
	if refusal != nil {
		refusal.Read = c.mail
	}
	return refusal
}

// bodyCharset returns the first charset that a part declares. A program that writes raw
// 8-bit headers writes them in the charset of its body.
func bodyCharset(p *mime.Part) string {
	if c := p.Param("charset"); c != "" || len(p.Parts) == 0 {
		return c
	}
	return bodyCharset(p.Parts[0])
}

// Mail is a mail as a provider's API takes it, for all recipients.
type Mail struct {
	From        relay.Address
	ReplyTo     *relay.Address // nil: none
	Subject     string
	HTML        string // never empty; at least empty markup
	Text        string // "" if the mail has none
	Attachments []Attachment
	Headers     []Header       // passed on because of Options.PassHeaders, Sources or Values
	Fields      []PayloadField // further fields
	Authors     []string       // the addresses that the mail names as its authors, as written
	MessageID   string         // the client's, without angle brackets, for logs
	Omissions   []Omission     // one of each kind

	// Redirect is the address that gets the mail in place of each recipient; "": they get it.
	Redirect string
}

// Attachment is a file of the mail, or an image inside it.
type Attachment struct {
	Filename    string // may be ""
	ContentType string
	ContentID   string // without angle brackets; "" if nothing refers to it
	Inline      bool
	Size        int64 // decoded, bytes

	part *mime.Part // has the content
	data []byte     // the content of a file found inside a part; then part is nil
}

// Content returns the decoded file.
func (a *Attachment) Content() []byte {
	if a.part != nil {
		return a.part.Decoded()
	}
	return a.data
}

// omit adds one piece to the omission of its kind.
func (m *Mail) omit(kind OmissionKind, size int64) {
	for i := range m.Omissions {
		if o := &m.Omissions[i]; o.Kind == kind {
			o.Count, o.Size = o.Count+1, o.Size+size
			return
		}
	}
	m.Omissions = append(m.Omissions, Omission{Kind: kind, Count: 1, Size: size})
}

// AppendBase64 appends the file in base64 without line breaks. A file that came in clean
// base64 is copied, not decoded and encoded again.
func (a *Attachment) AppendBase64(dst []byte) []byte {
	if a.part != nil {
		return a.part.AppendBase64(dst)
	}
	return base64.StdEncoding.AppendEncode(dst, a.data)
}

// Header is a header field that is passed on, decoded to one line of UTF-8.
type Header struct{ Name, Value string }

// Omission says what was left out of a mail, changed or repaired: the kind, how many
// pieces, and their size. It has no words of the mail, not even a file name, so that it can
// be logged and stored. Options.Explain gets the words.
type Omission struct {
	Kind  OmissionKind
	Count int   // pieces
	Size  int64 // of all pieces in octets; 0 if it means nothing
}

// String returns for example "3 (9 kB)", without the kind.
func (o Omission) String() string {
	if o.Size == 0 {
		return strconv.Itoa(o.Count)
	}
	return strconv.Itoa(o.Count) + " (" + bytesText(o.Size) + ")"
}

// OmissionKind is the kind of an omission, also as a metric label.
type OmissionKind int

const (
	AttachmentStripped OmissionKind = iota // left out, with a notice in the bodies
	SignatureDropped                       // a signature; without the signed bytes it means nothing
	AlternativeDropped                     // a version of the body other than text and html
	PartDropped                            // any other part that means nothing on its own
	HeadersDropped                         // header fields for which the API has no field
	SenderRewritten                        // From is outside the verified domains
	SenderRepaired                         // From was missing, malformed or more than one
	ReplyToChanged                         // Reply-To was malformed or more than one
	HeaderRepaired                         // malformed header lines
	StructureRepaired                      // malformed multipart structure
	EncodingRepaired                       // a broken or unknown transfer encoding
	CharsetRepaired                        // a missing, unknown or wrong charset
	EpilogueDropped                        // text after the last part
	OverLimit                              // a limit was reached, so something was read more coarsely
	EmbeddedMessage                        // a forwarded message that became part of the body
	UnpackedFile                           // a file inside a text (uuencode) or a winmail.dat
	NameDropped                            // the file name of a text that is shown as a body
	InlineStripped                         // an image that the html shows; its alternative text stands there
)

var omissionNames = [...]string{
	"attachment_stripped", "signature_dropped", "alternative_dropped", "part_dropped", "headers_dropped",
	"sender_rewritten", "sender_repaired", "reply_to_changed", "header_repaired", "structure_repaired",
	"encoding_repaired", "charset_repaired", "epilogue_dropped", "over_limit", "embedded_message", "unpacked_file", "name_dropped", "inline_stripped",
}

// OmissionKinds returns all kinds.
func OmissionKinds() []OmissionKind {
	kinds := make([]OmissionKind, len(omissionNames))
	for i := range kinds {
		kinds[i] = OmissionKind(i)
	}
	return kinds
}

// LeftOut reports whether omissions of this kind are missing from the API request. Those
// of other kinds were changed or read differently.
func (k OmissionKind) LeftOut() bool {
	switch k {
	case AttachmentStripped, SignatureDropped, AlternativeDropped, PartDropped, HeadersDropped, EpilogueDropped, NameDropped, InlineStripped:
		return true
	}
	return false
}

// String returns the kind's name in logs and metrics.
func (k OmissionKind) String() string {
	if k < 0 || int(k) >= len(omissionNames) {
		return "unknown"
	}
	return omissionNames[k]
}

// RefusalReason is why a mail was refused, also as a metric label.
type RefusalReason int

const (
	Unparsable    RefusalReason = iota // nothing in it can be read
	HasAttachment                      // the policy refuses attachments
	SenderDomain                       // the policy refuses a From outside the verified domains
	Encrypted                          // only its recipient can read it
	TooCostly                          // it is built to take many times its size
)

var reasonNames = [...]string{"unparsable", "attachment", "sender_domain", "encrypted", "too_costly"}

// RefusalReasons returns all reasons.
func RefusalReasons() []RefusalReason {
	return []RefusalReason{Unparsable, HasAttachment, SenderDomain, Encrypted, TooCostly}
}

// String returns the reason's name in logs and metrics.
func (r RefusalReason) String() string {
	if r < 0 || int(r) >= len(reasonNames) {
		return "unknown"
	}
	return reasonNames[r]
}

// Refusal says why a mail cannot be sent as it is. Trying again cannot help.
type Refusal struct {
	Reason RefusalReason
	Detail string // one line of printable ASCII, fit for an SMTP reply
	Read   *Mail  // what could be read, for people to look at and not to be sent; nil for Unparsable
}

// Error has no words of the mail, so that it can be logged.
func (r *Refusal) Error() string { return "mail: " + r.Reason.String() + ": " + r.Logged() }

// Logged returns Detail without the names of files.
func (r *Refusal) Logged() string {
	if r.Reason == HasAttachment {
		before, _, _ := strings.Cut(r.Detail, ": ")
		return before
	}
	return r.Detail
}

// maxDetail keeps a reply within the 512 octets of RFC 5321 section 4.5.3.1.5.
const maxDetail = 400

func refuse(reason RefusalReason, detail string) *Refusal {
	printable := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, detail)
	if len(printable) > maxDetail {
		printable = printable[:maxDetail-3] + "..."
	}
	return &Refusal{Reason: reason, Detail: printable}
}
