package mime

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// Text returns the decoded body of a text part as UTF-8 with line ends of LF
// alone, without a byte order mark and control characters; and how much memory
// that took, in octets.
func (p *Part) Text() (text string, memory int) {
	body := p.Decoded()
	if p.transfer != encIdentity {
		memory += len(p.Body)
	}
	label := p.Param("charset")
	if p.Type == "text/html" && !known(charsetName(label)) {
		if meta := metaCharset(body); meta != "" {
			label = meta
		}
	}
	if b, ok := asIs(label, body); ok {
		text = clean(b)
	} else {
		var guessed bool
		if text, guessed = p.decoder.Decode(label, body); guessed {
			p.add(BadCharset, charsetDefect(label))
		}
		memory += max(len(body)+high(body), len(text))
		text = CleanText(text)
	}
	memory += len(text)
	if p.Type == "text/plain" && strings.EqualFold(p.Param("format"), "flowed") {
		text = unflow(text, strings.EqualFold(p.Param("delsp"), "yes"))
		memory += len(text)
	}
	return text, memory
}

// MostText is an upper bound for the length of Text, but for text that is not in
// the charset it is said to be in.
func (p *Part) MostText() int {
	n := len(p.Body)
	switch p.transfer {
	case encQuoted:
		return n // three octets for one that is not ASCII
	case encBase64, encUU:
		n = n * 3 / 4
	}
	switch name := charsetName(p.Param("charset")); {
	case name == "utf-8":
		return n
	case strings.HasPrefix(name, "utf-"), strings.HasPrefix(name, "iso-2022-"), strings.HasPrefix(name, "hz-"):
		return 2 * n // two octets of any value for up to three
	case p.transfer == encBase64 && name == "us-ascii":
		return n
	case p.transfer == encBase64:
		return 3 * n
	}
	if utf8.Valid(p.Body) {
		return n
	}
	return n + 2*high(p.Body)
}

// Guessed is what finding the charset of a text takes besides, where that is not
// the one that it says: an upper bound, in octets.
func (p *Part) Guessed() int {
	declared := charsetName(p.Param("charset")) == "utf-8"
	if p.transfer == encIdentity && (ascii(p.Body) || declared && utf8.Valid(p.Body)) {
		return 0
	}
	return 8 * len(p.Body)
}

// Base64 reports whether what the part holds is in base64 or uuencoded.
func (p *Part) Base64() bool { return p.transfer == encBase64 || p.transfer == encUU }

// high counts the octets that are not ASCII.
func high(b []byte) int {
	n := 0
	for _, c := range b {
		n += int(c >> 7)
	}
	return n
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

// asIs returns a text that is in UTF-8 already: a large one is not to be copied
// once more than it must be.
func asIs(label string, b []byte) ([]byte, bool) {
	switch charsetName(label) {
	case "utf-8":
		b = bytes.TrimPrefix(b, []byte("\xEF\xBB\xBF"))
		return b, utf8.Valid(b)
	case "us-ascii":
		return b, ascii(b) && escaped(b) == ""
	}
	return nil, false
}

// CleanText makes every line end LF and drops what neither HTML nor a mail
// reader shows: control characters but tab and line feed.
func CleanText(s string) string { return clean(s) }

func clean[T string | []byte](s T) string {
	i := indexUnclean(s)
	if i < 0 {
		return string(s)
	}
	var out strings.Builder
	out.Grow(len(s) + 64)
	var scratch [8]byte
	for i >= 0 {
		write(&out, s[:i])
		piece, n := appendClean(scratch[:0], s[i:])
		out.Write(piece)
		s = s[i+n:]
		i = indexUnclean(s)
	}
	write(&out, s)
	return out.String()
}

// write copies once, whichever s is.
func write[T string | []byte](b *strings.Builder, s T) {
	switch s := any(s).(type) {
	case string:
		b.WriteString(s)
	case []byte:
		b.Write(s)
	}
}

// indexUnclean returns the first control character that is not shown, or -1.
func indexUnclean[T string | []byte](s T) int {
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
func appendClean[T string | []byte](out []byte, s T) ([]byte, int) {
	switch s[0] {
	case '\r':
		n := 1
		for n < len(s) && s[n] == '\r' {
			n++
		}
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
func escapeLen[T string | []byte](s T) int {
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
