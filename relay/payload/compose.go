package payload

import (
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/payload/mime"
)

// composer builds one Mail from the tree of parts. Every leaf of the tree ends
// either in a body, in the attachments, or in a note.
type composer struct {
	options *Options
	mail    *Mail
	charset string       // the mail's first declared one: a hint for its headers
	files   []Attachment // what policy decides on
	sealed  string       // an encrypted part: what it is
}

// block is one stretch of the body, as text, as html or as both.
type block struct {
	text    string
	html    string
	hasHTML bool
}

func (c *composer) note(kind NoteKind, detail string) {
	c.mail.Notes = append(c.mail.Notes, Note{kind, mime.OneLine(detail)})
}

// compose sets the bodies and the attachments.
func (c *composer) compose(root *mime.Part) error {
	c.charset = bodyCharset(root)
	blocks := c.part(root)
	c.defects(root)
	if c.sealed != "" {
		return refuse(Encrypted, "the mail is encrypted ("+c.sealed+"): only its recipient could read it")
	}
	if err := c.attach(); err != nil {
		return err
	}
	c.mail.Text, c.mail.HTML = joinText(blocks), joinHTML(blocks)
	if c.options.Attachments == StripAttachments {
		c.addNotice()
	}
	return nil
}

// part returns the body that a part contributes.
func (c *composer) part(p *mime.Part) []block {
	switch {
	case len(p.Parts) == 0:
		return c.leaf(p)
	case p.Type == "message/rfc822" || p.Type == "message/global":
		return c.forwarded(p)
	}
	switch p.Type {
	case "multipart/alternative":
		return c.alternative(p)
	case "multipart/encrypted":
		c.sealed = p.Type
		return nil
	}
	var blocks []block
	for _, child := range p.Parts {
		blocks = append(blocks, c.part(child)...)
	}
	return blocks
}

// alternative chooses between versions of one content (RFC 2046 section
// 5.1.4): the html is the last version that has any, the text the versions
// that are text alone.
func (c *composer) alternative(p *mime.Part) []block {
	var text, html []block
	for _, child := range p.Parts {
		blocks := c.part(child)
		if anyHTML(blocks) {
			html = append(html, blocks...)
		} else {
			text = append(text, blocks...)
		}
	}
	switch {
	case len(html) == 0:
		return text
	case len(text) == 0:
		return html
	}
	return []block{{text: joinText(text), html: joinHTML(html), hasHTML: true}}
}

func anyHTML(blocks []block) bool {
	for _, b := range blocks {
		if b.hasHTML {
			return true
		}
	}
	return false
}

// leaf returns the body of a part without parts, or files it.
func (c *composer) leaf(p *mime.Part) []block {
	switch {
	case p.Type == "application/pgp-signature", p.Type == "application/pkcs7-signature", p.Type == "application/x-pkcs7-signature":
		c.note(SignatureDropped, p.Type)
		return nil
	case isBody(p) && p.Type == "text/html":
		return []block{{html: p.Text(), hasHTML: true}}
	case isBody(p):
		return []block{{text: p.Text()}}
	case strings.HasPrefix(p.Type, "multipart/"):
		return nil // its parts were attached elsewhere, or it is empty
	}
	c.files = append(c.files, Attachment{
		Filename:    p.Filename(),
		ContentType: p.Type,
		ContentID:   p.ContentID(),
		Inline:      p.Disposition() == "inline" || p.Disposition() == "" && p.ContentID() != "",
		Size:        p.Size(),
		part:        p,
	})
	return nil
}

func isBody(p *mime.Part) bool {
	if p.Disposition() == "attachment" {
		return false
	}
	switch p.Type {
	case "text/plain", "text/html":
		return true
	case "message/delivery-status", "message/disposition-notification", "message/feedback-report", "text/rfc822-headers":
		return true
	}
	return strings.HasPrefix(p.Type, "text/") && p.Filename() == ""
}

// forwarded makes an embedded message part of the body, under its own header
// as mail readers show it.
func (c *composer) forwarded(p *mime.Part) []block {
	c.note(EmbeddedMessage, mime.DecodeWords(p.Parts[0].Header.Get("Subject"), c.charset))
	var blocks []block
	for _, child := range p.Parts {
		var head strings.Builder
		for _, name := range []string{"From", "Date", "To", "Cc", "Subject"} {
			if v := child.Header.Get(name); len(v) > 0 {
				head.WriteString(name + ": " + mime.DecodeWords(v, c.charset) + "\n")
			}
		}
		if head.Len() > 0 {
			blocks = append(blocks, block{text: "-------- Forwarded message --------\n" + head.String()})
		}
		blocks = append(blocks, c.part(child)...)
	}
	return blocks
}

// defects turns what the parser had to repair into notes.
func (c *composer) defects(p *mime.Part) {
	kinds := map[mime.DefectKind]NoteKind{
		mime.BadHeader: HeaderRepaired, mime.BadBoundary: StructureRepaired, mime.BadEncoding: EncodingRepaired,
		mime.BadCharset: CharsetRepaired, mime.OverLimit: OverLimit, mime.Epilogue: EpilogueDropped,
	}
	for _, d := range p.Defects {
		c.note(kinds[d.Kind], d.Detail)
	}
	for _, child := range p.Parts {
		c.defects(child)
	}
}

// joinText joins the blocks as text; "" when none has any.
func joinText(blocks []block) string {
	var b strings.Builder
	for _, block := range blocks {
		if strings.TrimSpace(block.text) == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("\n")
		}
		b.WriteString(block.text)
		if !strings.HasSuffix(block.text, "\n") && len(blocks) > 1 {
			b.WriteString("\n")
		}
	}
	return b.String()
}

// joinHTML joins the blocks as html.
func joinHTML(blocks []block) string {
	if !anyHTML(blocks) {
		return textToHTML(joinText(blocks))
	}
	var b strings.Builder
	for _, block := range blocks {
		if block.hasHTML {
			b.WriteString(block.html)
		} else if strings.TrimSpace(block.text) != "" {
			b.WriteString(textToHTML(block.text))
		}
	}
	return b.String()
}
