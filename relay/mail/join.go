package mail

import (
	"bytes"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/html"
)

// joinText joins the blocks as text, with blank lines in between. It returns "" if no
// block has text. If some have text, a document is converted to text too, so that the
// text part misses nothing.
func (c *composer) joinText(blocks []*block) string {
	switch {
	case !anyText(blocks):
		return ""
	case len(blocks) == 1 && len(blocks[0].plain) == 0:
		return blocks[0].text
	}
	var list []string
	size := 0
	for _, b := range blocks {
		list = c.texts(list, b)
	}
	for _, text := range list {
		size += len(text) + len("\n\n")
	}
	if !c.take(size) {
		return ""
	}
	var b strings.Builder
	b.Grow(size)
	for _, text := range list {
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

// texts appends the texts of a block to the list.
func (c *composer) texts(list []string, b *block) []string {
	for _, p := range b.plain {
		list = c.texts(list, p)
	}
	text := b.text
	if b.hasHTML && text == "" && len(b.plain) == 0 {
		text = c.words(b)
	}
	if strings.TrimSpace(text) != "" {
		list = append(list, text)
	}
	return list
}

// words converts a document to text, once.
func (c *composer) words(b *block) string {
	if b.said == "" && b.html != "" && c.take(len(b.html)+len(b.html)/2+perDocument) {
		b.said = htmlToText(b.html)
	}
	return b.said
}

// perDocument is what the html tokenizer takes besides its input.
const perDocument = 6 << 10

// mergeVersions merges a text and a document that stand side by side and say the same.
// Some programs send two versions of a body as multipart/mixed instead of alternative,
// and nobody wants to read it twice.
func (c *composer) mergeVersions(blocks []*block) []*block {
	kept := blocks[:0:0]
	for i := 0; i < len(blocks); i++ {
		if i+1 < len(blocks) {
			text, doc := blocks[i], blocks[i+1]
			if text.hasHTML {
				text, doc = doc, text
			}
			if !text.hasHTML && isDocument(doc) && sameWords(c.words(doc), text.text) {
				kept = append(kept, &block{text: text.text, html: doc.html, hasHTML: true})
				i++
				continue
			}
		}
		kept = append(kept, blocks[i])
	}
	return kept
}

// isDocument reports whether a block is a document without a text.
func isDocument(b *block) bool {
	return b.hasHTML && b.text == "" && len(b.plain) == 0 && len(b.rich) == 0
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

func anyText(blocks []*block) bool {
	return slices.ContainsFunc(blocks, func(b *block) bool { return len(b.plain) > 0 || strings.TrimSpace(b.text) != "" })
}

func anyHTML(blocks []*block) bool {
	return slices.ContainsFunc(blocks, func(b *block) bool { return b.hasHTML })
}

func equalBlocks(a, b []*block) bool {
	return slices.EqualFunc(a, b, func(x, y *block) bool {
		return x.text == y.text && x.html == y.html && x.hasHTML == y.hasHTML && equalBlocks(x.plain, y.plain) && equalBlocks(x.rich, y.rich)
	})
}

// joinHTML joins the blocks as html. A single document is left as it is. Of several, the
// first complete document gets the bodies of the others inserted.
func (c *composer) joinHTML(blocks []*block) string {
	if !anyHTML(blocks) {
		return c.textToHTML(c.joinText(blocks))
	}
	shown := documents(nil, blocks)
	if len(shown) == 1 {
		return shown[0].html
	}
	frame := slices.IndexFunc(shown, func(b *block) bool { return b.hasHTML && indexFold(b.html, "<body") >= 0 })
	pieces, size := make([]string, len(shown)), 0
	for i, b := range shown {
		switch {
		case i == frame:
			pieces[i] = b.html
		case b.hasHTML:
			pieces[i] = c.bodyOf(b.html)
		default:
			pieces[i] = c.textToHTML(b.text)
		}
		size += len(pieces[i]) + len("\n")
	}
	if !c.take(size) {
		return ""
	}
	var out strings.Builder
	out.Grow(size)
	write := func(list []string) {
		for _, p := range list {
			out.WriteString(p + "\n")
		}
	}
	if frame < 0 {
		write(pieces)
		return out.String()
	}
	doc := pieces[frame]
	begin := bodyBegin(doc)
	end := max(bodyEnd(doc), begin)
	out.WriteString(doc[:begin])
	write(pieces[:frame])
	out.WriteString(doc[begin:end])
	write(pieces[frame+1:])
	out.WriteString(doc[end:])
	return out.String()
}

// documents appends the blocks that html shows to the list.
func documents(list, blocks []*block) []*block {
	for _, b := range blocks {
		switch {
		case len(b.rich) > 0:
			list = documents(list, b.rich)
		case b.hasHTML || strings.TrimSpace(b.text) != "":
			list = append(list, b)
		}
	}
	return list
}

// bodyBegin returns where the body of a document begins; 0 if it has no body tag.
func bodyBegin(doc string) int {
	if i := indexFold(doc, "<body"); i >= 0 {
		if end := strings.IndexByte(doc[i:], '>'); end >= 0 {
			return i + end + 1
		}
	}
	return 0
}

// SplitTop splits a document where its body begins.
func SplitTop(doc string) (before, body string) {
	at := bodyBegin(doc)
	return doc[:at], doc[at:]
}

// bodyEnd returns where the body of a document ends.
func bodyEnd(doc string) int {
	for _, tag := range []string{"</body", "</html"} {
		if i := lastIndexFold(doc, tag); i >= 0 {
			return i
		}
	}
	return len(doc)
}

// bodyOf returns the body of a document, with the styles from its head.
func (c *composer) bodyOf(doc string) string {
	begin := bodyBegin(doc)
	if begin == 0 {
		return doc
	}
	end := bodyEnd(doc)
	if end < begin {
		end = len(doc)
	}
	styles := stylesOf(doc[:indexFold(doc, "<body")])
	if len(styles) == 0 {
		return doc[begin:end]
	}
	if !c.take(len(doc)) {
		return ""
	}
	return strings.Join(append(styles, doc[begin:end]), "\n")
}

// stylesOf returns the style elements in the head of a document.
func stylesOf(head string) []string {
	var styles []string
	for {
		begin := indexFold(head, "<style")
		if begin < 0 {
			return styles
		}
		stop := indexFold(head[begin:], "</style>")
		if stop < 0 {
			return styles
		}
		stop += begin + len("</style>")
		styles = append(styles, head[begin:stop])
		head = head[stop:]
	}
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

// htmlToText is a simple conversion, for the rare mail that mixes text and html.
func htmlToText(doc string) string {
	t := textWriter{}
	t.b.Grow(len(doc) / 2)
	skip := false
	for z := html.NewTokenizer(strings.NewReader(doc)); ; {
		switch z.Next() {
		case html.ErrorToken:
			if t.inLine || t.begun {
				t.newLine()
			}
			return t.b.String()
		case html.TextToken:
			if !skip {
				t.text(z.Text())
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			name, _ := z.TagName()
			switch string(name) {
			case "script", "style", "title":
				skip = true
			case "br", "p", "div", "tr", "li", "h1", "h2", "h3", "h4", "table", "pre", "blockquote", "hr":
				t.newLine()
			}
		case html.EndTagToken:
			switch name, _ := z.TagName(); string(name) {
			case "script", "style", "title":
				skip = false
			case "p", "div", "tr", "li", "h1", "h2", "h3", "h4", "table", "pre", "blockquote":
				t.newLine()
			}
		}
	}
}

// textWriter writes words separated by one blank, and never two blank lines in a row.
type textWriter struct {
	b      strings.Builder
	begun  bool // the line has something, maybe only blanks
	inLine bool // the line has a word
	blank  bool // the line before is blank
}

func (t *textWriter) text(words []byte) {
	t.begun = true
	for word := range bytes.FieldsSeq(words) {
		if t.inLine {
			t.b.WriteByte(' ')
		}
		t.b.Write(word)
		t.inLine = true
	}
}

func (t *textWriter) newLine() {
	if t.inLine || t.b.Len() > 0 && !t.blank {
		t.b.WriteByte('\n')
	}
	t.blank, t.inLine, t.begun = !t.inLine, false, false
}
