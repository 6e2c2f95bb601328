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
		p.add(BadCharset, "charset "+OneLine(label)+" is missing, unknown or wrong")
	}
	text = CleanText(text)
	if p.Type == "text/plain" && strings.EqualFold(p.Param("format"), "flowed") {
		text = unflow(text, strings.EqualFold(p.Param("delsp"), "yes"))
	}
	return text
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
	if !strings.ContainsFunc(s, unclean) {
		return s
	}
	var out strings.Builder
	out.Grow(len(s))
	for i := 0; i < len(s); {
		j := strings.IndexFunc(s[i:], unclean)
		if j < 0 {
			out.WriteString(s[i:])
			break
		}
		out.WriteString(s[i : i+j])
		i += j
		switch {
		case s[i] == '\r':
			n := len(s) - i - len(strings.TrimLeft(s[i:], "\r"))
			i += n
			if i == len(s) || s[i] != '\n' {
				out.WriteString(strings.Repeat("\n", n)) // bare CRs
			}
		case s[i] == '\f' || s[i] == '\v':
			out.WriteByte('\n')
			i++
		case s[i] == 0x1B:
			i += escapeLen(s[i:])
		case s[i] < 0x80:
			i++
		default:
			// A C1 control, two bytes in UTF-8, is windows-1252 that was
			// taken for ISO 8859-1 on its way: the euro sign, quotes.
			if r := charmap.Windows1252.DecodeByte(s[i+1]); r >= 0xA0 && r != utf8.RuneError {
				out.WriteRune(r)
			}
			i += 2
		}
	}
	return out.String()
}

func unclean(r rune) bool {
	return r < ' ' && r != '\n' && r != '\t' || r >= 0x7F && r < 0xA0
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
