package mime

import (
	"bytes"
	"encoding/base64"
	"strconv"
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

// encoding reads Content-Transfer-Encoding, including common misspellings.
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

// Decoded returns the body without its transfer encoding. What cannot be decoded stays as it
// is, with a defect. The body of a container, and one that is not encoded, is a slice of the
// mail.
func (p *Part) Decoded() []byte {
	if p.multipart() {
		return p.Body // never encoded, whatever its header says (RFC 2045 section 6.4)
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

// decodeBase64 decodes as much as possible. tail is plain text after the data, such as the
// footer of a mailing list. ok is false if anything but white space was skipped.
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

// looseDecoder is a base64 decoder that never fails. It skips characters outside the
// alphabet (RFC 2045 section 6.8), adds missing padding, and continues after padding, for
// bodies that were joined from several. Go's decoder, and so go-message, loses the rest in
// each of these cases.
type looseDecoder struct {
	out     []byte
	acc     uint32
	bits    int
	padded  bool
	skipped int // characters outside the alphabet
	gaps    int // blanks inside lines: prose has many, base64 hardly any
	gappy   int // lines with blanks inside
	lines   int
}

// decodeLoose is decodeBase64 for malformed data. It appends to out.
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

// line decodes a line and returns where the data ends in it. Data ends at padding that is
// followed by something other than a further run of base64.
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

// alphabetOnly reports whether a line is base64 and not, for example, the rule above a
// footer.
func alphabetOnly(line []byte) bool {
	for _, c := range bytes.TrimRight(line, " \t=") {
		if !base64Byte(c) {
			return false
		}
	}
	return true
}

// sextet returns the value of a character in either alphabet of RFC 4648.
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

// decodeQuoted decodes quoted-printable (RFC 2045 section 6.7). An "=" that is followed by
// neither two hex digits nor a line break stays, and ok is false.
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
			if c, valid := unhex(line[i+1:]); valid {
				out = append(out, c)
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

// Size returns the length of the decoded body. For an encoded body it is an estimate, which
// does not need to decode it.
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

// AppendBase64 appends the decoded body in base64 without line breaks. A body in clean
// base64 is copied, not decoded and encoded again.
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

// canonical reports whether v is base64 that every decoder reads the same way.
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

// base64Byte reports whether c is in the alphabet of RFC 2045.
func base64Byte(c byte) bool {
	_, ok := sextet(c)
	return ok && c != '-' && c != '_'
}

// UUFile is a uuencoded file that was found in a text.
type UUFile struct {
	Name string
	Data []byte
	Rest bool // it is the undecoded rest of the text, after too many files
}

// CutUU returns the uuencoded files in a text, up to most, and the text without them. Only a
// complete file counts, from "begin 644 name" to "end", because a line of prose may begin
// with "begin". If there are more files, the rest of the text becomes one more, undecoded.
func (d *Decoder) CutUU(text []byte, most int) (files []UUFile, rest []byte) {
	if !bytes.HasPrefix(text, []byte("begin ")) && !bytes.Contains(text, []byte("\nbegin ")) {
		return nil, text
	}
	kept := 0
	for pos := 0; pos < len(text); {
		line, next := cutLine(text, pos)
		name, ok := uuBegin(line)
		if !ok {
			pos = next
			continue
		}
		data, end, ok := uuDecode(text, next)
		if !ok {
			pos = max(next, end) // do not read it again, so that the time stays linear
			continue
		}
		rest = append(rest, text[kept:pos]...)
		if len(files) == most {
			return append(files, UUFile{Data: text[pos:], Rest: true}), rest
		}
		files = append(files, UUFile{Name: d.Words(name, ""), Data: data})
		pos, kept = end, end
	}
	if files == nil {
		return nil, text
	}
	return files, append(rest, text[kept:]...)
}

func uuBegin(line []byte) (name []byte, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte("begin "))
	if !ok {
		return nil, false
	}
	mode, name, ok := bytes.Cut(rest, []byte(" "))
	if _, err := strconv.ParseUint(string(mode), 8, 16); !ok || err != nil || len(mode) < 3 || len(mode) > 4 {
		return nil, false
	}
	return name, true
}

// uuDecode decodes lines up to "end". If one is malformed, end is its offset.
func uuDecode(text []byte, pos int) (data []byte, end int, ok bool) {
	data = []byte{}
	for pos < len(text) {
		line, next := cutLine(text, pos)
		if string(bytes.TrimSpace(line)) == "end" {
			return data, next, true
		}
		if data, ok = appendUU(data, line); !ok {
			return nil, pos, false
		}
		pos = next
	}
	return nil, pos, false
}

// appendUU decodes one line: its length in the first character, then four characters for
// three bytes. Blanks at the end may have been lost in transport.
func appendUU(out, line []byte) ([]byte, bool) {
	if len(bytes.TrimSpace(line)) == 0 {
		return out, true
	}
	n := int(line[0]-' ') & 63
	groups := (n + 2) / 3
	if line[0] < ' ' || line[0] > '`' || len(line) > 1+groups*4+3 {
		return out, false
	}
	at := func(i int) uint32 {
		if i < len(line) && line[i] >= ' ' && line[i] <= '`' {
			return uint32(line[i]-' ') & 63
		}
		return 0
	}
	for g := 0; g < groups; g++ {
		i := 1 + g*4
		v := at(i)<<18 | at(i+1)<<12 | at(i+2)<<6 | at(i+3)
		three := [3]byte{byte(v >> 16), byte(v >> 8), byte(v)}
		out = append(out, three[:min(3, n-g*3)]...)
	}
	return out, true
}
