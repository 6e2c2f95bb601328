package payload

import (
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/payload/mime"
)

// composer builds one Mail from the tree of parts. Every leaf of the tree ends
// in a body, in the files or in a note: each goes through exactly one of show,
// file and leave.
type composer struct {
	options *Options
	mail    *Mail
	charset string       // the mail's first declared one: a hint for its headers
	files   []Attachment // what the attachment policy decides on
	sealed  string       // an encrypted part: what it is

	opened   int    // S/MIME wrappings that were opened
	tnefHTML string // the body of a winmail.dat

	leaves, fates int // for the test that nothing is lost
}

// block is one stretch of the body, as text, as html or as both.
type block struct {
	text    string
	html    string
	hasHTML bool
}

func (c *composer) note(kind NoteKind, detail string) {
	c.mail.Notes = append(c.mail.Notes, Note{kind, strings.TrimSpace(mime.OneLine(detail))})
}

// show makes a leaf part of the body.
func (c *composer) show(b block) []block {
	c.fates++
	return []block{b}
}

// file makes a leaf a file, for the policy to decide on.
func (c *composer) file(a Attachment) []block {
	c.fates++
	c.files = append(c.files, a)
	return nil
}

// leave leaves out a leaf that means nothing alone. An account that takes
// attachments takes it all the same.
func (c *composer) leave(p *mime.Part, kind NoteKind) []block {
	if c.options.Attachments == SendAttachments {
		return c.file(attachmentOf(p))
	}
	c.fates++
	c.note(kind, describePart(p))
	return nil
}

// compose sets the bodies and the attachments.
func (c *composer) compose(root *mime.Part) *Refusal {
	c.charset = bodyCharset(root)
	blocks := mergeVersions(c.part(root))
	if c.tnefHTML != "" && !anyHTML(blocks) {
		blocks = []block{{text: joinText(blocks), html: c.tnefHTML, hasHTML: true}}
	}
	c.defects(root)
	refusal := c.attach()
	c.mail.Text, c.mail.HTML = joinText(blocks), joinHTML(blocks)
	if strings.TrimSpace(c.mail.HTML) == "" {
		c.mail.HTML = textToHTML(c.mail.Text) // the API wants some
	}
	if refusal == nil && c.options.Attachments == StripAttachments && len(c.files) > 0 {
		c.addNotice()
	}
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

// maxNotes bounds how many notes there are of defects.
const maxNotes = 200

// defects turns what the parser had to repair into notes.
func (c *composer) defects(p *mime.Part) {
	for _, d := range p.Defects {
		n := Note{defectNote(d.Kind), d.Detail}
		if len(c.mail.Notes) < maxNotes && !slices.Contains(c.mail.Notes, n) {
			c.note(n.Kind, n.Detail)
		}
	}
	for _, child := range p.Parts {
		c.defects(child)
	}
}

func defectNote(k mime.DefectKind) NoteKind {
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
