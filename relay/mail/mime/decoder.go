package mime

import "bytes"

// Decoder turns the text of one mail into UTF-8. To guess a charset takes a
// thousand times what it takes to read text in a known one, so a mail in a
// thousand undeclared pieces must not have a thousand guesses: the Decoder
// bounds what is looked at, and then goes by what it guessed last. It is not
// safe for concurrent use. The zero Decoder is ready.
type Decoder struct {
	looked int    // octets that were looked at to guess
	latest string // the charset that was guessed last
}

// mostLooked bounds what of one mail is looked at to guess charsets.
const mostLooked = 16 << 10

// guess names the likeliest charset: a byte order mark, then escape sequences,
// then UTF-8, then the one whose rules the bytes keep and in which they spell
// common letters.
func (d *Decoder) guess(b []byte) string {
	switch {
	case bytes.HasPrefix(b, []byte("\xFF\xFE")):
		return "utf-16le"
	case bytes.HasPrefix(b, []byte("\xFE\xFF")):
		return "utf-16be"
	}
	if name := escaped(b); name != "" && ascii(b) {
		return name
	}
	if good, bad := countUTF8(b); good > 4*bad || bad == 0 {
		return "utf-8"
	}
	if d.looked >= mostLooked && d.latest != "" {
		return d.latest
	}
	sample := highSample(b)
	d.looked += max(len(sample), 128) // a short one has its cost too
	d.latest = likeliest(sample)
	return d.latest
}

// Decode is Decoder.Decode for a text that stands alone.
func Decode(label string, b []byte) (text string, guessed bool) {
	return new(Decoder).Decode(label, b)
}

// DecodeWords is Decoder.Words for a value that stands alone.
func DecodeWords(v []byte, hint string) string { return new(Decoder).Words(v, hint) }

// ParseAddresses is Decoder.Addresses for a field that stands alone.
func ParseAddresses(v []byte, hint string) []Address { return new(Decoder).Addresses(v, hint) }
