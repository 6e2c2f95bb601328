package mail

import (
	"bytes"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
)

func isSMIME(p *mime.Part) bool {
	return p.Type == "application/pkcs7-mime" || p.Type == "application/x-pkcs7-mime" || strings.EqualFold(p.Filename(), "smime.p7m")
}

// smime opens an opaque signed message (RFC 8551 section 3.5.2), which hides a
// readable body in its signature's wrapping; the signature is left out.
// Whatever else the type stands for is encrypted, or certificates.
func (c *composer) smime(p *mime.Part) []*block {
	kind := strings.ToLower(p.Param("smime-type"))
	if kind == "certs-only" {
		return c.leave(p, SignatureDropped)
	}
	c.take(3 * len(p.Body)) // decoded, and its octets put together
	content, ok := signedContent(p.Decoded())
	if !ok && kind == "signed-data" {
		return c.file(attachmentOf(p)) // says that it is not encrypted, and is no signature either
	}
	if !ok || c.opened >= maxOpened || c.memory < 0 {
		c.sealed = "S/MIME"
		return c.file(attachmentOf(p))
	}
	c.opened++
	c.fates++
	c.omit(SignatureDropped, 0, "S/MIME, around the body")
	return c.part(mime.Parse(content, c.options.Limits))
}

// maxOpened bounds how many wrappings of a mail are opened: each may hold the
// next.
const maxOpened = 4

// signedContent finds the content in CMS signed data: the octets after the
// object identifiers of signedData and data. That is read by hand because
// signers write BER with indefinite lengths, which encoding/asn1 refuses, and
// because nothing is verified: the provider's mail is not the signed one.
func signedContent(der []byte) ([]byte, bool) {
	signedData := []byte{0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x07, 0x02}
	data := []byte{0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x07, 0x01}
	i := bytes.Index(der, signedData)
	if i < 0 || i > 32 {
		return nil, false
	}
	j := bytes.Index(der[i:], data)
	if j < 0 {
		return nil, false
	}
	b := der[i+j+len(data):]
	tag, body, _, ok := readTLV(b)
	if !ok || tag != 0xA0 {
		return nil, false // a detached signature
	}
	return octets(body)
}

// octets reads an OCTET STRING in one piece or in many.
func octets(b []byte) ([]byte, bool) {
	tag, body, _, ok := readTLV(b)
	switch {
	case !ok:
		return nil, false
	case tag == 0x04:
		return body, true
	case tag != 0x24:
		return nil, false
	}
	var out []byte
	for len(body) > 0 {
		tag, piece, rest, ok := readTLV(body)
		if !ok || tag != 0x04 {
			break // the end-of-contents mark
		}
		out = append(out, piece...)
		body = rest
	}
	return out, true
}

// readTLV reads a tag, its contents and what follows. The contents of an
// indefinite length are all that is left.
func readTLV(b []byte) (tag byte, body, rest []byte, ok bool) {
	if len(b) < 2 {
		return 0, nil, nil, false
	}
	tag, n := b[0], int(b[1])
	b = b[2:]
	switch {
	case n == 0x80:
		return tag, b, nil, true
	case n > 0x80:
		size := n & 0x7F
		if size > 4 || size > len(b) {
			return 0, nil, nil, false
		}
		n = 0
		for _, c := range b[:size] {
			n = n<<8 | int(c)
		}
		b = b[size:]
	}
	if n > len(b) {
		n = len(b) // cut short: what there is
	}
	return tag, b[:n], b[n:], true
}
