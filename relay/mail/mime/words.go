package mime

import (
	"bytes"
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// Words decodes a header value to UTF-8. It decodes encoded words (RFC 2047) wherever they
// stand. Other text that is not ASCII is UTF-8 if it is valid, else in the charset hint, else
// in a guessed one. Adjacent words of one charset are decoded together, because mailers split
// them in the middle of a character. Control characters become spaces: an encoded word may
// have a line break, and a header value must not.
func (d *Decoder) Words(v []byte, hint string) string {
	v = Unfold(v)
	if bytes.IndexByte(v, '=') < 0 && plain(v) {
		return string(v)
	}
	w := wordDecoder{decoder: d, hint: hint}
	for {
		i := bytes.Index(v, []byte("=?"))
		if i < 0 {
			break
		}
		word, n := cutWord(v[i:])
		if n == 0 {
			w.literal(v[:i+2])
			v = v[i+2:]
			continue
		}
		w.literal(v[:i])
		w.word(word)
		v = v[i+n:]
	}
	w.literal(v)
	w.flush()
	return strings.TrimSpace(OneLine(w.out.String()))
}

func plain(v []byte) bool {
	for _, c := range v {
		if c < ' ' || c >= 0x7F {
			return false
		}
	}
	return true
}

// OneLine replaces line breaks and tabs by spaces, drops other control characters, and
// replaces what is not UTF-8.
func OneLine(s string) string {
	clean := func(r rune) rune {
		switch {
		case r >= '\t' && r <= '\r' || r == 0x85 || r == '\u2028' || r == '\u2029':
			return ' '
		case r < ' ' || r >= 0x7F && r < 0xA0:
			return -1
		}
		return r
	}
	return strings.Map(clean, strings.ToValidUTF8(s, "\uFFFD"))
}

// encodedWord is =?charset?encoding?text?=.
type encodedWord struct {
	charset []byte
	base64  bool
	text    []byte
}

// maxWord bounds an encoded word, for which RFC 2047 section 2 allows 75 characters. Without
// it, a header full of beginnings of words would take quadratic time.
const maxWord = 4096

// cutWord reads the encoded word at the beginning of v and returns its length, 0 if there is
// none. It accepts blanks inside the text: mailers write them in Q text, and folding puts
// them into B text.
func cutWord(v []byte) (encodedWord, int) {
	var w encodedWord
	v = v[:min(len(v), maxWord)]
	if !bytes.HasPrefix(v, []byte("=?")) {
		return w, 0
	}
	i := bytes.IndexByte(v[2:], '?')
	if i <= 0 || i > 60 {
		return w, 0
	}
	w.charset = v[2 : 2+i]
	if bytes.ContainsAny(w.charset, " =<>\"") {
		return w, 0
	}
	w.charset, _, _ = bytes.Cut(w.charset, []byte("*")) // RFC 2231 section 5: language
	rest := v[2+i+1:]
	if len(rest) < 2 || rest[1] != '?' {
		return w, 0
	}
	switch rest[0] {
	case 'B', 'b':
		w.base64 = true
	case 'Q', 'q':
	default:
		return w, 0
	}
	text := rest[2:]
	end := bytes.Index(text, []byte("?="))
	if end < 0 {
		return w, 0
	}
	// In Q text, "?=" may be a question mark before an encoded byte. The mailer
	// should have encoded it. Then the word ends at a later "?=".
	for !w.base64 {
		_, encoded := unhex(text[end+2:])
		next := bytes.Index(text[end+2:], []byte("?="))
		if !encoded || next < 0 || bytes.Contains(text[end+2:end+2+next], []byte("=?")) {
			break
		}
		end += 2 + next
	}
	w.text = text[:end]
	return w, len(v) - len(text) + end + 2
}

// wordDecoder decodes literal text and encoded words in order.
type wordDecoder struct {
	decoder *Decoder
	out     strings.Builder
	hint    string
	charset string // of pending
	pending []byte // decoded bytes of words not yet converted
	inWord  bool   // the last piece was an encoded word
}

func (d *wordDecoder) literal(v []byte) {
	if len(v) == 0 {
		return
	}
	if d.inWord && len(bytes.TrimSpace(v)) == 0 {
		return // blanks between two words are not shown (RFC 2047 section 6.2)
	}
	d.flush()
	d.inWord = false
	if plain(v) {
		d.out.Write(v)
		return
	}
	d.out.WriteString(d.decoder.raw(v, d.hint))
}

func (d *wordDecoder) word(w encodedWord) {
	if !strings.EqualFold(d.charset, string(w.charset)) {
		d.flush()
		d.charset = string(w.charset)
	}
	if w.base64 {
		data, _, _ := decodeBase64(bytes.Join(bytes.Fields(w.text), nil))
		d.pending = append(d.pending, data...)
	} else {
		d.pending = appendQ(d.pending, w.text)
	}
	d.inWord = true
}

func (d *wordDecoder) flush() {
	if len(d.pending) > 0 {
		text, _ := d.decoder.Decode(d.charset, d.pending)
		d.out.WriteString(text)
		d.pending = d.pending[:0]
	}
}

// raw decodes header text that is neither ASCII nor an encoded word.
func (d *Decoder) raw(v []byte, hint string) string {
	if utf8.Valid(v) {
		return string(v)
	}
	text, _ := d.Decode(hint, v)
	return text
}

// appendQ decodes the variant of quoted-printable in RFC 2047 section 4.2.
func appendQ(out, v []byte) []byte {
	for i := 0; i < len(v); i++ {
		c := v[i]
		switch c {
		case '_':
			c = ' '
		case '=':
			if encoded, ok := unhex(v[i+1:]); ok {
				c = encoded
				i += 2
			}
		}
		out = append(out, c)
	}
	return out
}

// unhex decodes the two hex digits at the beginning of b.
func unhex(b []byte) (c byte, ok bool) {
	if len(b) < 2 {
		return 0, false
	}
	var out [1]byte
	_, err := hex.Decode(out[:], b[:2])
	return out[0], err == nil
}
