package mail

import (
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
)

// composer builds one Mail from the tree of parts. Every leaf of the tree ends
// in a body, in the files or in an omission: each goes through exactly one of
// show, file and leave.
type composer struct {
	options *Options
	mail    *Mail
	decoder *mime.Decoder
	charset string       // the mail's first declared one: a hint for its headers
	files   []Attachment // what the attachment policy decides on
	sealed  string       // an encrypted part: what it is

	memory    int64  // that may still be taken; below 0 the mail is refused
	explained int    // omissions that were explained
	inside    int    // files that were found inside parts
	opened    int    // S/MIME wrappings that were opened
	tnefHTML  string // the body of a winmail.dat

	leaves, fates int // for the test that nothing is lost
}

func newComposer(o *Options, root *mime.Part, memory int64) *composer {
	return &composer{
		options: o, decoder: root.Decoder(), memory: memory,
		mail: &Mail{},
	}
}

// block is one stretch of the body: a text or a document, or one of each that
// say the same, which is what an alternative comes to.
type block struct {
	text    string
	html    string
	hasHTML bool
	plain   []*block // of an alternative: what its text is made of, in place of text
	rich    []*block // and its document, in place of html
	said    string   // a document's text, once words made it
}

// take counts memory that is about to be taken, in octets, and reports whether
// it is there. A mail for which it is not is refused.
func (c *composer) take(n int) bool {
	c.memory -= int64(n)
	return c.memory >= 0
}

// omit records an omission: a piece of that size, and what an explanation says
// of it.
func (c *composer) omit(kind OmissionKind, size int64, words string) {
	c.mail.omit(kind, size)
	if c.options.Explain != nil && c.explained < maxExplained {
		c.explained++
		c.options.Explain(kind, cut(strings.TrimSpace(mime.OneLine(words)), maxWords))
	}
}

const (
	maxExplained = 200  // omissions of a mail
	maxWords     = 1000 // octets of each
)

// show makes a leaf part of the body.
func (c *composer) show(b block) []*block {
	c.fates++
	return []*block{&b}
}

// file makes a leaf a file, for the policy to decide on.
func (c *composer) file(a Attachment) []*block {
	c.fates++
	c.files = append(c.files, a)
	return nil
}

// leave leaves out a leaf that means nothing alone. An account that takes
// attachments takes it all the same.
func (c *composer) leave(p *mime.Part, kind OmissionKind) []*block {
	if c.options.Attachments == SendAttachments {
		return c.file(attachmentOf(p))
	}
	c.fates++
	a := attachmentOf(p)
	c.omit(kind, a.Size, a.Describe())
	return nil
}

// compose sets the bodies and the attachments.
func (c *composer) compose(root *mime.Part) *Refusal {
	c.charset = bodyCharset(root)
	blocks := c.mergeVersions(c.part(root))
	if c.tnefHTML != "" && !anyHTML(blocks) {
		blocks = []*block{{plain: blocks, html: c.tnefHTML, hasHTML: true}}
	}
	c.defects(root)
	refusal := c.attach()
	c.mail.Text, c.mail.HTML = c.joinText(blocks), c.joinHTML(blocks)
	if strings.TrimSpace(c.mail.HTML) == "" {
		c.mail.HTML = c.textToHTML(c.mail.Text) // the API wants some
	}
	if refusal == nil && c.options.Attachments == StripAttachments && len(c.files) > 0 {
		c.addNotice()
	}
	c.take(EscapedSize(c.mail.HTML) + EscapedSize(c.mail.Text))
	return refusal
}

// readable reports whether there is anything of a mail in it: a header, or a
// body that a person could read.
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

// defects turns what the parser had to repair into omissions.
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
