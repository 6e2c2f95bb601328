package mail

import (
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
)

// part returns the body that a part contributes.
func (c *composer) part(p *mime.Part) []*block {
	if isMessage(p) {
		return c.message(p)
	}
	if !p.Container() {
		return c.leaf(p)
	}
	switch p.Type {
	case "multipart/alternative":
		return c.alternative(p)
	case "multipart/report":
		return c.report(p)
	case "multipart/encrypted":
		c.sealed = p.Type
	}
	return c.children(p.Parts)
}

// children joins the bodies of parts in order, as a mail reader shows them.
func (c *composer) children(parts []*mime.Part) []*block {
	var blocks []*block
	for _, p := range parts {
		blocks = append(blocks, c.part(p)...)
	}
	return blocks
}

// alternative chooses between versions of one content (RFC 2046 section
// 5.1.4). The html is made of the versions that have html, the text of those
// that are text alone, and of the text that stands beside the html. Two
// versions of one type, which only a broken program writes, are both kept
// unless they are equal: showing twice is better than losing.
func (c *composer) alternative(p *mime.Part) []*block {
	var text, html []*block
	var others []*mime.Part
	for _, child := range p.Parts {
		if isVersion(child) {
			others = append(others, child)
			continue
		}
		blocks := c.part(child)
		if anyHTML(blocks) {
			html = addVersion(html, blocks)
		} else {
			text = addVersion(text, blocks)
		}
	}
	for _, other := range others {
		blocks := c.version(other, len(text)+len(html) == 0)
		text = append(text, blocks...)
	}
	switch {
	case len(html) == 0:
		return text
	case !anyText(text):
		return html
	}
	said := ""
	for _, b := range html {
		switch {
		case !b.hasHTML:
			text = append(text, b)
		case b.text != "" || len(b.plain) > 0:
			if said == "" {
				said = c.joinText(text)
			}
			if own := c.joinText([]*block{{text: b.text, plain: b.plain}}); strings.TrimSpace(own) != "" && !sameWords(own, said) {
				c.omit(AlternativeDropped, int64(len(own)), "a second text that stands beside the html")
			}
		}
	}
	return []*block{{plain: text, rich: html, hasHTML: true}}
}

// isVersion reports whether a part of an alternative is in a format that only
// counts when there is neither text nor html.
func isVersion(p *mime.Part) bool {
	return !p.Container() && strings.HasPrefix(p.Type, "text/") && p.Type != "text/plain" && p.Type != "text/html" && p.Disposition() != "attachment"
}

// version shows or leaves out such a part.
func (c *composer) version(p *mime.Part, only bool) []*block {
	if only {
		return c.leaf(p)
	}
	c.leaves++
	return c.leave(p, AlternativeDropped)
}

func addVersion(have, more []*block) []*block {
	if equalBlocks(have, more) {
		return have
	}
	return append(have, more...)
}

// report shows a bounce or a receipt (RFC 6522): what people and programs are
// told, and what came back. That is shown for context only, so that its files
// are left out whatever the policy.
func (c *composer) report(p *mime.Part) []*block {
	var blocks []*block
	for i, child := range p.Parts {
		if i < 2 || !isMessage(child) || c.options.Attachments == SendAttachments {
			blocks = append(blocks, c.part(child)...)
			continue
		}
		before := len(c.files)
		blocks = append(blocks, c.part(child)...)
		for j := range c.files[before:] {
			f := &c.files[before+j]
			c.omit(PartDropped, f.Size, f.Describe()+" of the returned message")
		}
		c.files = c.files[:before]
	}
	return blocks
}

// message shows an embedded message under its own header, as mail readers do.
// An account that takes attachments gets it as a file, unless it is one of a
// digest, whose parts have no type of their own.
func (c *composer) message(p *mime.Part) []*block {
	if !p.Container() || c.options.Attachments == SendAttachments && p.Header.Has("Content-Type") {
		c.leaves++
		return c.file(attachmentOf(p))
	}
	var blocks []*block
	for _, child := range p.Parts {
		head := c.messageHead(child)
		c.omit(EmbeddedMessage, int64(len(child.Body)), c.decoder.Words(child.Header.Get("Subject"), bodyCharset(child)))
		blocks = append(blocks, head)
		blocks = append(blocks, c.part(child)...)
	}
	return blocks
}

func isMessage(p *mime.Part) bool {
	return p.Type == "message/rfc822" || p.Type == "message/global"
}

// messageHead shows what a reader wants to know of an embedded message.
func (c *composer) messageHead(p *mime.Part) *block {
	var b strings.Builder
	charset := bodyCharset(p)
	b.WriteString("-------- Forwarded message --------\n")
	for _, name := range []string{"From", "Date", "To", "Cc", "Subject"} {
		if v := p.Header.Get(name); len(v) > 0 {
			b.WriteString(name + ": " + c.decoder.Words(v, charset) + "\n")
		}
	}
	c.take(3 * b.Len())
	return &block{text: b.String()}
}
