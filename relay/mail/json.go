package mail

import (
	"encoding/base64"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/smtp2rest/smtp2rest/relay"
)

// Body is a mail as JSON, but for its recipient. It is made once per mail and
// may be read by many at once.
type Body struct {
	rest []byte // everything after the recipient
}

// head returns what stands before rest.
func head(to string) []byte {
	return appendString([]byte(`{"to":{"email":`), to)
}

// Len returns the length in bytes of the document for one recipient.
func (b *Body) Len(to string) int64 { return int64(len(head(to)) + len(b.rest)) }

// Open returns the document for one recipient. The mail itself is not copied.
func (b *Body) Open(to string) io.Reader { return &document{head(to), b.rest} }

// document reads two pieces. io.MultiReader would do but for its buffer of
// 32 KiB, which is more than most mails.
type document struct{ head, rest []byte }

func (d *document) Read(p []byte) (int, error) {
	if len(d.head) == 0 {
		d.head, d.rest = d.rest, nil
	}
	if len(d.head) == 0 {
		return 0, io.EOF
	}
	n := copy(p, d.head)
	d.head = d.head[n:]
	return n, nil
}

// WriteTo implements io.WriterTo.
func (d *document) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for len(d.head)+len(d.rest) > 0 {
		n, err := w.Write(d.head)
		total += int64(n)
		d.head = d.head[n:]
		if err != nil {
			return total, err
		}
		if len(d.head) == 0 {
			d.head, d.rest = d.rest, nil
		}
	}
	return total, nil
}

// Encode makes the JSON of the mail. Only documented fields are in it, unless
// Options name others. encoding/json is not used because it would copy an
// attachment three times and escape every "<" of the html.
func (m *Mail) Encode() (*Body, error) {
	size := 512 + jsonSize(m.Subject) + jsonSize(m.HTML) + jsonSize(m.Text)
	for i := range m.Attachments {
		a := &m.Attachments[i]
		size += 256 + int(a.Size+2)/3*4 + len(a.Filename) + len(a.ContentType) + len(a.ContentID)
	}
	if m.headerField != "" {
		for _, h := range m.Headers {
			size += 8 + jsonSize(h.Name) + jsonSize(h.Value)
		}
	}
	b := make([]byte, 0, size)
	b = append(b, `},"from":`...)
	b = appendAddress(b, m.From)
	b = appendField(b, "subject", m.Subject)
	b = appendField(b, "html", m.HTML)
	if m.Text != "" {
		b = appendField(b, "text", m.Text)
	}
	if m.ReplyTo != nil {
		b = append(b, `,"reply_to":`...)
		b = appendAddress(b, relay.Address{Email: m.ReplyTo.Email}) // no name is documented here
	}
	b = m.appendHeaders(b)
	b = m.appendAttachments(b)
	return &Body{rest: append(b, '}')}, nil
}

// jsonSize is how long a clean text becomes in JSON, but for characters that
// are as good as never there.
func jsonSize(s string) int {
	return len(s) + strings.Count(s, "\n") + strings.Count(s, `"`) + strings.Count(s, `\`) + strings.Count(s, "\t") +
		3*(strings.Count(s, "\u2028")+strings.Count(s, "\u2029"))
}

func appendAddress(b []byte, a relay.Address) []byte {
	b = append(b, `{"email":`...)
	b = appendString(b, a.Email)
	if a.Name != "" {
		b = appendField(b, "name", a.Name)
	}
	return append(b, '}')
}

// appendField appends a field that is not the first of its object.
func appendField(b []byte, name, value string) []byte {
	b = append(b, ',')
	b = appendString(b, name)
	b = append(b, ':')
	return appendString(b, value)
}

func (m *Mail) appendHeaders(b []byte) []byte {
	if m.headerField == "" || len(m.Headers) == 0 {
		return b
	}
	b = append(b, ',')
	b = appendString(b, m.headerField)
	b = append(b, ':')
	for i, h := range m.Headers {
		b = append(b, "{,"[min(i, 1)])
		b = appendString(b, h.Name)
		b = append(b, ':')
		b = appendString(b, h.Value)
	}
	return append(b, '}')
}

func (m *Mail) appendAttachments(b []byte) []byte {
	if len(m.Attachments) == 0 {
		return b
	}
	b = append(b, ',')
	b = appendString(b, m.fields.List)
	b = append(b, ':')
	for i := range m.Attachments {
		b = append(b, "[,"[min(i, 1)])
		b = m.appendAttachment(b, &m.Attachments[i])
	}
	return append(b, ']')
}

func (m *Mail) appendAttachment(b []byte, a *Attachment) []byte {
	b = append(b, '{')
	b = appendString(b, m.fields.Content)
	b = append(b, `:"`...)
	if a.part != nil {
		b = a.part.AppendBase64(b)
	} else {
		b = base64.StdEncoding.AppendEncode(b, a.data)
	}
	b = append(b, '"')
	for _, f := range []struct{ name, value string }{
		{m.fields.Filename, a.sentName()},
		{m.fields.ContentType, a.ContentType},
		{m.fields.ContentID, a.ContentID},
	} {
		if f.name != "-" && f.value != "" {
			b = appendField(b, f.name, f.value)
		}
	}
	return append(b, '}')
}

// sentName names a file for an API, which cannot do without.
func (a *Attachment) sentName() string {
	switch {
	case a.Filename != "":
		return a.Filename
	case a.ContentType == "message/rfc822":
		return "message.eml"
	case a.ContentType == "text/calendar":
		return "invite.ics"
	case strings.HasPrefix(a.ContentType, "image/"):
		return "image." + strings.TrimPrefix(a.ContentType, "image/")
	}
	return "attachment"
}

const hexDigits = "0123456789abcdef"

// appendString appends a JSON string (RFC 8259 section 7). U+2028 and U+2029
// are escaped too, for readers that take JSON for JavaScript, and what is not
// UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		n := 1
		if c >= utf8.RuneSelf {
			var r rune
			r, n = utf8.DecodeRuneInString(s[i:])
			if (r != utf8.RuneError || n > 1) && r != '\u2028' && r != '\u2029' {
				i += n
				continue
			}
		}
		b = append(b, s[start:i]...)
		b = appendEscape(b, s[i:i+n])
		i += n
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

func appendEscape(b []byte, s string) []byte {
	switch s {
	case `"`, `\`:
		return append(b, '\\', s[0])
	case "\n":
		return append(b, `\n`...)
	case "\r":
		return append(b, `\r`...)
	case "\t":
		return append(b, `\t`...)
	case "\u2028":
		return append(b, `\u2028`...)
	case "\u2029":
		return append(b, `\u2029`...)
	}
	if s[0] < ' ' {
		return append(b, '\\', 'u', '0', '0', hexDigits[s[0]>>4], hexDigits[s[0]&15])
	}
	return append(b, "\uFFFD"...)
}
