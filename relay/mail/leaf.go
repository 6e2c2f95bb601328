package mail

import (
	"errors"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
	"github.com/smtp2rest/smtp2rest/relay/mail/tnef"
)

// leaf returns the body of a part without parts, or files it.
func (c *composer) leaf(p *mime.Part) []*block {
	c.leaves++
	switch {
	case strings.HasPrefix(p.Type, "multipart/"):
		c.fates++ // empty: its parts were nested too deeply and stand elsewhere
		return nil
	case isSignature(p):
		return c.leave(p, SignatureDropped)
	case isSMIME(p):
		return c.smime(p)
	case p.Type == "application/pgp-encrypted":
		c.sealed = p.Type
		return c.file(attachmentOf(p))
	case p.Type == "application/applefile":
		return c.leave(p, PartDropped) // a Mac's resources, RFC 1740
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

// isBody reports whether mail readers show a part: text that is not said to be
// a file. Types of text that are not known are shown as plain text (RFC 2046
// section 4.1.4) unless they have a file's name.
func isBody(p *mime.Part) bool {
	if p.Disposition() == "attachment" {
		// A program's habit where a body has no name and is all there is.
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

// shownOrSent reports whether a part is shown as text only where it cannot be
// sent as the file it is.
func shownOrSent(p *mime.Part) bool {
	switch p.Type {
	case "text/plain", "text/html":
		return false
	}
	return strings.HasPrefix(p.Type, "text/") || strings.HasPrefix(p.Type, "message/")
}

// nameDropped records that a text has a file's name, which it loses where it is
// shown: nothing in a body says what it was called.
func (c *composer) nameDropped(p *mime.Part) {
	if name := p.Filename(); name != "" {
		c.omit(NameDropped, int64(len(name)), name)
	}
}

// text decodes a text, unless the mail has taken more than its share already.
func (c *composer) text(p *mime.Part) string {
	if c.memory < int64(len(p.Body)) {
		c.memory = -1
		return ""
	}
	text, took := p.Text()
	c.take(took)
	return text
}

// body shows a part that is text.
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

// externalText says where a body is that the mail only refers to (RFC 2046
// section 5.2.3, RFC 2017).
func externalText(p *mime.Part) string {
	var b strings.Builder
	b.WriteString("-------- Content elsewhere --------\n")
	for _, param := range p.Params {
		b.WriteString(param.Name + ": " + param.Value + "\n")
	}
	return b.String() + "\n"
}

// cutFiles takes the files in uuencode out of a text.
func (c *composer) cutFiles(text string) string {
	if !strings.HasPrefix(text, "begin ") && !strings.Contains(text, "\nbegin ") || !c.take(3*len(text)) {
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
		c.take(perFile)
		c.omit(UnpackedFile, a.Size, "uuencode: "+a.Filename)
		c.files = append(c.files, a)
	}
	return string(rest)
}

// maxInside bounds how many files are taken out of the parts of a mail, from
// uuencode and winmail.dat.
const maxInside = 1000

// perFile is what a file takes besides its content.
const perFile = 1 << 10

// enrichedText drops the formatting commands of RFC 1896.
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

// tnef unpacks Outlook's winmail.dat. Its body counts when the mail shows none
// of its own beside it; without files and body it holds only formatting.
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
		return c.leave(p, PartDropped) // formatting for Outlook
	}
	c.fates++
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

// typeOf names the media type of a file that came without one.
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
