package mime

import (
	"bytes"
	"unicode/utf8"
)

// guess decodes text of an unknown charset.
func guess(b []byte) string {
	return convert(guessName(b), b)
}

// escaped recognises the charsets that announce themselves by escape
// sequences within 7 bits.
func escaped(b []byte) string {
	if i := bytes.IndexByte(b, 0x1B); i < 0 {
		return ""
	}
	for _, seq := range []string{"\x1b$B", "\x1b$@", "\x1b(J", "\x1b(I"} {
		if bytes.Contains(b, []byte(seq)) {
			return "iso-2022-jp"
		}
	}
	if bytes.Contains(b, []byte("\x1b$)C")) {
		return "iso-2022-kr"
	}
	if bytes.Contains(b, []byte("\x1b$)A")) {
		return "iso-2022-cn"
	}
	return ""
}

// guessName names the likeliest charset: a byte order mark, then escape
// sequences, then valid UTF-8, then the one whose rules the bytes keep and in
// which they spell the commonest letters.
func guessName(b []byte) string {
	switch {
	case bytes.HasPrefix(b, []byte("\xFF\xFE")):
		return "utf-16le"
	case bytes.HasPrefix(b, []byte("\xFE\xFF")):
		return "utf-16be"
	}
	if name := escaped(b); name != "" && ascii(b) {
		return name
	}
	if utf8.Valid(b) {
		return "utf-8"
	}
	if good, bad := countUTF8(b); good > 4*bad {
		return "utf-8"
	}
	return "windows-1252"
}
