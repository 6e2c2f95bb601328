package mail

import (
	"cmp"
	"fmt"
	"html"
	"net/url"
	"strings"
)

// attach applies the attachment policies to the files. The bodies are set already.
func (c *composer) attach() *Refusal {
	if c.sealed != "" {
		c.mail.Attachments = c.files
		return refuse(Encrypted, "the mail is encrypted ("+c.sealed+"): only its recipient could read it")
	}
	if len(c.files) == 0 {
		return nil
	}
	shown := c.shown()
	var refused, sent, stripped, images []Attachment
	for _, f := range c.files {
		policy := c.options.Attachments
		inline := shown[f.ContentID]
		if inline {
			policy = c.options.Inline
		}
		switch {
		case policy == SendAttachments:
			sent = append(sent, f)
		case policy == StripAttachments && inline:
			images = append(images, f)
		case policy == StripAttachments:
			stripped = append(stripped, f)
		default:
			refused = append(refused, f)
		}
	}
	if len(refused) > 0 {
		c.mail.Attachments = c.files
		return refuse(HasAttachment, "attachments cannot be sent from here: "+describeAll(refused))
	}
	c.mail.Attachments = sent
	c.strip(images, InlineStripped)
	c.strip(stripped, AttachmentStripped)
	if len(images)+len(stripped) > 0 && c.take(2*len(c.mail.HTML)) {
		c.mail.HTML = dropImages(c.mail.HTML, append(images, stripped...))
	}
	if len(stripped) > 0 {
		c.addNotice(stripped)
	}
	return nil
}

func (c *composer) strip(files []Attachment, kind OmissionKind) {
	for i := range files {
		c.omit(kind, files[i].Size, files[i].Describe())
	}
}

// shown returns the Content-IDs of images that the html shows. Without a policy of their
// own, images are files like any other.
func (c *composer) shown() map[string]bool {
	images := map[string]bool{}
	for i := range c.files {
		if f := &c.files[i]; f.ContentID != "" && (strings.HasPrefix(f.ContentType, "image/") || strings.HasPrefix(typeOf(f.Filename), "image/")) {
			images[f.ContentID] = false
		}
	}
	if c.options.Inline == "" || len(images) == 0 {
		return nil
	}
	for doc := c.mail.HTML; ; {
		i := afterCID(doc)
		if i < 0 {
			return images
		}
		doc = doc[i:]
		id := contentID(doc)
		for _, name := range [...]string{html.UnescapeString(id), unescaped(id)} {
			if _, known := images[name]; known {
				images[name] = true
			}
		}
	}
}

// afterCID returns where the first "cid:" of html ends; -1 if there is none.
func afterCID(doc string) int {
	for from := 0; ; {
		i := strings.IndexByte(doc[from:], ':')
		if i < 0 {
			return -1
		}
		from += i + 1
		if from >= len("cid:") && strings.EqualFold(doc[from-len("cid:"):from], "cid:") {
			return from
		}
	}
}

// contentID is the id at the beginning of what follows "cid:" in html.
func contentID(s string) string {
	s = s[:min(len(s), maxWords)]
	if end := strings.IndexAny(s, "\"'> )<"); end >= 0 {
		return s[:end]
	}
	return s
}

// unescaped undoes the percent signs of a URL (RFC 2392).
func unescaped(id string) string {
	plain, err := url.PathUnescape(html.UnescapeString(id))
	if err != nil {
		return id
	}
	return plain
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
func (c *composer) addNotice(files []Attachment) {
	var text, markup strings.Builder
	text.WriteString("\n-- \n" + noticeTitle + "\n")
	markup.WriteString("\n<hr>\n<p>" + noticeTitle + "</p>\n<ul>\n")
	item := func(d string) {
		text.WriteString("* " + d + "\n")
		markup.WriteString("<li>" + html.EscapeString(d) + "</li>\n")
	}
	for i := range files[:min(len(files), maxNoticed)] {
		item(files[i].Describe())
	}
	if n := len(files) - maxNoticed; n > 0 {
		item(fmt.Sprintf("and %d more", n))
	}
	markup.WriteString("</ul>\n")
	if !c.take(2*len(c.mail.HTML) + len(c.mail.Text) + 2*markup.Len()) {
		return
	}
	if c.mail.Text != "" {
		c.mail.Text = strings.TrimRight(c.mail.Text, "\n") + "\n" + text.String()
	}
	doc := c.mail.HTML
	end := bodyEnd(doc)
	c.mail.HTML = doc[:end] + markup.String() + doc[end:]
}

// maxNoticed bounds the files that the notice names.
const maxNoticed = 100

// dropImages replaces images that were left out by their alternative text, or by their
// names without one. Mail readers would show them as broken.
func dropImages(doc string, files []Attachment) string {
	var b strings.Builder
	var names map[string]string
	for {
		i := indexFold(doc, "<img")
		if i < 0 {
			break
		}
		end := tagEnd(doc[i:])
		if end < 0 {
			break
		}
		end += i
		if names == nil {
			names = namesByID(files)
			b.Grow(len(doc))
		}
		b.WriteString(doc[:i])
		if name, ok := leftOut(doc[i:end], names); ok {
			b.WriteString(alternative(doc[i:end], name))
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
	i := afterCID(tag)
	if i < 0 {
		return "", false
	}
	id := contentID(tag[i:])
	// If there is no such file, the image is in no part of the mail.
	return cmp.Or(names[html.UnescapeString(id)], names[unescaped(id)], "image"), true
}

// longestTag bounds how far the end of a tag is looked for behind a ">", which may stand in
// a quoted value.
const longestTag = 2000

// tagEnd returns where the tag ends that s begins with; -1 if it does not.
func tagEnd(s string) int {
	first := strings.IndexByte(s, '>')
	if first < 0 {
		return -1
	}
	quote := byte(0)
	for i := range min(len(s), first+longestTag) {
		switch ch := s[i]; {
		case quote != 0:
			if ch == quote {
				quote = 0
			}
		case ch == '>':
			return i + 1
		case (ch == '"' || ch == '\'') && strings.HasSuffix(strings.TrimRight(s[max(0, i-10):i], " \t\n"), "="):
			quote = ch
		}
	}
	return first + 1 // a quote that is never closed
}

// alternative is what stands for an image that is left out. An empty alternative text says
// that it only decorates.
func alternative(tag, name string) string {
	words, has := attribute(tag, "alt")
	switch words = strings.TrimSpace(words); {
	case has && words == "":
		return ""
	case has:
		name = html.UnescapeString(words)
	}
	return html.EscapeString("[" + name + "]")
}

// attribute returns the value of an attribute of an image tag, as it is written.
func attribute(tag, name string) (value string, has bool) {
	rest := tag[len("<img"):]
	for {
		rest = strings.TrimLeft(rest, tagSpace)
		end := strings.IndexAny(rest, "=>"+tagSpace)
		if end < 0 || rest[end] == '>' && end == 0 {
			return "", false
		}
		key := rest[:end]
		rest = strings.TrimLeft(rest[end:], tagSpace)
		value := ""
		if after, ok := strings.CutPrefix(rest, "="); ok {
			value, rest = attributeValue(strings.TrimLeft(after, tagSpace))
		}
		if strings.EqualFold(key, name) {
			return value, true
		}
	}
}

const tagSpace = " \t\n\f\r/"

// attributeValue cuts a value, in quotes or without, from what follows it.
func attributeValue(s string) (value, rest string) {
	if s != "" && (s[0] == '"' || s[0] == '\'') {
		if end := strings.IndexByte(s[1:], s[0]); end >= 0 {
			return s[1 : end+1], s[end+2:]
		}
	}
	if end := strings.IndexAny(s, " \t\n\f\r>"); end >= 0 { // a "/" is of the value, as in a URL
		return s[:end], s[end:]
	}
	return s, ""
}
