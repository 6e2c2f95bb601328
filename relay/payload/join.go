package payload

import (
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/html"
)

// joinText joins the blocks as text, with a blank line between them; "" when
// none has any. Beside text, html is shown as text too: whoever reads the text
// shall miss nothing.
func joinText(blocks []block) string {
	switch {
	case !anyText(blocks):
		return ""
	case len(blocks) == 1:
		return blocks[0].text
	}
	var b strings.Builder
	for _, block := range blocks {
		text := block.text
		if block.hasHTML && text == "" {
			text = htmlToText(block.html)
		}
		if strings.TrimSpace(text) == "" {
			continue
		}
		if b.Len() > 0 {
			if !strings.HasSuffix(b.String(), "\n") {
				b.WriteByte('\n')
			}
			b.WriteByte('\n')
		}
		b.WriteString(text)
	}
	return b.String()
}

// mergeVersions makes one block of a text and an html beside it that say the
// same: two versions of one body, from a program that sent them as
// multipart/mixed where it meant alternative. Nobody wants to read it twice.
func mergeVersions(blocks []block) []block {
	for i := 0; i+1 < len(blocks); i++ {
		text, doc := blocks[i], blocks[i+1]
		if text.hasHTML {
			text, doc = doc, text
		}
		if text.hasHTML || !doc.hasHTML || doc.text != "" || !sameWords(htmlToText(doc.html), text.text) {
			continue
		}
		blocks[i] = block{text: text.text, html: doc.html, hasHTML: true}
		blocks = slices.Delete(blocks, i+1, i+2)
	}
	return blocks
}

func sameWords(a, b string) bool {
	for {
		var x, y string
		x, a = cutWord(a)
		y, b = cutWord(b)
		if x != y {
			return false
		}
		if x == "" {
			return true
		}
	}
}

func cutWord(s string) (word, rest string) {
	s = strings.TrimLeftFunc(s, unicode.IsSpace)
	i := strings.IndexFunc(s, unicode.IsSpace)
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i:]
}

func anyText(blocks []block) bool {
	for _, b := range blocks {
		if strings.TrimSpace(b.text) != "" {
			return true
		}
	}
	return false
}

func anyHTML(blocks []block) bool {
	for _, b := range blocks {
		if b.hasHTML {
			return true
		}
	}
	return false
}

// joinHTML joins the blocks as html. One document is left as it is; of more,
// the first that is a whole document is the frame of the others' bodies.
func joinHTML(blocks []block) string {
	if !anyHTML(blocks) {
		return textToHTML(joinText(blocks))
	}
	var shown []block
	for _, b := range blocks {
		if b.hasHTML || strings.TrimSpace(b.text) != "" {
			shown = append(shown, b)
		}
	}
	if len(shown) == 1 {
		return shown[0].html
	}
	frame := frameOf(shown)
	var before, after strings.Builder
	out := &before
	for i, b := range shown {
		switch {
		case i == frame:
			out = &after
		case b.hasHTML:
			out.WriteString(bodyOf(b.html) + "\n")
		default:
			out.WriteString(textToHTML(b.text) + "\n")
		}
	}
	if frame < 0 {
		return before.String()
	}
	doc := insertAtBegin(shown[frame].html, before.String())
	return insertAtEnd(doc, after.String())
}

// frameOf returns the first block that has a body tag, or -1.
func frameOf(blocks []block) int {
	for i, b := range blocks {
		if b.hasHTML && indexFold(b.html, "<body") >= 0 {
			return i
		}
	}
	return -1
}

// insertAtBegin puts markup at the beginning of a document's body.
func insertAtBegin(doc, markup string) string {
	at := 0
	if i := indexFold(doc, "<body"); i >= 0 {
		if end := strings.IndexByte(doc[i:], '>'); end >= 0 {
			at = i + end + 1
		}
	}
	return doc[:at] + markup + doc[at:]
}

// insertAtEnd puts markup at the end of a document's body.
func insertAtEnd(doc, markup string) string {
	at := len(doc)
	for _, tag := range []string{"</body", "</html"} {
		if i := lastIndexFold(doc, tag); i >= 0 {
			at = i
			break
		}
	}
	return doc[:at] + markup + doc[at:]
}

// bodyOf returns what a document shows, with its styles.
func bodyOf(doc string) string {
	i := indexFold(doc, "<body")
	if i < 0 {
		return doc
	}
	open := strings.IndexByte(doc[i:], '>')
	if open < 0 {
		return doc
	}
	end := len(doc)
	for _, tag := range []string{"</body", "</html"} {
		if j := lastIndexFold(doc, tag); j > i+open {
			end = j
			break
		}
	}
	styles := ""
	for head := doc[:i]; ; {
		begin := indexFold(head, "<style")
		if begin < 0 {
			break
		}
		stop := indexFold(head[begin:], "</style>")
		if stop < 0 {
			break
		}
		stop += begin + len("</style>")
		styles += head[begin:stop] + "\n"
		head = head[stop:]
	}
	return styles + doc[i+open+1:end]
}

func indexFold(s, tag string) int {
	for from := 0; ; {
		i := strings.IndexByte(s[from:], tag[0])
		if i < 0 || from+i+len(tag) > len(s) {
			return -1
		}
		i += from
		if strings.EqualFold(s[i:i+len(tag)], tag) {
			return i
		}
		from = i + 1
	}
}

func lastIndexFold(s, tag string) int {
	for i := len(s) - len(tag); i >= 0; i-- {
		if s[i] == tag[0] && strings.EqualFold(s[i:i+len(tag)], tag) {
			return i
		}
	}
	return -1
}

// htmlToText is a plain reading of html, for the rare mail that mixes both.
func htmlToText(doc string) string {
	var b strings.Builder
	skip := 0
	for z := html.NewTokenizer(strings.NewReader(doc)); ; {
		switch z.Next() {
		case html.ErrorToken:
			return tidy(b.String())
		case html.TextToken:
			if skip == 0 {
				b.WriteString(strings.Join(strings.Fields(" "+string(z.Text())+" "), " ") + " ")
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			name, _ := z.TagName()
			switch string(name) {
			case "script", "style", "title":
				skip = 1
			case "br", "p", "div", "tr", "li", "h1", "h2", "h3", "h4", "table", "pre", "blockquote", "hr":
				b.WriteByte('\n')
			}
		case html.EndTagToken:
			switch name, _ := z.TagName(); string(name) {
			case "script", "style", "title":
				skip = 0
			case "p", "div", "tr", "li", "h1", "h2", "h3", "h4", "table", "pre", "blockquote":
				b.WriteByte('\n')
			}
		}
	}
}

// tidy drops blanks at the ends of lines and more than one blank line.
func tidy(s string) string {
	var b strings.Builder
	blank := true
	for line := range strings.Lines(s) {
		line = strings.TrimSpace(line)
		if line == "" && blank {
			continue
		}
		blank = line == ""
		b.WriteString(line + "\n")
	}
	return b.String()
}
