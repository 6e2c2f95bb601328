package mime

import (
	"bytes"
	"encoding/base64"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/emersion/go-message/charset"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode/utf32"
	"golang.org/x/text/transform"
)

// Decode converts text in the named charset to valid UTF-8. It guesses the charset if there
// is no name, if nobody knows it, or if the text is clearly in another one. guessed says
// that this made a difference.
func (d *Decoder) Decode(label string, b []byte) (text string, guessed bool) {
	name := charsetName(label)
	switch name {
	case "utf-8":
		return d.decodeUTF8(b)
	case "", "us-ascii":
		if ascii(b) {
			if name := escaped(b); name != "" {
				return convert(name, b), true
			}
			return string(b), false
		}
		return convert(d.guess(b), b), true
	case "windows-1252", "iso-8859-15":
		if mislabelled(b) {
			return string(b), true
		}
	case "utf-7":
		return decodeUTF7(b), false
	case "utf-16", "utf-32":
		if name = wide(name, b); name == "" {
			return convert(d.guess(b), b), true
		}
	}
	if known(name) {
		return convert(name, b), false
	}
	return convert(d.guess(b), b), true
}

// mislabelled reports whether text that is declared to be in a Western single-byte charset
// is UTF-8: it is valid, and not by chance. A pair such as "Ä«" could be meant, but not "Ã©"
// or "â€™", or four pairs of any kind.
func mislabelled(b []byte) bool {
	if ascii(b) || !utf8.Valid(b) {
		return false
	}
	good, _ := countUTF8(b)
	return good >= 4 || strings.ContainsFunc(string(b), func(r rune) bool {
		return r >= 0xDF && r <= 0xFF || r >= 0x2000 && r < 0x2100
	})
}

// decodeUTF8 repairs UTF-8. Mostly valid text keeps its valid parts and gets U+FFFD for the
// rest. Text with more invalid than valid sequences is in another charset.
func (d *Decoder) decodeUTF8(b []byte) (string, bool) {
	b = bytes.TrimPrefix(b, []byte("\xEF\xBB\xBF"))
	if utf8.Valid(b) {
		return string(b), false
	}
	good, bad := countUTF8(b)
	if bad > good {
		return convert(d.guess(b), b), true
	}
	return strings.ToValidUTF8(string(b), "\uFFFD"), true
}

func countUTF8(b []byte) (good, bad int) {
	for len(b) > 0 {
		if b[0] < utf8.RuneSelf {
			b = b[1:]
			continue
		}
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			bad++
		} else {
			good++
		}
		b = b[n:]
	}
	return good, bad
}

func ascii(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// convert decodes text in a known charset.
func convert(name string, b []byte) string {
	var out strings.Builder
	var err error
	size := len(b) + growth(name, b)
	if enc := own(name); enc != nil && len(b) < 16<<10 {
		var text []byte
		text, _, err = transform.Append(enc.NewDecoder(), make([]byte, 0, size), b) // a reader has large buffers
		out.Write(text)
	} else if enc != nil {
		err = readAll(&out, transform.NewReader(bytes.NewReader(b), enc.NewDecoder()), size)
	} else if shift := shiftCharset(name); shift != nil {
		out.Write(shift(b))
	} else {
		var r io.Reader
		if r, err = charset.Reader(name, bytes.NewReader(b)); err == nil {
			err = readAll(&out, r, size)
		}
	}
	if err != nil && out.Len() == 0 {
		return strings.ToValidUTF8(string(b), "\uFFFD")
	}
	return strings.ToValidUTF8(strings.TrimPrefix(out.String(), "\uFEFF"), "\uFFFD")
}

// growth estimates by how much text grows when it becomes UTF-8.
func growth(name string, b []byte) int {
	switch {
	case name == "windows-874":
		return 2 * high(b) // Thai
	case strings.HasPrefix(name, "iso-2022-"), strings.HasPrefix(name, "utf-"), strings.HasPrefix(name, "hz-"):
		return len(b) / 2
	}
	return high(b)
}

// readAll reads about size octets.
func readAll(out *strings.Builder, r io.Reader, size int) error {
	out.Grow(size)
	buf := make([]byte, min(size+16, 32<<10)) // a header may hold a hundred thousand words
	for {
		n, err := r.Read(buf)
		out.Write(buf[:n])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// known reports whether there is a decoder for a normalised name.
func known(name string) bool {
	if name == "replacement" || len(name) > 40 {
		return false
	}
	if own(name) != nil || shiftCharset(name) != nil {
		return true
	}
	_, err := charset.Reader(name, bytes.NewReader(nil))
	return err == nil
}

// own returns the decoder of a charset, and nil for those that only go-message/charset
// knows. go-message asks ianaindex as well, but returns a reader with large buffers.
func own(name string) encoding.Encoding {
	switch name {
	case "utf-32le":
		return utf32.UTF32(utf32.LittleEndian, utf32.IgnoreBOM)
	case "utf-32be":
		return utf32.UTF32(utf32.BigEndian, utf32.IgnoreBOM)
	case "ansi_x3.110-1983":
		return nil // go-message reads it as ISO 8859-1, which it mostly is
	}
	enc, err := ianaindex.MIME.Encoding(name)
	if err != nil {
		return nil
	}
	return enc
}

// charsetName normalises the name of a charset. If text declared in a charset is really
// written in a superset of it, the superset is returned, as in the WHATWG's Encoding
// Standard: windows-1252 for ISO 8859-1, GB 18030 for GB 2312.
func charsetName(label string) string {
	name := strings.ToLower(strings.Trim(label, " \t\r\n\"'<>;,`"))
	name = strings.TrimPrefix(name, "charset=")
	switch name {
	case "utf8", "utf-8", "unicode-1-1-utf-8", "utf_8", "utf8mb4", "utf-8mb4", "utf8mb3", "x-utf-8", "cp65001", "unicode-2-0-utf-8":
		return "utf-8"
	case "", "us-ascii", "ascii", "usascii", "us_ascii", "ansi_x3.4-1968", "iso646-us", "7bit", "646", "iso-ir-6", "us":
		return "us-ascii"
	case "iso-8859-1", "iso8859-1", "iso_8859-1", "iso88591", "iso8859_1", "8859-1", "latin1", "latin-1", "l1", "cp819",
		"windows-1252", "cp1252", "cp-1252", "win-1252", "windows1252", "win1252", "x-cp1252", "ansi", "x-ansi", "iso-8859-1-windows-3.1-latin-1":
		return "windows-1252"
	case "iso-8859-15", "iso8859-15", "latin9", "latin-9":
		return "iso-8859-15"
	case "gb2312", "gbk", "x-gbk", "cp936", "ms936", "windows-936", "gb_2312-80", "gb2312-80", "euc-cn", "x-euc-cn", "gb18030", "chinese":
		return "gb18030"
	case "hz", "hz-gb-2312":
		return "hz-gb-2312"
	case "cp932", "ms932", "windows-31j", "shift-jis", "shift_jis", "sjis", "x-sjis", "ms_kanji", "shiftjis", "windows-932", "s-jis":
		return "shift_jis"
	case "euc-jp", "eucjp", "x-euc-jp", "x-euc", "ujis", "cp51932":
		return "euc-jp"
	case "iso-2022-jp", "iso2022jp", "iso-2022-jp-1", "iso-2022-jp-2", "iso-2022-jp-3", "iso-2022-jp-ms", "cp50220", "cp50221", "cp50222", "jis", "csiso2022jp":
		return "iso-2022-jp"
	case "euc-kr", "euckr", "ks_c_5601-1987", "ks_c_5601", "ksc5601", "ksc_5601", "ks_c_5601-1989", "cp949", "ms949", "uhc", "x-windows-949", "windows-949", "korean":
		return "euc-kr"
	case "iso-2022-kr", "csiso2022kr":
		return "iso-2022-kr"
	case "iso-2022-cn", "iso-2022-cn-ext":
		return "iso-2022-cn"
	case "utf7", "utf-7", "unicode-1-1-utf-7", "x-unicode-2-0-utf-7", "unicode-2-0-utf-7", "csunicode11utf7":
		return "utf-7"
	case "utf16", "utf-16", "unicode", "ucs-2", "ucs2", "iso-10646-ucs-2":
		return "utf-16"
	case "utf32", "utf-32", "ucs-4", "iso-10646-ucs-4":
		return "utf-32"
	case "macintosh", "mac", "x-mac-roman", "macroman", "x-macroman", "apple-roman":
		return "macintosh"
	case "big-5", "cp950", "ms950", "windows-950", "x-x-big5", "big5-hkscs", "big5hkscs", "big5-eten":
		return "big5"
	case "iso-8859-8-i", "iso-8859-8-e":
		return "iso-8859-8"
	case "koi8r", "koi-8-r", "koi8", "koi":
		return "koi8-r"
	case "koi8u", "koi8-ru":
		return "koi8-u"
	case "cp874", "tis620", "tis-620", "iso-8859-11", "windows-874":
		return "windows-874"
	case "x-unknown", "unknown", "unknown-8bit", "x-user-defined", "binary", "8bit", "default", "default_charset", "none", "_autodetect", "auto", "iso-8859", "x-user":
		return "x-unknown"
	}
	return regular(name)
}

// regular brings variants of a name to the registered one: cp1251, win-1251 and
// windows1251 to windows-1251, iso8859_2 to iso-8859-2.
func regular(name string) string {
	for _, prefix := range []string{"windows-", "windows", "win-", "win", "cp-", "cp", "x-cp", "ms-"} {
		if n, ok := strings.CutPrefix(name, prefix); ok && len(n) == 4 && strings.HasPrefix(n, "125") {
			return "windows-" + n
		}
	}
	for _, prefix := range []string{"iso-8859-", "iso-8859_", "iso8859-", "iso8859_", "iso_8859-", "iso_8859_", "iso8859", "iso-8859", "8859-", "8859_"} {
		if n, ok := strings.CutPrefix(name, prefix); ok && len(n) >= 1 && len(n) <= 2 && strings.Trim(n, "0123456789") == "" {
			return "iso-8859-" + n
		}
	}
	if n, ok := strings.CutPrefix(name, "cp-"); ok {
		return "cp" + n
	}
	return name
}

// wide returns the byte order of UTF-16 or UTF-32: that of the byte order mark, else the
// one that makes most of the text ASCII, else big-endian (RFC 2781 section 4.3). It returns
// "" if the text is neither.
func wide(name string, b []byte) string {
	if ascii(b) && bytes.IndexByte(b, 0) < 0 {
		return "" // one byte for each character
	}
	if name == "utf-32" {
		if bytes.HasPrefix(b, []byte("\xFF\xFE\x00\x00")) || len(b) >= 4 && b[0] != 0 && b[3] == 0 {
			return "utf-32le"
		}
		return "utf-32be"
	}
	if bytes.HasPrefix(b, []byte("\xFF\xFE")) {
		return "utf-16le"
	}
	if bytes.HasPrefix(b, []byte("\xFE\xFF")) {
		return "utf-16be"
	}
	even, odd := 0, 0
	for i, c := range b {
		if c == 0 && i%2 == 0 {
			even++
		} else if c == 0 {
			odd++
		}
	}
	if odd > even {
		return "utf-16le"
	}
	return "utf-16be"
}

// decodeUTF7 decodes UTF-7 (RFC 2152), which Exchange 5.5 wrote by default. golang.org/x/text
// leaves it out, because browsers must not read it. Invalid runs stay as they are.
func decodeUTF7(b []byte) string {
	var out strings.Builder
	for i := 0; i < len(b); {
		if b[i] != '+' {
			out.WriteByte(b[i])
			i++
			continue
		}
		end := i + 1
		for end < len(b) && base64Byte(b[end]) {
			end++
		}
		run := string(b[i+1 : end])
		if run == "" && end < len(b) && b[end] == '-' {
			out.WriteByte('+')
			i = end + 1
			continue
		}
		data, err := base64.RawStdEncoding.DecodeString(run)
		if err != nil || len(data) < 2 {
			out.Write(b[i:end])
			i = end
			continue
		}
		units := make([]uint16, 0, len(data)/2)
		for j := 0; j+1 < len(data); j += 2 {
			units = append(units, uint16(data[j])<<8|uint16(data[j+1]))
		}
		out.WriteString(string(utf16.Decode(units)))
		if i = end; i < len(b) && b[i] == '-' {
			i++
		}
	}
	return strings.ToValidUTF8(out.String(), "\uFFFD")
}

// shiftCharset returns the decoder of the 7-bit charsets that shift a double-byte set in and
// out (RFC 1557, RFC 1922). golang.org/x/text replaces the first by U+FFFD and does not know
// the second.
func shiftCharset(name string) func([]byte) []byte {
	switch name {
	case "iso-2022-kr":
		return func(b []byte) []byte { return shifted(b, korean.EUCKR) }
	case "iso-2022-cn":
		return func(b []byte) []byte { return shifted(b, simplifiedchinese.GB18030) }
	}
	return nil
}

// shifted sets the high bit of bytes between SO and SI, which gives the 8-bit form of the
// charset, and drops the escape sequences that announce it.
func shifted(b []byte, enc encoding.Encoding) []byte {
	const so, si, esc = 0x0E, 0x0F, 0x1B
	raw := make([]byte, 0, len(b))
	in := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == so:
			in = true
		case c == si:
			in = false
		case c == esc && i+3 < len(b) && b[i+1] == '$':
			i += 3
		case c == '\n':
			in = false // the shift ends with the line
			raw = append(raw, c)
		case in && c > ' ':
			raw = append(raw, c|0x80)
		default:
			raw = append(raw, c)
		}
	}
	out, err := enc.NewDecoder().Bytes(raw)
	if err != nil {
		return raw
	}
	return out
}
