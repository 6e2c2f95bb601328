package mime

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// Text returns the decoded body of a text part as UTF-8, with line ends of LF and without a
// byte order mark and control characters. memory is how much that took, in octets.
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

// MostText returns an upper bound for the length of Text. It does not hold for text that is
// not in its declared charset.
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
		return 2 * n // up to three octets for two
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

// Guessed returns an upper bound for the memory that guessing the charset of a text takes in
// addition, in octets.
func (p *Part) Guessed() int {
	declared := charsetName(p.Param("charset")) == "utf-8"
	if p.transfer == encIdentity && (ascii(p.Body) || declared && utf8.Valid(p.Body)) {
		return 0
	}
	return 8 * len(p.Body)
}

// Base64 reports whether the body is in base64 or uuencode.
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

// metaCharset returns the charset that an html document declares in its first kilobyte (the
// prescan of WHATWG HTML).
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
			// A document whose bytes are readable here is not in UTF-16.
			if name := string(v); name != "" && !strings.HasPrefix(name, "utf-16") {
				return name
			}
		}
	}
}

// asIs returns the text itself if it is in UTF-8 already, so that a large one is not copied
// once more.
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

// CleanText makes every line end LF and drops control characters other than tab and LF,
// which no mail reader shows.
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

// write writes s without a further copy.
func write[T string | []byte](b *strings.Builder, s T) {
	switch s := any(s).(type) {
	case string:
		b.WriteString(s)
	case []byte:
		b.Write(s)
	}
}

// indexUnclean returns the index of the first control character to drop, or -1.
func indexUnclean[T string | []byte](s T) int {
	for i := 0; i < len(s); i++ {
		for i+8 <= len(s) && isPlain(s[i:i+8]) {
			i += 8
		}
		if i == len(s) {
			return -1
		}
		switch c := s[i]; {
		case c < ' ' && c != '\n' && c != '\t', c == 0x7F:
			return i
		case c == 0xC2 && i+1 < len(s) && s[i+1] < 0xA0: // C1 controls, two bytes in UTF-8
			return i
		}
	}
	return -1
}

// isPlain reports whether eight octets are all printable ASCII. It looks at them together,
// because almost all are.
func isPlain[T string | []byte](s T) bool {
	const each = 0x0101010101010101
	w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	return (w|(w-each*' ')|(w+each))&(each*0x80) == 0 // below 0x80, not below a space, not 0x7F
}

// appendClean appends the replacement of the control character at the beginning of s, and
// returns how many bytes of s it replaces.
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
		// A C1 control is a character of windows-1252, such as the euro sign or a
		// quote, that was taken for ISO 8859-1 on its way.
		if r := charmap.Windows1252.DecodeByte(s[1]); r >= 0xA0 && r != utf8.RuneError {
			out = utf8.AppendRune(out, r)
		}
		return out, 2
	}
	return out, 1
}

// escapeLen returns the length of a terminal's escape sequence. Programs that colour their
// output also mail it.
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

// unflow joins the lines of format=flowed text (RFC 3676). A line that ends in a blank
// continues in the next line of the same quote depth. delSp removes that blank.
func unflow(text string, delSp bool) string {
	var b strings.Builder
	b.Grow(len(text))
	open, depth := false, 0 // whether the last line continues, and its quote depth
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		d := len(line) - len(strings.TrimLeft(line, ">"))
		line = strings.TrimPrefix(line[d:], " ") // space-stuffing, section 4.4
		// A ">" after a blank is a quotation by a program that does not count quote
		// marks as section 4.5 requires: `>> > text`.
		if open && (d != depth || line == "-- " || strings.HasPrefix(line, ">")) {
			b.WriteByte('\n')
			open = false
		}
		if !open && d > 0 {
			b.WriteString(strings.Repeat(">", d))
			b.WriteByte(' ')
		}
		open = strings.HasSuffix(line, " ") && line != "-- " // section 4.3: a signature separator is fixed
		depth = d
		if open && delSp {
			line = line[:len(line)-1]
		}
		b.WriteString(line)
		if !open {
			b.WriteByte('\n')
		}
	}
	out := b.String()
	if !strings.HasSuffix(text, "\n") {
		out = strings.TrimSuffix(out, "\n")
	}
	return out
}
