package payload

import (
	"html"
	"strings"
	"unicode"
)

// textToHTML makes html that looks like the text does: escaped, with its line
// breaks and indentation, links that can be clicked, and in monospace where
// columns would fall apart otherwise.
func textToHTML(text string) string {
	var b strings.Builder
	b.Grow(len(text) + len(text)/4 + 64)
	if tabular(text) {
		// white-space and font-family for readers that drop the tag's own.
		b.WriteString(`<pre style="white-space:pre-wrap;font-family:monospace">`)
		writeLinked(&b, text, false)
		b.WriteString("</pre>")
		return b.String()
	}
	b.WriteString("<div>")
	writeLinked(&b, strings.TrimRight(text, "\n"), true)
	b.WriteString("</div>")
	return b.String()
}

// writeLinked writes text with its links. prose says that line breaks and
// blanks must be spelled out: Outlook ignores white-space:pre-wrap.
func writeLinked(b *strings.Builder, text string, prose bool) {
	for {
		start, end, href := findLink(text)
		if end == 0 {
			break
		}
		writeText(b, text[:start], prose)
		link := html.EscapeString(text[start:end])
		b.WriteString(`<a href="`)
		b.WriteString(href)
		b.WriteString(link)
		b.WriteString(`">`)
		b.WriteString(link)
		b.WriteString(`</a>`)
		text = text[end:]
	}
	writeText(b, text, prose)
}

// writeText escapes text. In prose a line break is <br> and, of several
// blanks or those that begin a line, all but the last do not collapse.
func writeText(b *strings.Builder, text string, prose bool) {
	plain := 0
	for i := 0; i < len(text); i++ {
		esc, n := "", 1
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
			b.WriteString(text[plain:i])
			b.WriteString(esc)
			plain = i + n
		}
	}
	b.WriteString(text[plain:])
}

// findLink returns the first link in text and what its href has before it; end
// is 0 when there is none.
func findLink(text string) (start, end int, href string) {
	for from := 0; from < len(text); {
		i := strings.IndexAny(text[from:], ":.@")
		if i < 0 {
			return 0, 0, ""
		}
		i += from
		switch {
		case strings.HasPrefix(text[i:], "://"):
			start, end, href = linkAt(text, i, "https", "http", "ftp")
		}
		if end > 0 {
			return start, end, href
		}
		from = i + 1
	}
	return 0, 0, ""
}

// linkAt returns the link whose scheme ends at i.
func linkAt(text string, i int, schemes ...string) (start, end int, href string) {
	for _, s := range schemes {
		start = i - len(s)
		if start < 0 || !strings.EqualFold(text[start:i], s) {
			continue
		}
		end = i + 3
		for end < len(text) && !strings.ContainsRune(" \t\n<>\"", rune(text[end])) {
			end++
		}
		end = i + 3 + len(trimLink(text[i+3:end]))
		if end > i+3 {
			return start, end, ""
		}
	}
	return 0, 0, ""
}

// trimLink drops the punctuation that ends the sentence and not the link, and
// a closing bracket that was not opened in it.
func trimLink(s string) string {
	open := strings.Count(s, "(") - strings.Count(s, ")")
	for s != "" {
		switch s[len(s)-1] {
		case '.', ',', ';', ':', '!', '?', '\'', '*', ']', '}':
		case ')':
			if open >= 0 {
				return s
			}
			open++
		default:
			return s
		}
		s = s[:len(s)-1]
	}
	return s
}

// tabular reports whether a text is clearly a table, a log or a program's
// output: a good part of its lines has columns or drawn lines.
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

// hasColumns reports whether a line without its indent has a wide gap, a tab,
// or is drawn with bars.
func hasColumns(line string) bool {
	if i := strings.Index(line, "   "); i > 0 && strings.Trim(line[i:], " ") != "" {
		return true
	}
	if strings.IndexByte(line, '\t') > 0 {
		return true
	}
	return strings.Count(line, "|") >= 2 || strings.ContainsAny(line, "│┃║├┼─═+") && strings.Count(line, "-") > 8 || strings.ContainsAny(line, "│║┼")
}
