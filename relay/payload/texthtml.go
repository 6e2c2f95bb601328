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
	b.Grow(htmlSize(text))
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

// htmlSize is about how long a text becomes as html: growing by doubling would
// cost several times the mail's size.
func htmlSize(text string) int {
	const ends = 64
	return len(text) + ends + 4*strings.Count(text, "\n") + 4*strings.Count(text, "&") + 3*strings.Count(text, "<") +
		3*strings.Count(text, ">") + 5*strings.Count(text, `"`) + 5*strings.Count(text, "  ")
}

// writeLinked writes text with its links. prose says that line breaks and
// blanks must be spelled out: Outlook ignores white-space:pre-wrap.
func writeLinked(b *strings.Builder, text string, prose bool) {
	for {
		l := findLink(text)
		if l.end == 0 {
			break
		}
		writeText(b, text[:l.start], prose)
		shown := html.EscapeString(text[l.start:l.end])
		b.WriteString(`<a href="`)
		b.WriteString(l.prefix)
		b.WriteString(shown)
		b.WriteString(`">`)
		b.WriteString(shown)
		b.WriteString(`</a>`)
		text = text[l.end:]
	}
	writeText(b, text, prose)
}

// writeText escapes text. In prose a line break is <br> and, of several
// blanks or those that begin a line, all but the last do not collapse.
func writeText(b *strings.Builder, text string, prose bool) {
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
			b.WriteString(text[plain:i])
			b.WriteString(esc)
			plain = i + 1
		}
	}
	b.WriteString(text[plain:])
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

// hasColumns reports whether a line without its indent has a wide gap or a tab
// inside, or is drawn with bars or box characters.
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
