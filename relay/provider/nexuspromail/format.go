package nexuspromail

import (
	"bytes"
	"cmp"
	"html"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider"
)

// Format names JSON fields that the API does not document; one without a name is
// left out. It is also the vendor's Settings. The zero Format is for mail without attachments. internal/settings
// explains the tags.
type Format struct {
	// Attachments is an array, and never left out.
	Attachments string `toml:"attachments_field" default:"attachments" check:"needed field" doc:"With \"send\": the JSON field that holds the list of attachments."`
	Filename    string `toml:"attachment_filename" default:"filename" check:"field" doc:"With \"send\": the field of an attachment that holds its file name. \"\" leaves it out."`
	// Content is base64, and never left out.
	Content     string `toml:"attachment_content" default:"content" check:"needed field" doc:"With \"send\": the field of an attachment that holds its content, in base64."`
	ContentType string `toml:"attachment_content_type" default:"content_type" check:"field" doc:"With \"send\": the field of an attachment that holds its media type. \"\" leaves it out."`
	ContentID   string `toml:"attachment_content_id" default:"content_id" check:"field" doc:"With \"send\": the field of an attachment that holds the Content-ID by which HTML refers to an image. \"\" leaves it out."`
	// Headers is an object.
	Headers string `toml:"header_field" check:"field" doc:"The JSON field that takes further headers, as an object. \"\": none. The API documents no such field."`
}

var _ provider.Settings = (*Format)(nil)

// HeaderField implements provider.Settings.
func (f Format) HeaderField() (name string, all bool) {
	return cmp.Or(f.Headers, "headers"), f.Headers != ""
}

// Check implements provider.Settings. It finds two JSON fields with the same name.
func (f Format) Check(attachments bool, problem func(setting, found, wrong string)) map[string]string {
	take := func(taken map[string]string, setting, name string) {
		if name == "" {
			return
		}
		if other := taken[name]; other != "" {
			problem(setting, name, "a field that "+other+" has already")
		}
		taken[name] = "mail." + setting
	}
	payload := map[string]string{}
	for _, name := range []string{"to", "from", "subject", "html", "text", "reply_to"} {
		payload[name] = "the API itself"
	}
	if attachments {
		take(payload, "attachments_field", f.Attachments)
		item := map[string]string{}
		take(item, "attachment_filename", f.Filename)
		take(item, "attachment_content", f.Content)
		take(item, "attachment_content_type", f.ContentType)
		take(item, "attachment_content_id", f.ContentID)
	}
	take(payload, "header_field", f.Headers)
	delete(payload, f.Headers) // mail.fields may name headers in it
	return payload
}

// body is a mail as JSON, without its recipient.
type body struct {
	rest []byte // everything after the recipient
	// redirect gets the mail, whoever is asked for; "": the recipient gets it. marks are
	// then where in rest the recipient is named, in order.
	redirect string
	marks    []mark
}

// mark is a place in a document at which the recipient is named.
type mark struct {
	at   int
	html bool
}

// pieces returns the document for one recipient. No call of a redirected mail has
// another address in "to" than redirect: this is the one place that writes it.
func (b *body) pieces(to string) [][]byte {
	if b.redirect == "" {
		return [][]byte{head(to), b.rest}
	}
	list, from := [][]byte{head(b.redirect)}, 0
	for _, m := range b.marks {
		name := to
		if m.html {
			name = html.EscapeString(to)
		}
		quoted := appendString(nil, name)
		list, from = append(list, b.rest[from:m.at], quoted[1:len(quoted)-1]), m.at
	}
	return append(list, b.rest[from:])
}

// head returns what comes before rest.
func head(to string) []byte {
	return appendString([]byte(`{"to":{"email":`), to)
}

// Redirected implements provider.Body.
func (b *body) Redirected() bool { return b.redirect != "" }

// Len returns the length in bytes of the document for one recipient.
func (b *body) Len(to string) (n int64) {
	for _, piece := range b.pieces(to) {
		n += int64(len(piece))
	}
	return n
}

// inMemory bounds documents that are copied for each call. net/http writes a
// bytes.Reader together with the request's header, in one system call, and copies any
// other reader once more. The rest, with its attachments, is not copied.
const inMemory = 30 << 10

// Open returns the document for one recipient. It copies only a small mail.
func (b *body) Open(to string) io.Reader {
	pieces := b.pieces(to)
	if len(b.rest) <= inMemory {
		return bytes.NewReader(bytes.Join(pieces, nil))
	}
	return &document{pieces}
}

// document reads pieces. io.MultiReader would also do, but its WriteTo allocates
// 32 KiB, which is more than most mails have.
type document struct{ left [][]byte }

func (d *document) Read(p []byte) (int, error) {
	for len(d.left) > 0 && len(d.left[0]) == 0 {
		d.left = d.left[1:]
	}
	if len(d.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, d.left[0])
	d.left[0] = d.left[0][n:]
	return n, nil
}

// WriteTo implements io.WriterTo.
func (d *document) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for len(d.left) > 0 {
		n, err := w.Write(d.left[0])
		total += int64(n)
		d.left[0] = d.left[0][n:]
		if err != nil {
			return total, err
		}
		d.left = d.left[1:]
	}
	return total, nil
}

// smallFields is room for the addresses, and for what a redirected mail says of itself.
const smallFields = 1024

// Encode implements provider.Format. It only writes documented fields, unless the
// Format names others. It does not use encoding/json, which would copy an attachment
// three times and escape every "<" in the html.
func (f Format) Encode(m *mail.Mail) (provider.Body, error) {
	size := smallFields + mail.EscapedSize(m.Subject) + mail.EscapedSize(m.HTML) + mail.EscapedSize(m.Text)
	for i := range m.Attachments {
		a := &m.Attachments[i]
		size += 256 + int(a.Size+2)/3*4 + len(a.Filename) + len(a.ContentType) + len(a.ContentID)
	}
	for _, h := range m.Headers {
		size += 8 + mail.EscapedSize(h.Name) + mail.EscapedSize(h.Value)
	}
	for _, field := range m.Fields {
		for _, v := range field.Values {
			size += 16 + len(field.Name) + len(v.Name) + mail.EscapedSize(v.Value)
		}
	}
	b := make([]byte, 0, size)
	b = append(b, `},"from":`...)
	b = appendAddress(b, m.From)
	doc := body{redirect: m.Redirect}
	b = doc.appendBodies(b, m)
	if m.ReplyTo != nil {
		b = append(b, `,"reply_to":`...)
		b = appendAddress(b, relay.Address{Email: m.ReplyTo.Email}) // no name is documented here
	}
	b = f.appendHeaders(b, m.Headers)
	b = appendFields(b, m.Fields)
	b = f.appendAttachments(b, m.Attachments)
	doc.rest = append(b, '}')
	return &doc, nil
}

// appendBodies appends the subject and the bodies. Those of a redirected mail say whom it
// was for.
func (b *body) appendBodies(doc []byte, m *mail.Mail) []byte {
	if b.redirect == "" {
		doc = appendField(doc, "subject", m.Subject)
		doc = appendField(doc, "html", m.HTML)
		if m.Text != "" {
			doc = appendField(doc, "text", m.Text)
		}
		return doc
	}
	doc = b.appendNamed(doc, "subject", []string{"[for "}, "] ", m.Subject)
	top, rest := mail.SplitTop(m.HTML)
	doc = b.appendNamed(doc, "html", []string{top, "<p><strong>This mail was for &lt;"}, "&gt; and was redirected.</strong></p>\n", rest)
	if m.Text != "" {
		doc = b.appendNamed(doc, "text", []string{"This mail was for <"}, "> and was redirected.\n\n", m.Text)
	}
	return doc
}

// appendNamed appends a field in which the recipient is named between texts. They are not
// joined first, which would take the memory of a body once more.
func (b *body) appendNamed(doc []byte, field string, before []string, after ...string) []byte {
	doc = appendField(doc, field, "")
	doc = doc[:len(doc)-1] // without the quote that ends it
	for _, text := range before {
		doc = appendText(doc, text)
	}
	b.marks = append(b.marks, mark{len(doc), field == "html"})
	for _, text := range after {
		doc = appendText(doc, text)
	}
	return append(doc, '"')
}

// appendText appends what is inside the quotes of a JSON string.
func appendText(doc []byte, text string) []byte {
	at := len(doc)
	doc = appendString(doc, text)
	return append(doc[:at], doc[at+1:len(doc)-1]...)
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

func (f Format) appendHeaders(b []byte, headers []mail.Header) []byte {
	if len(headers) == 0 {
		return b
	}
	name, _ := f.HeaderField()
	return appendFields(b, []mail.PayloadField{{Name: name, Kind: mail.ObjectField, Values: headers}})
}

func appendFields(b []byte, fields []mail.PayloadField) []byte {
	for _, field := range fields {
		if field.Kind == mail.TextField {
			b = appendField(b, field.Name, field.Values[0].Value)
			continue
		}
		b = append(b, ',')
		b = appendString(b, field.Name)
		brackets := ":[]"
		if field.Kind == mail.ObjectField {
			brackets = ":{}"
		}
		b = append(b, brackets[:2]...)
		for i, v := range field.Values {
			if i > 0 {
				b = append(b, ',')
			}
			if field.Kind == mail.ObjectField {
				b = appendString(b, v.Name)
				b = append(b, ':')
			}
			b = appendString(b, v.Value)
		}
		b = append(b, brackets[2])
	}
	return b
}

func (f Format) appendAttachments(b []byte, list []mail.Attachment) []byte {
	if len(list) == 0 {
		return b
	}
	b = append(b, ',')
	b = appendString(b, f.Attachments)
	b = append(b, ':')
	for i := range list {
		b = append(b, "[,"[min(i, 1)])
		b = f.appendAttachment(b, &list[i])
	}
	return append(b, ']')
}

func (f Format) appendAttachment(b []byte, a *mail.Attachment) []byte {
	b = append(b, '{')
	b = appendString(b, f.Content)
	b = append(b, `:"`...)
	b = a.AppendBase64(b)
	b = append(b, '"')
	for _, field := range []struct{ name, value string }{
		{f.Filename, sentName(a)},
		{f.ContentType, a.ContentType},
		{f.ContentID, a.ContentID},
	} {
		if field.name != "" && field.value != "" {
			b = appendField(b, field.name, field.value)
		}
	}
	return append(b, '}')
}

// sentName returns a name for a file. The API requires one.
func sentName(a *mail.Attachment) string {
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

// appendString appends a JSON string (RFC 8259 section 7). It also escapes U+2028 and
// U+2029, for readers that take JSON for JavaScript. Bytes that are not UTF-8 become
// U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		if i+8 <= len(s) && asItIs(s[i:i+8]) {
			i += 8
			continue
		}
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

// asItIs reports whether JSON takes eight octets as they are: printable ASCII but quotes and
// backslashes. It looks at them together, because almost all are.
func asItIs(s string) bool {
	const each = 0x0101010101010101
	w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	return (w|(w-each*' ')|((w^each*'"')-each)|((w^each*'\\')-each))&(each*0x80) == 0
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
