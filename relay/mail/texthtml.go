package mail

import (
	"html"
	"strings"
	"unicode"
)

// textToHTML makes html that looks like the text does: escaped, with its line
// breaks and indentation, links that can be clicked, and in monospace where
// columns would fall apart otherwise. Where that takes too much memory, as it
// does for a text of nothing but line ends, the text is only escaped.
func (c *composer) textToHTML(text string) string {
	write := func(s sink) { writeProse(s, text) }
	if tabular(text) {
		write = func(s sink) { writeTable(s, text, true) }
	}
	if len(text) <= shortText && c.memory > 20*shortText {
		var b strings.Builder
		b.Grow(len(text) + len(text)/4 + 64)
		write(&b)
		c.take(2 * b.Len()) // it may have grown on the way
		return b.String()
	}
	if size := sizeOf(write); c.memory >= int64(size+size*5/4+EscapedSize(text)) {
		return c.rendered(size, write)
	}
	write = func(s sink) { writeTable(s, text, false) }
	return c.rendered(sizeOf(write), write)
}

// shortText is so little that it is not worth to find out first how long its html
// becomes.
const shortText = 4 << 10

// sink is written to twice: to count, and for good. Growing by doubling would
// cost several times a large mail's size.
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

// writeTable keeps the text's own white space.
func writeTable(b sink, text string, links bool) {
	// white-space and font-family for readers that drop the tag's own.
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

// writeLinked writes text with its links. prose says that line breaks and
// blanks must be spelled out: Outlook ignores white-space:pre-wrap.
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

// writeText escapes text. In prose a line break is <br> and, of several
// blanks or those that begin a line, all but the last do not collapse.
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
