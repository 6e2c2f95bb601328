package mail_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	_ "github.com/emersion/go-message/charset"
	"github.com/emersion/go-message/mail"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	. "github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
)

const benchHeader = "Received: from web1.example.com (web1.example.com [192.0.2.1]) by relay.example.com with ESMTP id 4F2K1; Mon, 23 Nov 2026 12:00:00 +0000\r\n" +
	"Message-ID: <20261123120000.4F2K1@web1.example.com>\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\nMIME-Version: 1.0\r\n" +
	"From: =?utf-8?Q?Caf=C3=A9_M=C3=BCller?= <shop@example.com>\r\nTo: Bob <bob@example.net>\r\nSubject: =?utf-8?Q?Your_order_n=C2=B0_1234_is_on_its_way?=\r\n"

func benchText() []byte {
	body := strings.Repeat("Dear Bob, your order has been shipped and will be with you soon.\r\n", 16)[:1024]
	return []byte(benchHeader + "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + body)
}

func benchAlternative() []byte {
	text := strings.Repeat("Dear Bob, your order has been shipped, f=C3=BCr Sie und alle anderen.=\r\n And on.\r\n", 50)
	html := strings.Repeat("<tr><td style=3D\"padding:4px\">Item</td><td class=3D\"price\">12,90 =E2=82=AC</td></tr>\r\n", 185)
	return []byte(benchHeader + "Content-Type: multipart/alternative; boundary=\"=_b1\"\r\n\r\n" +
		"--=_b1\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + text +
		"\r\n--=_b1\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + html + "\r\n--=_b1--\r\n")
}

func benchAttachment() []byte {
	data := make([]byte, 10<<20)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(data)
	var b bytes.Buffer
	b.WriteString(benchHeader + "Content-Type: multipart/mixed; boundary=\"=_b1\"\r\n\r\n--=_b1\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nThe report.\r\n" +
		"--=_b1\r\nContent-Type: application/pdf; name=\"report.pdf\"\r\nContent-Disposition: attachment; filename=\"report.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	line := make([]byte, 76)
	for len(data) > 0 {
		n := min(57, len(data))
		base64.StdEncoding.Encode(line, data[:n])
		b.Write(line[:base64.StdEncoding.EncodedLen(n)])
		b.WriteString("\r\n")
		data = data[n:]
	}
	b.WriteString("--=_b1--\r\n")
	return b.Bytes()
}

// BenchmarkMap maps a mail to its JSON. In the same run it does that with plain
// go-message and encoding/json, for comparison.
func BenchmarkMap(b *testing.B) {
	o := testOptions()
	o.Attachments = SendAttachments
	for _, c := range []struct {
		name string
		raw  []byte
	}{
		{"text1KiB", benchText()},
		{"alternative20KiB", benchAlternative()},
		{"attachment10MiB", benchAttachment()},
	} {
		b.Run(c.name+"/payload", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.raw)))
			for b.Loop() {
				m, err := Map(c.raw, "shop@example.com", o)
				if err != nil {
					b.Fatal(err)
				}
				body, err := settings.Defaults[nexuspromail.Format]().Encode(m)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, body.Open("bob@example.net")); err != nil || n != body.Len("bob@example.net") {
					b.Fatal(n, err)
				}
			}
		})
		b.Run(c.name+"/gomessage", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.raw)))
			for b.Loop() {
				doc, err := straight(c.raw)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, bytes.NewReader(doc))
			}
		})
	}
}

// straightMail is the payload as a program without this package would build it.
type straightMail struct {
	To          map[string]string `json:"to"`
	From        map[string]string `json:"from"`
	Subject     string            `json:"subject"`
	HTML        string            `json:"html"`
	Text        string            `json:"text,omitempty"`
	Attachments []straightFile    `json:"attachments,omitempty"`
}

type straightFile struct {
	Filename string `json:"filename"`
	Content  []byte `json:"content"`
	Type     string `json:"content_type"`
}

// straight uses go-message in the plain way: it reads each part and marshals
// everything.
func straight(raw []byte) ([]byte, error) {
	r, err := mail.CreateReader(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	m := straightMail{To: map[string]string{"email": "bob@example.net"}}
	if m.Subject, err = r.Header.Subject(); err != nil {
		return nil, err
	}
	from, err := r.Header.AddressList("From")
	if err != nil || len(from) == 0 {
		return nil, fmt.Errorf("from: %w", err)
	}
	m.From = map[string]string{"email": from[0].Address, "name": from[0].Name}
	for {
		p, err := r.NextPart()
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(p.Body)
		if err != nil {
			return nil, err
		}
		switch h := p.Header.(type) {
		case *mail.InlineHeader:
			if t, _, _ := h.ContentType(); t == "text/html" {
				m.HTML = string(data)
			} else {
				m.Text = string(data)
			}
		case *mail.AttachmentHeader:
			name, _ := h.Filename()
			t, _, _ := h.ContentType()
			m.Attachments = append(m.Attachments, straightFile{name, data, t})
		}
	}
	if m.HTML == "" {
		m.HTML = "<pre>" + strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(m.Text) + "</pre>"
	}
	return json.Marshal(m)
}

// BenchmarkNested maps a mail nested 5,000 deep. Readers that are nested in each other
// need seconds for it.
func BenchmarkNested(b *testing.B) {
	raw := []byte("From: ann@example.com\r\n" + nested(5000, "inside"))
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := Map(raw, "", testOptions()); err != nil {
			b.Fatal(err)
		}
	}
}
