package mail

import (
	"html"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
)

// composer builds a Mail from the tree of parts. Each leaf of the tree ends in a body,
// in the files, or in an omission: it goes through exactly one of show, file and leave.
type composer struct {
	options *Options
	mail    *Mail
	decoder *mime.Decoder
	charset string       // the first that the mail declares; a hint for its header
	files   []Attachment // for the attachment policy
	sealed  string       // the type of an encrypted part; "" if there is none

	memory    int64  // that may still be taken; below 0 the mail is refused
	explained int    // omissions explained so far
	inside    int    // files found inside parts
	fields    int    // values of headers in fields
	opened    int    // S/MIME signatures opened
	tnefHTML  string // the body in a winmail.dat

	leaves, placed int // for the test that no leaf is lost
}

func newComposer(o *Options, root *mime.Part, memory int64) *composer {
	return &composer{
		options: o, decoder: root.Decoder(), memory: memory,
		mail: &Mail{},
	}
}

// block is a part of the body: a text, an html document, or both. A multipart/alternative
// becomes one block that has both.
type block struct {
	text    string
	html    string
	hasHTML bool
	plain   []*block // of an alternative: the blocks that make its text; replaces text
	rich    []*block // of an alternative: the blocks that make its html; replaces html
	said    string   // the document as text, after words made it
}

// take counts n octets of memory that the caller is about to allocate. It returns false
// if that is more than the mail may take; the mail is then refused.
func (c *composer) take(n int) bool {
	c.memory -= int64(n)
	return c.memory >= 0
}

// omit records an omission: a piece of the given size, with words for Options.Explain.
func (c *composer) omit(kind OmissionKind, size int64, words string) {
	c.mail.omit(kind, size)
	if c.options.Explain != nil && c.explained < maxExplained {
		c.explained++
		c.options.Explain(kind, cut(strings.TrimSpace(mime.OneLine(words)), maxWords))
	}
}

const (
	maxExplained = 200  // omissions of a mail that are explained
	maxWords     = 1000 // octets of an explanation
)

// show makes a leaf a part of the body.
func (c *composer) show(b block) []*block {
	c.placed++
	return []*block{&b}
}

// file makes a leaf a file, for the attachment policy.
func (c *composer) file(a Attachment) []*block {
	c.placed++
	c.files = append(c.files, a)
	return nil
}

// leave leaves out a leaf that means nothing on its own. If attachments are sent, it is
// sent as one nevertheless.
func (c *composer) leave(p *mime.Part, kind OmissionKind) []*block {
	if c.options.Attachments == SendAttachments {
		return c.file(attachmentOf(p))
	}
	c.placed++
	a := attachmentOf(p)
	c.omit(kind, a.Size, a.Describe())
	return nil
}

// compose sets the bodies and the attachments of the mail.
func (c *composer) compose(root *mime.Part) *Refusal {
	c.charset = bodyCharset(root)
	blocks := c.mergeVersions(c.part(root))
	if c.tnefHTML != "" && !anyHTML(blocks) {
		blocks = []*block{{plain: blocks, html: c.tnefHTML, hasHTML: true}}
	}
	c.defects(root)
	c.mail.Text, c.mail.HTML = c.joinText(blocks), c.joinHTML(blocks)
	if strings.TrimSpace(c.mail.HTML) == "" {
		c.mail.HTML = c.textToHTML(c.mail.Text) // the API requires html
	}
	if c.options.CopyFor != "" {
		c.nameRecipients()
	}
	refusal := c.attach()
	c.take(EscapedSize(c.mail.HTML) + EscapedSize(c.mail.Text))
	return refusal
}

// nameRecipients has the bodies of an archive's copy begin with whom the mail was for: the
// API takes one recipient, and that is the archive.
func (c *composer) nameRecipients() {
	m, line := c.mail, "Copy for the archive. This mail was for "+mime.OneLine(c.options.CopyFor)+"."
	if !c.take(len(m.Text) + len(m.HTML) + 2*len(line)) {
		return
	}
	if m.Text != "" {
		m.Text = line + "\n\n" + m.Text
	}
	before, rest := SplitTop(m.HTML)
	m.HTML = before + "<p><em>" + html.EscapeString(line) + "</em></p>\n" + rest
}

// readable reports whether raw bytes are a mail: whether they have a header, or a body
// that a person could read.
func readable(root *mime.Part) bool {
	sample := root.Body[:min(len(root.Body), 4096)]
	if len(root.Header) > 0 || len(sample) == 0 {
		return true
	}
	controls := 0
	for _, b := range sample {
		if b < ' ' && !strings.ContainsRune("\t\n\r\f\x1b", rune(b)) {
			controls++
		}
	}
	return controls*20 < len(sample)
}

// defects records what the parser had to repair as omissions.
func (c *composer) defects(p *mime.Part) {
	for _, d := range p.Defects {
		c.omit(defectKind(d.Kind), int64(d.Size), d.Detail)
	}
	for _, child := range p.Parts {
		c.defects(child)
	}
}

func defectKind(k mime.DefectKind) OmissionKind {
	switch k {
	case mime.BadHeader:
		return HeaderRepaired
	case mime.BadBoundary:
		return StructureRepaired
	case mime.BadEncoding:
		return EncodingRepaired
	case mime.BadCharset:
		return CharsetRepaired
	case mime.Epilogue:
		return EpilogueDropped
	}
	return OverLimit
}

// part returns the body of a part.
func (c *composer) part(p *mime.Part) []*block {
	if p.IsMessage() {
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

// children joins the bodies of parts in order, as mail readers show them.
func (c *composer) children(parts []*mime.Part) []*block {
	var blocks []*block
	for _, p := range parts {
		blocks = append(blocks, c.part(p)...)
	}
	return blocks
}

// alternative chooses between versions of the same content (RFC 2046 section 5.1.4). Its
// html comes from the versions that have html. Its text comes from the versions that are
// only text, and from text that stands beside the html. Two versions of the same type,
// which only a broken program writes, are both kept unless they are equal: showing twice
// is better than losing.
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

// isVersion reports whether a part of an alternative has a format that only matters if
// there is neither text nor html.
func isVersion(p *mime.Part) bool {
	return !p.Container() && strings.HasPrefix(p.Type, "text/") && p.Type != "text/plain" && p.Type != "text/html" && p.Disposition() != "attachment"
}

// version shows such a part, or leaves it out.
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

// report shows a bounce or a receipt (RFC 6522): the parts for people and for programs, and
// the returned message. The returned message is only context, so its files are left out
// whatever the policy.
func (c *composer) report(p *mime.Part) []*block {
	var blocks []*block
	for i, child := range p.Parts {
		if i < 2 || !child.IsMessage() || c.options.Attachments == SendAttachments {
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

// message shows an embedded message with its header, as mail readers do. If attachments
// are sent, it is sent as a file. A message of a digest has no Content-Type and is always
// shown.
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

// messageHead returns the header of an embedded message as text.
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
