package mail

import (
	"cmp"
	"fmt"
	"html"
	"strings"
)

// attach applies the attachment policy to the files.
func (c *composer) attach() *Refusal {
	switch {
	case c.sealed != "":
		c.mail.Attachments = c.files
		return refuse(Encrypted, "the mail is encrypted ("+c.sealed+"): only its recipient could read it")
	case len(c.files) == 0:
	case c.options.Attachments == SendAttachments:
		c.mail.Attachments = c.files
	case c.options.Attachments == StripAttachments:
		for i := range c.files {
			c.omit(AttachmentStripped, c.files[i].Size, c.files[i].Describe())
		}
	default:
		c.mail.Attachments = c.files
		return refuse(HasAttachment, "attachments cannot be sent from here: "+describeAll(c.files))
	}
	return nil
}

// describeAll describes the first few files.
func describeAll(files []Attachment) string {
	const most = 3
	var names []string
	for i := range files[:min(len(files), most)] {
		names = append(names, files[i].Describe())
	}
	s := strings.Join(names, ", ")
	if n := len(files) - most; n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	return s
}

// Describe describes a file for people: name, type and size.
func (a *Attachment) Describe() string {
	name := a.Filename
	if name == "" {
		name = "unnamed"
	}
	if len(name) > 100 {
		name = strings.ToValidUTF8(name[:100], "") + "..."
	}
	return fmt.Sprintf("%s (%s, %s)", name, cut(a.ContentType, 100), bytesText(a.Size))
}

func bytesText(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MB", n>>20)
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%d kB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

const noticeTitle = "Not sent with this mail, because attachments cannot be carried:"

// addNotice lists the files that were left out at the end of both bodies.
func (c *composer) addNotice() {
	var text, markup strings.Builder
	text.WriteString("\n-- \n" + noticeTitle + "\n")
	markup.WriteString("\n<hr>\n<p>" + noticeTitle + "</p>\n<ul>\n")
	item := func(d string) {
		text.WriteString("* " + d + "\n")
		markup.WriteString("<li>" + html.EscapeString(d) + "</li>\n")
	}
	for i := range c.files[:min(len(c.files), maxNoticed)] {
		item(c.files[i].Describe())
	}
	if n := len(c.files) - maxNoticed; n > 0 {
		item(fmt.Sprintf("and %d more", n))
	}
	markup.WriteString("</ul>\n")
	if !c.take(2*len(c.mail.HTML) + len(c.mail.Text) + 2*markup.Len()) {
		return
	}
	if c.mail.Text != "" {
		c.mail.Text = strings.TrimRight(c.mail.Text, "\n") + "\n" + text.String()
	}
	doc := dropImages(c.mail.HTML, c.files)
	end := bodyEnd(doc)
	c.mail.HTML = doc[:end] + markup.String() + doc[end:]
}

// maxNoticed bounds the files that the notice names.
const maxNoticed = 100

// dropImages replaces images that were left out by their names. Mail readers would show
// them as broken.
func dropImages(doc string, files []Attachment) string {
	var b strings.Builder
	var names map[string]string
	for {
		i := indexFold(doc, "<img")
		if i < 0 {
			break
		}
		end := strings.IndexByte(doc[i:], '>')
		if end < 0 {
			break
		}
		end += i + 1
		if names == nil {
			names = namesByID(files)
			b.Grow(len(doc))
		}
		b.WriteString(doc[:i])
		if name, ok := leftOut(doc[i:end], names); ok {
			b.WriteString(html.EscapeString("[" + name + "]"))
		} else {
			b.WriteString(doc[i:end])
		}
		doc = doc[end:]
	}
	if b.Len() == 0 {
		return doc
	}
	b.WriteString(doc)
	return b.String()
}

// namesByID returns the names of files by content id.
func namesByID(files []Attachment) map[string]string {
	names := make(map[string]string, len(files))
	for i := range files {
		if f := &files[i]; f.ContentID != "" && names[f.ContentID] == "" {
			names[f.ContentID] = cmp.Or(f.Filename, "image")
		}
	}
	return names
}

// leftOut returns the name of the file to which an image tag refers by content id (RFC
// 2392).
func leftOut(tag string, names map[string]string) (string, bool) {
	i := indexFold(tag, "cid:")
	if i < 0 {
		return "", false
	}
	id := tag[i+len("cid:"):]
	if end := strings.IndexAny(id, "\"'> "); end >= 0 {
		id = id[:end]
	}
	// If there is no such file, the image is in no part of the mail.
	return cmp.Or(names[html.UnescapeString(id)], "image"), true
}
