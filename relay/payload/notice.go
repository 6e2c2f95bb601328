package payload

import (
	"html"
	"slices"
	"strings"
)

const noticeTitle = "Not sent with this mail, because attachments cannot be carried:"

// addNotice lists at the end of both bodies what was left out of them.
func (c *composer) addNotice() {
	var text, markup strings.Builder
	text.WriteString("\n-- \n" + noticeTitle + "\n")
	markup.WriteString("\n<hr>\n<p>" + noticeTitle + "</p>\n<ul>\n")
	for i := range c.files {
		d := c.files[i].Describe()
		text.WriteString("* " + d + "\n")
		markup.WriteString("<li>" + html.EscapeString(d) + "</li>\n")
	}
	markup.WriteString("</ul>\n")
	if c.mail.Text != "" {
		c.mail.Text = strings.TrimRight(c.mail.Text, "\n") + "\n" + text.String()
	}
	c.mail.HTML = insertAtEnd(dropImages(c.mail.HTML, c.files), markup.String())
}

// dropImages replaces the images that were left out by their names: readers
// would show each as broken.
func dropImages(doc string, files []Attachment) string {
	var b strings.Builder
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
		b.WriteString(doc[:i])
		if name, ok := leftOut(doc[i:end], files); ok {
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

// leftOut returns the name of the file that an image tag shows by its content
// id (RFC 2392).
func leftOut(tag string, files []Attachment) (string, bool) {
	i := indexFold(tag, "cid:")
	if i < 0 {
		return "", false
	}
	id := tag[i+len("cid:"):]
	if end := strings.IndexAny(id, "\"'> "); end >= 0 {
		id = id[:end]
	}
	id = html.UnescapeString(id)
	j := slices.IndexFunc(files, func(a Attachment) bool { return a.ContentID == id && id != "" })
	if j < 0 {
		return "image", true // of a part that is not in the mail either
	}
	if files[j].Filename != "" {
		return files[j].Filename, true
	}
	return "image", true
}
