package mime

import (
	"bytes"
	"encoding/base64"
	"strings"
)

type transferEncoding int

const (
	encIdentity transferEncoding = iota
	encBase64
	encQuoted
	encUU
	encUnknown
)

// encoding reads Content-Transfer-Encoding, as it is written and miswritten.
func (p *Part) encoding() transferEncoding {
	v := p.Header.Get("Content-Transfer-Encoding")
	if len(v) == 0 {
		return encIdentity
	}
	name, _ := p.decoder.parseValue(v)
	drop := func(r rune) rune {
		if r == '-' || r == '_' || r == ' ' {
			return -1
		}
		return r
	}
	switch strings.Map(drop, name) {
	case "base64", "b64", "xbase64":
		return encBase64
	case "quotedprintable", "qp", "quoted", "quotedprint":
		return encQuoted
	case "uuencode", "xuuencode", "uue", "xuue", "xuu":
		return encUU
	case "", "7bit", "8bit", "binary", "7bits", "8bits", "ascii", "usascii", "utf8", "none", "plain":
		return encIdentity
	}
	return encUnknown
}

// Decoded returns the part's body without its transfer encoding. What cannot
// be decoded stays as it is, with a defect. A container's body, and a body
// that is not encoded, is a slice of the mail.
func (p *Part) Decoded() []byte {
	if p.multipart() {
		return p.Body // RFC 2045 section 6.4: never encoded, whatever it says
	}
	switch p.transfer {
	case encBase64:
		data, tail, ok := decodeBase64(p.Body)
		if !ok {
			p.add(BadEncoding, "broken base64")
		}
		if len(tail) > 0 && strings.HasPrefix(p.Type, "text/") {
			data = append(append(data, '\n'), tail...)
		}
		return data
	case encQuoted:
		data, ok := decodeQuoted(p.Body)
		if !ok {
			p.add(BadEncoding, "broken quoted-printable")
		}
		return data
	case encUU:
		if list, _ := p.decoder.CutUU(p.Body, 1); len(list) > 0 {
			return list[0].Data
		}
		p.add(BadEncoding, "broken uuencode")
	case encUnknown:
		p.add(BadEncoding, "unknown transfer encoding")
	}
	return p.Body
}

// decodeBase64 decodes what there is. tail is plain text after the end of the
// data, such as a mailing list's footer; ok is false when anything but white
// space had to be skipped.
func decodeBase64(v []byte) (data, tail []byte, ok bool) {
	packed := make([]byte, 0, len(v))
	for pos := 0; pos < len(v); {
		var line []byte
		line, pos = cutLine(v, pos)
		packed = append(packed, line...)
	}
	// Decoding in place is safe: the decoder reads 4 bytes before it writes 3.
	n, err := base64.StdEncoding.Decode(packed, packed)
	if err == nil {
		return packed[:n], nil, true
	}
	return decodeLoose(v, packed[:0])
}

// looseDecoder is a base64 decoder that never gives up: characters outside the
// alphabet are skipped (RFC 2045 section 6.8), missing padding is assumed, and
// data goes on after padding, as in bodies put together from several. Go's
// decoder, and so go-message, loses the tail in each of these cases.
type looseDecoder struct {
	out     []byte
	acc     uint32
	bits    int
	padded  bool
	skipped int // characters that are no base64
	gaps    int // blanks inside lines: prose has them, base64 hardly
	gappy   int // lines that have any
	lines   int
}

// out is where it goes.
func decodeLoose(v, out []byte) (data, tail []byte, ok bool) {
	d := looseDecoder{out: out}
	for pos := 0; pos < len(v); {
		line, next := cutLine(v, pos)
		if d.padded && !alphabetOnly(line) {
			tail = v[pos:]
			break
		}
		if end := d.line(line); end < len(line) {
			tail = v[pos+end:]
			break
		}
		pos = next
	}
	if d.prose() {
		return v, nil, false
	}
	return d.out, tail, d.skipped == 0 && len(bytes.TrimSpace(tail)) == 0
}

// line decodes a line, up to where the data ends: padding with more than
// another run behind it. It returns where that is.
func (d *looseDecoder) line(line []byte) int {
	end := len(line)
	if i := bytes.IndexByte(line, '='); i >= 0 {
		rest := bytes.TrimLeft(line[i:], "=")
		if after := bytes.TrimLeft(rest, " \t"); len(after) > 0 && (len(after) < len(rest) || !alphabetOnly(after)) {
			end = len(line) - len(rest)
		}
	}
	line = line[:end]
	words := 0
	for range bytes.FieldsSeq(line) {
		words++
	}
	if words > 0 {
		d.lines++
		d.gaps += words - 1
		d.gappy += min(words-1, 1)
	}
	for _, c := range line {
		d.byte(c)
	}
	return end
}

// prose reports whether the text was never encoded, whatever its header says.
func (d *looseDecoder) prose() bool {
	if d.padded {
		return false
	}
	return d.gaps > 3 && d.gappy*2 > d.lines || d.skipped > len(d.out)/4
}

func (d *looseDecoder) byte(c byte) {
	v, ok := sextet(c)
	switch {
	case c == '=':
		d.padded, d.acc, d.bits = true, 0, 0
	case c == ' ' || c == '\t' || c == '\r':
	case !ok:
		d.skipped++
	default:
		d.acc, d.bits = d.acc<<6|uint32(v), d.bits+6
		if d.bits >= 8 {
			d.bits -= 8
			d.out = append(d.out, byte(d.acc>>d.bits))
			d.acc &= 1<<d.bits - 1
		}
	}
}

// alphabetOnly reports whether a line is base64 and not the rule above a footer.
func alphabetOnly(line []byte) bool {
	for _, c := range bytes.TrimRight(line, " \t=") {
		if !base64Byte(c) {
			return false
		}
	}
	return true
}

// sextet reads a character of both alphabets of RFC 4648.
func sextet(c byte) (byte, bool) {
	switch {
	case 'A' <= c && c <= 'Z':
		return c - 'A', true
	case 'a' <= c && c <= 'z':
		return c - 'a' + 26, true
	case '0' <= c && c <= '9':
		return c - '0' + 52, true
	case c == '+' || c == '-':
		return 62, true
	case c == '/' || c == '_':
		return 63, true
	}
	return 0, false
}

// decodeQuoted decodes quoted-printable (RFC 2045 section 6.7). An "=" that is
// not followed by two hex digits or a line break stays; ok is false then.
func decodeQuoted(v []byte) (data []byte, ok bool) {
	out := make([]byte, 0, len(v))
	ok = true
	for len(v) > 0 {
		line, next := cutLine(v, 0)
		hasBreak := next > len(line)
		brk := v[len(line):next]
		v = v[next:]
		line = bytes.TrimRight(line, " \t") // added in transport
		soft := len(line) > 0 && line[len(line)-1] == '='
		if soft {
			line = line[:len(line)-1]
		}
		for {
			i := bytes.IndexByte(line, '=')
			if i < 0 {
				out = append(out, line...)
				break
			}
			out = append(out, line[:i]...)
			if isHexPair(line[i+1:]) {
				hi, _ := unhex(line[i+1])
				lo, _ := unhex(line[i+2])
				out = append(out, hi<<4|lo)
				line = line[i+3:]
				continue
			}
			ok = false
			out = append(out, '=')
			line = line[i+1:]
		}
		if hasBreak && !soft {
			out = append(out, brk...)
		}
	}
	return out, ok
}

// Size returns how long the decoded body is. For an encoded one that is an
// estimate, without the cost of decoding it.
func (p *Part) Size() int64 {
	switch p.transfer {
	case encIdentity, encUnknown:
		return int64(len(p.Body))
	case encBase64:
		n := 0
		for pos := 0; pos < len(p.Body); {
			var line []byte
			line, pos = cutLine(p.Body, pos)
			n += len(bytes.TrimRight(line, " \t="))
		}
		return int64(n) * 3 / 4
	case encQuoted:
		return int64(len(p.Body) - 2*bytes.Count(p.Body, []byte("=")))
	}
	return int64(len(p.Body)) * 3 / 4
}

// AppendBase64 appends the decoded body in base64 without line breaks. A body
// that came in clean base64 is copied rather than decoded and encoded again.
func (p *Part) AppendBase64(dst []byte) []byte {
	if p.transfer == encBase64 {
		begin := len(dst)
		for pos := 0; pos < len(p.Body); {
			var line []byte
			line, pos = cutLine(p.Body, pos)
			dst = append(dst, line...)
		}
		if canonical(dst[begin:]) {
			return dst
		}
		dst = dst[:begin]
	}
	return base64.StdEncoding.AppendEncode(dst, p.Decoded())
}

// canonical reports whether v is base64 that every decoder reads alike.
func canonical(v []byte) bool {
	if len(v)%4 != 0 {
		return false
	}
	v = bytes.TrimSuffix(bytes.TrimSuffix(v, []byte("=")), []byte("="))
	var alphabet [256]bool
	for c := range alphabet {
		alphabet[c] = base64Byte(byte(c))
	}
	for _, c := range v {
		if !alphabet[c] {
			return false
		}
	}
	return true
}

// base64Byte reports whether c is of the alphabet of RFC 2045.
func base64Byte(c byte) bool {
	_, ok := sextet(c)
	return ok && c != '-' && c != '_'
}
