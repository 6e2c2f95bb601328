package mime

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-message/charset"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
	"golang.org/x/text/transform"
)

// Decode converts text in the charset of that label to UTF-8, which is valid
// whatever comes in. Without a label, with one nobody knows, and when the
// text is plainly not in it, the charset is guessed, and guessed is true when
// that made a difference.
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

// mislabelled reports whether text that is said to be Western in one byte each
// is in fact UTF-8: it is valid, and not by chance. A pair such as "Ä«" could be
// meant; "Ã©", "â€™" or four of any could not.
func mislabelled(b []byte) bool {
	if ascii(b) || !utf8.Valid(b) {
		return false
	}
	good, _ := countUTF8(b)
	return good >= 4 || strings.ContainsFunc(string(b), func(r rune) bool {
		return r >= 0xDF && r <= 0xFF || r >= 0x2000 && r < 0x2100
	})
}

// decodeUTF8 repairs UTF-8: mostly valid text keeps its valid part, with
// U+FFFD for the rest; text with no valid sequence at all is in another
// charset.
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

// convert decodes with a charset that is known.
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

// growth is by how much text grows on its way to UTF-8, mostly.
func growth(name string, b []byte) int {
	switch {
	case name == "windows-874":
		return 2 * high(b) // Thai
	case strings.HasPrefix(name, "iso-2022-"), strings.HasPrefix(name, "utf-"), strings.HasPrefix(name, "hz-"):
		return len(b) / 2
	}
	return high(b)
}

// readAll reads about so many octets.
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

// own returns the decoder for names that go-message/charset does not know, or
// reads more narrowly than mail is written, and for those that are guessed.
func own(name string) encoding.Encoding {
	switch name {
	case "windows-1251":
		return charmap.Windows1251
	case "windows-1252":
		return charmap.Windows1252
	case "windows-1253":
		return charmap.Windows1253
	case "windows-1255":
		return charmap.Windows1255
	case "windows-1256":
		return charmap.Windows1256
	case "windows-874":
		return charmap.Windows874
	case "koi8-r":
		return charmap.KOI8R
	case "big5":
		return traditionalchinese.Big5
	case "gb18030":
		return simplifiedchinese.GB18030
	case "hz-gb-2312":
		return simplifiedchinese.HZGB2312
	case "shift_jis":
		return japanese.ShiftJIS
	case "euc-jp":
		return japanese.EUCJP
	case "iso-2022-jp":
		return japanese.ISO2022JP
	case "euc-kr":
		return korean.EUCKR
	case "utf-16le":
		return unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)
	case "utf-16be":
		return unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)
	case "utf-32le":
		return utf32.UTF32(utf32.LittleEndian, utf32.IgnoreBOM)
	case "utf-32be":
		return utf32.UTF32(utf32.BigEndian, utf32.IgnoreBOM)
	case "x-mac-roman":
		return charmap.Macintosh
	case "ansi_x3.110-1983":
		return nil // which go-message reads as what it mostly is
	}
	// go-message asks the same, but gives no more than a reader, with buffers.
	enc, err := ianaindex.MIME.Encoding(name)
	if err != nil {
		return nil
	}
	return enc
}

// charsetName normalises a label. Where a charset has a superset under which
// it is really written, the superset is meant (as in the WHATWG's Encoding
// Standard): ISO 8859-1 is windows-1252, GB 2312 is GB 18030.
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
		return "x-mac-roman"
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

// regular brings the families' spellings to the registered one: cp1251,
// win-1251 and windows1251 are windows-1251, iso8859_2 is iso-8859-2.
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

// wide chooses the byte order of UTF-16 and UTF-32: the mark's, else that
// which makes most of it ASCII, else the network's (RFC 2781 section 4.3).
func wide(name string, b []byte) string {
	if ascii(b) && bytes.IndexByte(b, 0) < 0 {
		return "" // bytes of one each: the label is wrong
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
