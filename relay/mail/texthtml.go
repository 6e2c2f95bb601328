package mail

import (
	"html"
	"strings"
	"unicode"
	"unicode/utf8"
)

// textToHTML returns html that looks like the text: escaped, with its line breaks and
// indentation, clickable links, and in monospace if columns would fall apart otherwise.
// If that takes too much memory, as for a text of only line ends, it only escapes the text.
func (c *composer) textToHTML(text string) string {
	write := func(s sink) { writeProse(s, text) }
	if tabular(text) {
		write = func(s sink) { writeTable(s, text, true) }
	}
	if len(text) <= shortText && c.memory > 20*shortText {
		var b strings.Builder
		b.Grow(len(text) + len(text)/4 + 64)
		write(&b)
		c.take(2 * b.Len()) // b may have grown by copying
		return b.String()
	}
	if size := sizeOf(write); c.memory >= int64(size+size*5/4+EscapedSize(text)) {
		return c.rendered(size, write)
	}
	write = func(s sink) { writeTable(s, text, false) }
	return c.rendered(sizeOf(write), write)
}

// shortText is so short that computing the length of its html first is not worth it.
const shortText = 4 << 10

// sink is written twice: first to count, then for real. A buffer that grows by doubling
// would take several times the size of a large mail.
type sink interface{ WriteString(s string) (int, error) }

type counter int

// WriteString implements sink.
func (c *counter) WriteString(s string) (int, error) {
	*c += counter(len(s))
	return len(s), nil
}

func sizeOf(write func(sink)) int {
	var n counter
	write(&n)
	return int(n)
}

func (c *composer) rendered(size int, write func(sink)) string {
	if !c.take(size) {
		return ""
	}
	var b strings.Builder
	b.Grow(size)
	write(&b)
	return b.String()
}

// writeTable keeps the white space of the text.
func writeTable(b sink, text string, links bool) {
	// white-space and font-family are for readers that drop the styles of the tag.
	_, _ = b.WriteString(`<pre style="white-space:pre-wrap;font-family:monospace">`)
	if links {
		writeLinked(b, text, false)
	} else {
		writeText(b, text, false)
	}
	_, _ = b.WriteString("</pre>")
}

func writeProse(b sink, text string) {
	_, _ = b.WriteString("<div>")
	writeLinked(b, strings.TrimRight(text, "\n"), true)
	_, _ = b.WriteString("</div>")
}

// writeLinked writes text with links. With prose, line breaks and blanks become markup,
// because Outlook ignores white-space:pre-wrap.
func writeLinked(b sink, text string, prose bool) {
	for {
		l := findLink(text)
		if l.end == 0 {
			break
		}
		writeText(b, text[:l.start], prose)
		shown := html.EscapeString(text[l.start:l.end])
		for _, s := range [...]string{`<a href="`, l.prefix, shown, `">`, shown, `</a>`} {
			_, _ = b.WriteString(s)
		}
		text = text[l.end:]
	}
	writeText(b, text, prose)
}

// writeText escapes text. With prose, a line break becomes <br>, and blanks become &nbsp;
// where html would drop them: at the beginning of a line, and all but the last of several.
func writeText(b sink, text string, prose bool) {
	plain := 0
	for i := 0; i < len(text); i++ {
		esc := ""
		switch c := text[i]; c {
		case '&':
			esc = "&amp;"
		case '<':
			esc = "&lt;"
		case '>':
			esc = "&gt;"
		case '"':
			esc = "&quot;"
		case '\n':
			if prose {
				esc = "<br>\n"
			}
		case '\t':
			if prose {
				esc = "&nbsp; &nbsp; "
			}
		case ' ':
			if prose && (i == 0 || text[i-1] == '\n' || i+1 < len(text) && text[i+1] == ' ') {
				esc = "&nbsp;"
			}
		}
		if esc != "" {
			_, _ = b.WriteString(text[plain:i])
			_, _ = b.WriteString(esc)
			plain = i + 1
		}
	}
	_, _ = b.WriteString(text[plain:])
}

// tabular reports whether a text is clearly a table, a log or the output of a program,
// that is, whether many of its lines have columns or drawn lines.
func tabular(text string) bool {
	lines, columns := 0, 0
	for line := range strings.Lines(text) {
		line = strings.TrimRightFunc(line, unicode.IsSpace)
		if line == "" {
			continue
		}
		lines++
		if hasColumns(strings.TrimLeft(line, " \t>")) {
			columns++
		}
		if lines == 2000 {
			break
		}
	}
	return columns >= 3 && columns*3 >= lines
}

// hasColumns reports whether a line without its indent has a wide gap or a tab inside, or
// is drawn with bars or box characters.
func hasColumns(line string) bool {
	blanks, bars, dashes, corners := 0, 0, 0, 0
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case ' ':
			blanks++
			continue
		case '\t':
			return i > 0
		case '|':
			bars++
		case '-', '=':
			dashes++
		case '+':
			corners++
		case 0xE2: // U+2500 to U+257F, box drawing
			if i+1 < len(line) && (line[i+1] == 0x94 || line[i+1] == 0x95) {
				return true
			}
		}
		if blanks >= 3 && i > blanks {
			return true
		}
		blanks = 0
	}
	return bars >= 2 || corners >= 2 && dashes > 8
}

// link is the place of a link in a text, and what its address needs in front.
type link struct {
	start, end int
	prefix     string
}

// findLink returns the first link in text; its end is 0 if there is none. It takes linear
// time, because it looks at a bounded stretch around each mark.
func findLink(text string) link {
	for i := 0; i < len(text); i++ {
		var l link
		switch text[i] {
		case ':':
			l = urlAt(text, i)
		case '.':
			l = wwwAt(text, i)
		case '@':
			l = emailAt(text, i)
		}
		if l.end > 0 {
			return l
		}
	}
	return link{}
}

// urlAt returns the URL whose scheme ends at i.
func urlAt(text string, i int) link {
	if !strings.HasPrefix(text[i:], "://") {
		return link{}
	}
	for _, scheme := range []string{"https", "http", "ftp"} {
		start := i - len(scheme)
		if start < 0 || !strings.EqualFold(text[start:i], scheme) {
			continue
		}
		if end := linkEnd(text, i+3); end > i+3 {
			return link{start, end, ""}
		}
	}
	return link{}
}

// wwwAt returns the link whose "www" ends at i.
func wwwAt(text string, i int) link {
	start := i - 3
	if start < 0 || !strings.EqualFold(text[start:i], "www") || start > 0 && isWord(text[start-1]) || i+1 < len(text) && text[i+1] == '.' {
		return link{}
	}
	end := linkEnd(text, i+1)
	if strings.IndexByte(text[i+1:end], '.') <= 0 {
		return link{}
	}
	return link{start, end, "http://"}
}

// emailAt returns the address around the "@" at i.
func emailAt(text string, i int) link {
	start, end := i, i+1
	for start > 0 && i-start < 64 && (isWord(text[start-1]) || strings.IndexByte(".+-_", text[start-1]) >= 0) {
		start--
	}
	for end < len(text) && end-i < 253 && (isWord(text[end]) || text[end] == '.' || text[end] == '-') {
		end++
	}
	domain := strings.TrimRight(text[i+1:end], ".-")
	if start == i || strings.IndexByte(domain, '.') <= 0 {
		return link{}
	}
	return link{start, i + 1 + len(domain), "mailto:"}
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// maxLink bounds the length of a link, as browsers do.
const maxLink = 2000

// linkEnd returns where the link ends that continues at from. It ends at a blank, a quote
// or an angle bracket. Punctuation at its end belongs to the sentence, and so does a
// closing parenthesis that was not opened in it.
func linkEnd(text string, from int) int {
	end, open := from, 0
	for end < len(text) && end-from < maxLink && text[end] > ' ' && strings.IndexByte(`<>"`, text[end]) < 0 {
		switch text[end] {
		case '(':
			open++
		case ')':
			open--
		}
		end++
	}
	for end > from && end < len(text) && !utf8.RuneStart(text[end]) {
		end--
	}
	for ; end > from; end-- {
		switch text[end-1] {
		case '.', ',', ';', ':', '!', '?', '\'', '*', ']', '}':
		case ')':
			if open >= 0 {
				return end
			}
			open++
		default:
			return end
		}
	}
	return end
}
