package mime

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
)

// decodeUTF7 decodes RFC 2152, which golang.org/x/text leaves out because
// browsers must not read it; Exchange 5.5 and its kin wrote it by default.
// What is no valid run stays as it is.
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

// shiftCharset returns the decoder of the 7-bit charsets that shift a double
// byte set in and out (RFC 1557, RFC 1922): golang.org/x/text replaces the
// first by U+FFFD and does not know the second.
func shiftCharset(name string) func([]byte) []byte {
	switch name {
	case "iso-2022-kr":
		return func(b []byte) []byte { return shifted(b, korean.EUCKR) }
	case "iso-2022-cn":
		return func(b []byte) []byte { return shifted(b, simplifiedchinese.GB18030) }
	}
	return nil
}

// shifted sets the high bit of what stands between SO and SI, which makes it
// the charset's 8-bit form, and drops the escape sequences that announce it.
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
			in = false // both end with the line
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
