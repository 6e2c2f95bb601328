package mime

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// Text returns the decoded body of a text part as UTF-8 with line ends of LF
// alone, without a byte order mark and control characters.
func (p *Part) Text() string {
	body := p.Decoded()
	label := p.Param("charset")
	if p.Type == "text/html" && !known(charsetName(label)) {
		if meta := metaCharset(body); meta != "" {
			label = meta
		}
	}
	text, guessed := Decode(label, body)
	if guessed {
		p.add(BadCharset, charsetDefect(label))
	}
	text = CleanText(text)
	if p.Type == "text/plain" && strings.EqualFold(p.Param("format"), "flowed") {
		text = unflow(text, strings.EqualFold(p.Param("delsp"), "yes"))
	}
	return text
}

func charsetDefect(label string) string {
	if label == "" {
		return "no charset is declared"
	}
	return "charset " + OneLine(label[:min(len(label), 40)]) + " is unknown or wrong"
}

// metaCharset finds the charset that an HTML document declares for itself in
// its first kilobyte (WHATWG HTML, prescan).
func metaCharset(b []byte) string {
	b = bytes.ToLower(b[:min(len(b), 1024)])
	for {
		i := bytes.Index(b, []byte("<meta"))
		if i < 0 {
			return ""
		}
		b = b[i+5:]
		tag, _, _ := bytes.Cut(b, []byte(">"))
		if _, v, ok := bytes.Cut(tag, []byte("charset")); ok {
			v = bytes.TrimLeft(v, " \t\r\n=\"'")
			if end := bytes.IndexAny(v, " \t\r\n\"';/>"); end >= 0 {
				v = v[:end]
			}
			// A document that reached us byte by byte is not in UTF-16.
			if name := string(v); name != "" && !strings.HasPrefix(name, "utf-16") {
				return name
			}
		}
	}
}

// CleanText makes every line end LF and drops what neither HTML nor a mail
// reader shows: control characters but tab and line feed.
func CleanText(s string) string {
	i := indexUnclean(s)
	if i < 0 {
		return s
	}
	var out strings.Builder
	out.Grow(len(s) + 64)
	var scratch [8]byte
	for i >= 0 {
		out.WriteString(s[:i])
		s = s[i:]
		clean, n := appendClean(scratch[:0], s)
		out.Write(clean)
		s = s[n:]
		i = indexUnclean(s)
	}
	out.WriteString(s)
	return out.String()
}

// indexUnclean returns the first control character that is not shown, or -1.
func indexUnclean(s string) int {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < ' ' && c != '\n' && c != '\t', c == 0x7F:
			return i
		case c == 0xC2 && i+1 < len(s) && s[i+1] < 0xA0: // C1, two bytes in UTF-8
			return i
		}
	}
	return -1
}

// appendClean appends what the control character that s begins with stands
// for, and returns how many bytes of s that took.
func appendClean(out []byte, s string) ([]byte, int) {
	switch s[0] {
	case '\r':
		n := len(s) - len(strings.TrimLeft(s, "\r"))
		if n == len(s) || s[n] != '\n' {
			out = append(out, strings.Repeat("\n", n)...) // bare CRs
		}
		return out, n
	case '\f', '\v':
		return append(out, '\n'), 1
	case 0x1B:
		return out, escapeLen(s)
	case 0xC2:
		// A C1 control is windows-1252 that was taken for ISO 8859-1 on its
		// way: the euro sign, quotes.
		if r := charmap.Windows1252.DecodeByte(s[1]); r >= 0xA0 && r != utf8.RuneError {
			out = utf8.AppendRune(out, r)
		}
		return out, 2
	}
	return out, 1
}

// escapeLen returns the length of a terminal's escape sequence: programs that
// colour their output mail it too.
func escapeLen(s string) int {
	if len(s) < 2 || s[1] != '[' {
		return 1
	}
	for i := 2; i < len(s) && i < 32; i++ {
		if s[i] >= '@' && s[i] <= '~' {
			return i + 1
		}
		if s[i] < ' ' {
			break
		}
	}
	return 1
}
