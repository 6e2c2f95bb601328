package load

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// mark comes before the id of a copy of a mail: sixteen hexadecimal digits. It is in the
// subject, because every API takes that, and in the Message-ID.
const mark = "smtpbench-"

// Mail is a mail to send, with its final dot.
type Mail struct {
	text []byte
	ids  []int // the offsets in text at which the id is written
}

// Kinds returns the kinds of mail that Typical makes.
func Kinds() []string { return []string{"text1k", "alt20k", "att1m"} }

// Typical returns a mail as programs send them: a text of 1 KiB, text and HTML of 20 KiB
// together, or a text with an attachment of 1 MiB.
func Typical(kind, from, to string) (Mail, error) {
	header := fmt.Sprintf("From: App <%s>\r\nTo: %s\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= %[3]s\r\n"+
		"Date: Wed, 25 Nov 2026 10:00:00 +0000\r\nMessage-ID: <%[3]s@bench.invalid>\r\nMIME-Version: 1.0\r\n", from, to, mark+strings.Repeat("0", 16))
	line := "The quick brown fox jumps over the lazy dog, and there is nothing to add.\r\n"
	switch kind {
	case "text1k":
		return NewMail([]byte(header + "Content-Type: text/plain; charset=utf-8\r\n\r\n" + strings.Repeat(line, 9))), nil
	case "alt20k":
		html := strings.Repeat("<p class=3D\"x\">"+strings.TrimSuffix(line, "\r\n")+"</p>\r\n", 110)
		return NewMail([]byte(header + "Content-Type: multipart/alternative; boundary=frontier\r\n\r\n" +
			"--frontier\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + strings.Repeat(line, 110) +
			"--frontier\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + html +
			"--frontier--\r\n")), nil
	case "att1m":
		file := make([]byte, 57*18396) // 1 MiB
		_, _ = rand.NewChaCha8([32]byte{1}).Read(file)
		var b strings.Builder
		b.WriteString(header + "Content-Type: multipart/mixed; boundary=frontier\r\n\r\n--frontier\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + strings.Repeat(line, 9) +
			"--frontier\r\nContent-Type: application/pdf; name=report.pdf\r\nContent-Disposition: attachment; filename=report.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n")
		for part := range slices.Chunk(file, 57) {
			b.WriteString(base64.StdEncoding.EncodeToString(part) + "\r\n")
		}
		b.WriteString("--frontier--\r\n")
		return NewMail([]byte(b.String())), nil
	}
	return Mail{}, fmt.Errorf("unknown kind of mail %q; the kinds are %s", kind, strings.Join(Kinds(), ", "))
}

// NewMail prepares a mail for sending. Each copy gets an id of its own wherever the mail
// has mark and sixteen hexadecimal digits.
func NewMail(text []byte) Mail {
	text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
	text = bytes.ReplaceAll(append([]byte("\r\n"), text...), []byte("\r\n."), []byte("\r\n.."))[2:]
	if !bytes.HasSuffix(text, []byte("\r\n")) {
		text = append(text, "\r\n"...)
	}
	m := Mail{text: append(text, ".\r\n"...)}
	for at := 0; ; {
		i := bytes.Index(m.text[at:], []byte(mark))
		if i < 0 {
			return m
		}
		if at += i + len(mark); hasID(m.text[at:]) {
			m.ids = append(m.ids, at)
		}
	}
}

// Marked reports whether the copies can be told apart.
func (m Mail) Marked() bool { return len(m.ids) > 0 }

// setID writes the id of a copy into its text.
func (m Mail) setID(text []byte, id uint64) {
	var b [8]byte
	for i := range b {
		b[i] = byte(id >> (56 - 8*i))
	}
	for _, at := range m.ids {
		hex.Encode(text[at:], b[:])
	}
}

func hasID(p []byte) bool {
	_, ok := parseID(p)
	return ok
}

// parseID reads an id: sixteen hexadecimal digits.
func parseID(p []byte) (id uint64, ok bool) {
	var b [8]byte
	if len(p) < 16 {
		return 0, false
	}
	if _, err := hex.Decode(b[:], p[:16]); err != nil {
		return 0, false
	}
	for _, c := range b {
		id = id<<8 | uint64(c)
	}
	return id, true
}

// markedIn returns the id of the copy that a text has.
func markedIn(text []byte) (id uint64, ok bool) {
	for {
		i := bytes.Index(text, []byte(mark))
		if i < 0 {
			return 0, false
		}
		text = text[i+len(mark):]
		if id, ok := parseID(text); ok {
			return id, true
		}
	}
}
