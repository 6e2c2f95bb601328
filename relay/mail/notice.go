package mail

import (
	"cmp"
	"fmt"
	"html"
	"strings"
)

const noticeTitle = "Not sent with this mail, because attachments cannot be carried:"

// addNotice lists at the end of both bodies what was left out of them.
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

// maxNoticed bounds how many files a mail's reader is told of by name.
const maxNoticed = 100

// dropImages replaces the images that were left out by their names: readers
// would show each as broken.
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

// namesByID are the files that a document may show, by their content id.
func namesByID(files []Attachment) map[string]string {
	names := make(map[string]string, len(files))
	for i := range files {
		if f := &files[i]; f.ContentID != "" && names[f.ContentID] == "" {
			names[f.ContentID] = cmp.Or(f.Filename, "image")
		}
	}
	return names
}

// leftOut returns the name of the file that an image tag shows by its content
// id (RFC 2392).
func leftOut(tag string, names map[string]string) (string, bool) {
	i := indexFold(tag, "cid:")
	if i < 0 {
		return "", false
	}
	id := tag[i+len("cid:"):]
	if end := strings.IndexAny(id, "\"'> "); end >= 0 {
		id = id[:end]
	}
	// One that is not there is of a part that is not in the mail either.
	return cmp.Or(names[html.UnescapeString(id)], "image"), true
}
