package mail

import (
	"bytes"
	"errors"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
	"github.com/smtp2rest/smtp2rest/relay/mail/tnef"
)

// leaf returns the body of a part that has no parts, or makes it a file.
func (c *composer) leaf(p *mime.Part) []*block {
	c.leaves++
	switch {
	case strings.HasPrefix(p.Type, "multipart/"):
		c.placed++ // empty: its parts were nested too deeply and are in an outer part
		return nil
	case isSignature(p):
		return c.leave(p, SignatureDropped)
	case isSMIME(p):
		return c.smime(p)
	case p.Type == "application/pgp-encrypted":
		c.sealed = p.Type
		return c.file(attachmentOf(p))
	case p.Type == "application/applefile":
		return c.leave(p, PartDropped) // the resource fork of a Mac file, RFC 1740
	case isTNEF(p):
		return c.tnef(p)
	case p.Type == "text/calendar" && p.Disposition() != "attachment":
		return c.calendar(p)
	case c.options.Attachments == SendAttachments && shownOrSent(p):
		return c.file(attachmentOf(p))
	case isBody(p):
		c.nameDropped(p)
		return c.body(p)
	}
	return c.file(attachmentOf(p))
}

func isSignature(p *mime.Part) bool {
	switch p.Type {
	case "application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature":
		return true
	}
	return strings.EqualFold(p.Filename(), "smime.p7s")
}

func isTNEF(p *mime.Part) bool {
	return p.Type == "application/ms-tnef" || p.Type == "application/vnd.ms-tnef" || strings.EqualFold(p.Filename(), "winmail.dat")
}

// isBody reports whether mail readers show a part: it is text and not declared a file.
// Unknown types of text are shown as plain text (RFC 2046 section 4.1.4), unless they have
// a file name.
func isBody(p *mime.Part) bool {
	if p.Disposition() == "attachment" {
		// Some programs declare so a body that is the whole mail and has no name.
		return p.Filename() == "" && p.Header.Has("MIME-Version") && p.Header.Has("From") && strings.HasPrefix(p.Type, "text/")
	}
	switch p.Type {
	case "text/plain", "text/html",
		"message/delivery-status", "message/disposition-notification", "message/feedback-report", "text/rfc822-headers",
		"message/global-delivery-status", "message/global-disposition-notification", "message/global-headers", // RFC 6533: those of mail with SMTPUTF8
		"message/external-body", "message/partial":
		return true
	case "text/vcard", "text/x-vcard", "text/directory", "text/rtf":
		return false
	}
	return strings.HasPrefix(p.Type, "text/") && p.Filename() == ""
}

// shownOrSent reports whether a part is only shown as text if it cannot be sent as a
// file.
func shownOrSent(p *mime.Part) bool {
	switch p.Type {
	case "text/plain", "text/html":
		return false
	}
	return strings.HasPrefix(p.Type, "text/") || strings.HasPrefix(p.Type, "message/")
}

// nameDropped records that a text loses its file name, because it becomes a body.
func (c *composer) nameDropped(p *mime.Part) {
	if name := p.Filename(); name != "" {
		c.omit(NameDropped, int64(len(name)), name)
	}
}

// text decodes a text, unless the mail has taken too much memory already.
func (c *composer) text(p *mime.Part) string {
	if c.memory < int64(len(p.Body)) {
		c.memory = -1
		return ""
	}
	text, took := p.Text()
	c.take(took)
	return text
}

// body shows a text part.
func (c *composer) body(p *mime.Part) []*block {
	text := c.text(p)
	switch p.Type {
	case "text/html":
		return c.show(block{html: text, hasHTML: true})
	case "text/enriched", "text/richtext":
		c.take(len(text))
		return c.show(block{text: enrichedText(text)})
	case "message/external-body":
		text = externalText(p) + text
	case "text/plain":
		text = c.cutFiles(text)
	}
	return c.show(block{text: text})
}

// externalText says where a body is that the mail only refers to (RFC 2046 section 5.2.3,
// RFC 2017).
func externalText(p *mime.Part) string {
	var b strings.Builder
	b.WriteString("-------- Content elsewhere --------\n")
	for _, param := range p.Params {
		b.WriteString(param.Name + ": " + param.Value + "\n")
	}
	return b.String() + "\n"
}

// cutFiles removes uuencoded files from a text and makes them files of the mail.
func (c *composer) cutFiles(text string) string {
	n := begins(text)
	if n == 0 || !c.take(3*len(text)+min(n, maxInside-c.inside+1)*perFile) {
		return text
	}
	files, rest := c.decoder.CutUU([]byte(text), maxInside-c.inside)
	for _, f := range files {
		a := Attachment{Filename: f.Name, ContentType: "application/octet-stream", Size: int64(len(f.Data)), data: f.Data}
		if f.Rest {
			a.Filename, a.ContentType = "more-files.uu", "text/plain"
			c.omit(OverLimit, a.Size, "too many files in uuencode")
		} else {
			c.inside++
		}
		c.omit(UnpackedFile, a.Size, "uuencode: "+a.Filename)
		c.files = append(c.files, a)
	}
	return string(rest)
}

// begins is how many files in uuencode a text has at most.
func begins(text string) int {
	n := strings.Count(text, "\nbegin ")
	if strings.HasPrefix(text, "begin ") {
		n++
	}
	return n
}

// maxInside bounds the files taken out of a mail's parts, from uuencode and winmail.dat.
const maxInside = 1000

// perFile is the memory that a file takes besides its content.
const perFile = 1 << 10

// enrichedText removes the formatting commands of text/enriched (RFC 1896).
func enrichedText(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for {
		i := strings.IndexByte(s, '<')
		if i < 0 {
			break
		}
		b.WriteString(s[:i])
		s = s[i:]
		if strings.HasPrefix(s, "<<") {
			b.WriteByte('<')
			s = s[2:]
			continue
		}
		end := strings.IndexByte(s, '>')
		if end < 0 {
			break
		}
		s = s[end+1:]
	}
	b.WriteString(s)
	return b.String()
}

// tnef unpacks Outlook's winmail.dat. Its body is used if the mail has no html of its own.
// Without files and a body, it only has formatting for Outlook.
func (c *composer) tnef(p *mime.Part) []*block {
	if !c.take(2 * len(p.Body)) {
		return c.file(attachmentOf(p))
	}
	m, err := tnef.Parse(p.Decoded(), maxInside-c.inside)
	if errors.Is(err, tnef.ErrFiles) {
		c.omit(OverLimit, int64(len(p.Body)), "too many files in a winmail.dat")
	}
	if err != nil {
		return c.file(attachmentOf(p))
	}
	c.inside += len(m.Files)
	if len(m.Files) == 0 && len(m.HTML) == 0 {
		return c.leave(p, PartDropped) // only formatting
	}
	c.placed++
	c.omit(UnpackedFile, int64(len(p.Body)), "winmail.dat")
	for _, f := range m.Files {
		c.files = append(c.files, Attachment{Filename: mime.OneLine(f.Name), ContentType: typeOf(f.Name), Size: int64(len(f.Data)), data: f.Data})
	}
	if len(m.HTML) > 0 {
		text, _ := c.decoder.Decode("", m.HTML)
		c.tnefHTML = mime.CleanText(text)
		c.take(3 * len(text))
	}
	return nil
}

func attachmentOf(p *mime.Part) Attachment {
	return Attachment{
		Filename:    p.Filename(),
		ContentType: p.Type,
		ContentID:   p.ContentID(),
		Inline:      p.Disposition() == "inline" || p.Disposition() == "" && p.Header.Has("Content-ID"),
		Size:        p.Size(),
		part:        p,
	}
}

// typeOf guesses the media type of a file from its name.
func typeOf(name string) string {
	_, ext, _ := strings.Cut(name[max(strings.LastIndexByte(name, '.'), 0):], ".")
	switch strings.ToLower(ext) {
	case "pdf":
		return "application/pdf"
	case "png":
		return "image/png"
	case "jpg", "jpeg":
		return "image/jpeg"
	case "gif":
		return "image/gif"
	case "txt", "log":
		return "text/plain"
	case "csv":
		return "text/csv"
	case "html", "htm":
		return "text/html"
	}
	return "application/octet-stream"
}

// calendar shows an invitation that stands alone as text: what, when and where. An
// invitation that is an alternative of a body is left out; see version.
func (c *composer) calendar(p *mime.Part) []*block {
	if c.options.Attachments == SendAttachments {
		return c.file(attachmentOf(p))
	}
	a := attachmentOf(p)
	c.omit(AlternativeDropped, a.Size, "an invitation, shown as text: "+a.Describe())
	text := c.text(p)
	if c.take(5 * len(text)) {
		text = eventText(text)
	}
	return c.show(block{text: text})
}

// eventText returns the first event of an iCalendar object (RFC 5545) as text.
func eventText(ics string) string {
	ics = unfoldEvent(ics)
	unescape := strings.NewReplacer(`\n`, "\n", `\N`, "\n", `\,`, ",", `\;`, ";", `\\`, `\`).Replace // RFC 5545 section 3.3.11
	var b strings.Builder
	b.Grow(len(ics))
	in := false
	for line := range strings.Lines(ics) {
		line = strings.TrimSpace(line)
		name, value, ok := cutProperty(line)
		name, params, _ := strings.Cut(name, ";")
		name = strings.ToUpper(name)
		switch {
		case strings.EqualFold(line, "BEGIN:VEVENT"):
			in = true
		case strings.EqualFold(line, "END:VEVENT"):
			return b.String()
		case in && ok:
			if label := eventLabel(name); label != "" {
				for _, piece := range [...]string{label, ": ", eventValue(name, params, value, unescape), "\n"} {
					b.WriteString(piece)
				}
			}
		}
	}
	if b.Len() == 0 {
		return ics
	}
	return b.String()
}

// unfoldEvent joins the folded lines of each property (RFC 5545 section 3.1).
func unfoldEvent(ics string) string {
	var b strings.Builder
	b.Grow(len(ics))
	for line := range strings.SplitAfterSeq(ics, "\n") {
		if next := strings.TrimLeft(line[:min(len(line), 1)], " \t"); b.Len() > 0 && line != "" && next == "" {
			line = line[1:]
		} else if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(strings.TrimSuffix(line, "\n"))
	}
	return b.String()
}

func eventLabel(name string) string {
	switch name {
	case "SUMMARY":
		return "Event"
	case "DTSTART":
		return "Start"
	case "DTEND":
		return "End"
	case "LOCATION":
		return "Location"
	case "ORGANIZER":
		return "Organizer"
	case "DESCRIPTION":
		return "Description"
	case "RRULE":
		return "Repeats"
	case "STATUS":
		return "Status" // above all CANCELLED
	}
	return ""
}

// cutProperty splits a content line at its colon. A colon in a quoted parameter does not
// count (RFC 5545 section 3.1).
func cutProperty(line string) (name, value string, ok bool) {
	quoted := false
	for i := range len(line) {
		switch {
		case line[i] == '"':
			quoted = !quoted
		case line[i] == ':' && !quoted:
			return line[:i], line[i+1:], true
		}
	}
	return line, "", false
}

// timeZone returns the zone in the parameters of a time, in brackets.
func timeZone(params string) string {
	for p := range strings.SplitSeq(params, ";") {
		if name, value, _ := strings.Cut(p, "="); strings.EqualFold(name, "TZID") && value != "" {
			return " (" + strings.Trim(value, `"`) + ")"
		}
	}
	return ""
}

func eventValue(name, params, value string, unescape func(string) string) string {
	switch name {
	case "DTSTART", "DTEND":
		return eventTime(value) + timeZone(params)
	case "ORGANIZER":
		return strings.TrimPrefix(strings.TrimPrefix(value, "mailto:"), "MAILTO:")
	}
	return unescape(value)
}

// eventTime writes a time such as 20260102T150405Z for people.
func eventTime(v string) string {
	date, clock, _ := strings.Cut(v, "T")
	utc := strings.HasSuffix(clock, "Z")
	clock = strings.TrimSuffix(clock, "Z")
	if len(date) != 8 || strings.Trim(date+clock, "0123456789") != "" {
		return v
	}
	out := date[:4] + "-" + date[4:6] + "-" + date[6:]
	if len(clock) >= 4 {
		out += " " + clock[:2] + ":" + clock[2:4]
	}
	if utc {
		out += " UTC"
	}
	return out
}

func isSMIME(p *mime.Part) bool {
	return p.Type == "application/pkcs7-mime" || p.Type == "application/x-pkcs7-mime" || strings.EqualFold(p.Filename(), "smime.p7m")
}

// smime opens an opaque signed message (RFC 8551 section 3.5.2), which wraps a readable
// body in its signature, and drops the signature. Other content of this type is encrypted,
// or certificates.
func (c *composer) smime(p *mime.Part) []*block {
	kind := strings.ToLower(p.Param("smime-type"))
	if kind == "certs-only" {
		return c.leave(p, SignatureDropped)
	}
	c.take(3 * len(p.Body)) // for the decoded part, and for the content from its pieces
	content, ok := signedContent(p.Decoded())
	if !ok && kind == "signed-data" {
		return c.file(attachmentOf(p)) // it claims not to be encrypted, but has no signed content
	}
	if !ok || c.opened >= maxOpened || c.memory < 0 {
		c.sealed = "S/MIME"
		return c.file(attachmentOf(p))
	}
	c.opened++
	c.placed++
	c.omit(SignatureDropped, 0, "S/MIME, around the body")
	return c.part(mime.Parse(content, c.options.Limits))
}

// maxOpened bounds how many signatures of a mail are opened. Each may contain the next.
const maxOpened = 4

// signedContent returns the content of CMS signed data: the octets after the object
// identifiers of signedData and data. It does not use encoding/asn1, which refuses the BER
// with indefinite lengths that signers write. It verifies nothing, because the mail that
// the provider sends is no longer the signed one.
func signedContent(der []byte) ([]byte, bool) {
	signedData := []byte{0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x07, 0x02}
	data := []byte{0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x07, 0x01}
	i := bytes.Index(der, signedData)
	if i < 0 || i > 32 {
		return nil, false
	}
	j := bytes.Index(der[i:], data)
	if j < 0 {
		return nil, false
	}
	b := der[i+j+len(data):]
	tag, body, _, ok := readTLV(b)
	if !ok || tag != 0xA0 {
		return nil, false // a detached signature
	}
	return octets(body)
}

// octets reads an OCTET STRING, in one piece or in many.
func octets(b []byte) ([]byte, bool) {
	tag, body, _, ok := readTLV(b)
	switch {
	case !ok:
		return nil, false
	case tag == 0x04:
		return body, true
	case tag != 0x24:
		return nil, false
	}
	var out []byte
	for len(body) > 0 {
		tag, piece, rest, ok := readTLV(body)
		if !ok || tag != 0x04 {
			break // the end-of-contents marker
		}
		out = append(out, piece...)
		body = rest
	}
	return out, true
}

// readTLV reads a tag, its contents, and what follows. Contents of indefinite length are
// everything that is left.
func readTLV(b []byte) (tag byte, body, rest []byte, ok bool) {
	if len(b) < 2 {
		return 0, nil, nil, false
	}
	tag, n := b[0], int(b[1])
	b = b[2:]
	switch {
	case n == 0x80:
		return tag, b, nil, true
	case n > 0x80:
		size := n & 0x7F
		if size > 4 || size > len(b) {
			return 0, nil, nil, false
		}
		n = 0
		for _, c := range b[:size] {
			n = n<<8 | int(c)
		}
		b = b[size:]
	}
	if n > len(b) {
		n = len(b) // it was cut short
	}
	return tag, b[:n], b[n:], true
}
