package mail_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"mime/quotedprintable"
	"strings"
	"testing"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
	"pgregory.net/rapid"

	. "github.com/smtp2rest/smtp2rest/relay/mail"
)

// spoken is a charset by the name that mails use, with letters that it has.
type spoken struct {
	label   string
	enc     encoding.Encoding
	letters string
}

const (
	western    = "abcxyz ÄÖÜäöüßéèàçñ«»§°"
	central    = "abcxyz ĄĆĘŁŃÓŚŹŻąćęłńóśźżčřšžě"
	russian    = "abcxyz АБВГДабвгдежзиклмнопрстуфыьэюя"
	greek      = "abcxyz ΑΒΓΔαβγδεζηθλμνξοπρστυφχψω"
	turkish    = "abcxyz ĞİŞğışçöü"
	hebrew     = "abcxyz אבגדהוזחטיכלמנ"
	arabic     = "abcxyz ابتثجحخدذرزسشصضطظعغفقكلمنهوي"
	baltic     = "abcxyz ĀČĒĢĪĶĻŅŠŪŽāčēģīķļņšūž"
	thai       = "abcxyz กขคงจฉชซญฎฏฐณดตถทธน"
	japaneseJA = "abcxyz あいうえおカキクケコ日本語東京都注文"
	chineseCN  = "abcxyz 您的订单已经发货请注意查收"
	chineseTW  = "abcxyz 您的訂單已經出貨請注意查收"
	koreanKO   = "abcxyz 안녕하세요주문상품이발송되었습니다"
)

// charsets returns the charsets of real mail, by the names that mailers write.
func charsets() []spoken {
	list := []spoken{
		{"utf-8", encoding.Nop, western + russian + japaneseJA + "€😀"},
		{"UTF8", encoding.Nop, western + greek},
		{"utf-16", unicode.UTF16(unicode.BigEndian, unicode.UseBOM), western + japaneseJA + "😀"},
		{"utf-16le", unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM), western + chineseCN},
		{"utf-16be", unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM), western + chineseCN},
		{"utf-32", utf32.UTF32(utf32.BigEndian, utf32.UseBOM), western + chineseCN},
		{"gb2312", simplifiedchinese.GBK, chineseCN},
		{"GBK", simplifiedchinese.GBK, chineseCN},
		{"gb18030", simplifiedchinese.GB18030, chineseCN + chineseTW},
		{"hz-gb-2312", simplifiedchinese.HZGB2312, chineseCN},
		{"big5", traditionalchinese.Big5, chineseTW},
		{"shift_jis", japanese.ShiftJIS, japaneseJA},
		{"Windows-31J", japanese.ShiftJIS, japaneseJA},
		{"euc-jp", japanese.EUCJP, japaneseJA},
		{"iso-2022-jp", japanese.ISO2022JP, japaneseJA},
		{"euc-kr", korean.EUCKR, koreanKO},
		{"ks_c_5601-1987", korean.EUCKR, koreanKO},
	}
	for _, c := range []struct {
		enc     *charmap.Charmap
		letters string
		labels  []string
	}{
		{charmap.Windows1252, western + "€“”", []string{"windows-1252", "iso-8859-1", "latin1", "cp1252", "ISO_8859-1"}},
		{charmap.ISO8859_15, western + "€", []string{"iso-8859-15"}},
		{charmap.ISO8859_2, central, []string{"iso-8859-2", "ISO8859-2"}},
		{charmap.Windows1250, central, []string{"windows-1250", "cp1250"}},
		{charmap.ISO8859_3, "abcxyz ĦĝĥŝĈ", []string{"iso-8859-3"}},
		{charmap.ISO8859_4, baltic, []string{"iso-8859-4"}},
		{charmap.Windows1257, baltic, []string{"windows-1257"}},
		{charmap.ISO8859_13, baltic, []string{"iso-8859-13"}},
		{charmap.ISO8859_5, russian, []string{"iso-8859-5"}},
		{charmap.Windows1251, russian, []string{"windows-1251", "cp1251", "win-1251"}},
		{charmap.KOI8R, russian, []string{"koi8-r", "KOI8R"}},
		{charmap.KOI8U, russian + "іїєґ", []string{"koi8-u"}},
		{charmap.CodePage866, russian, []string{"cp866", "ibm866"}},
		{charmap.MacintoshCyrillic, russian, []string{"x-mac-cyrillic"}},
		{charmap.ISO8859_6, "abcxyz ابتثجحخدذرز", []string{"iso-8859-6"}},
		{charmap.Windows1256, arabic, []string{"windows-1256"}},
		{charmap.ISO8859_7, greek, []string{"iso-8859-7"}},
		{charmap.Windows1253, greek, []string{"windows-1253"}},
		{charmap.ISO8859_8, hebrew, []string{"iso-8859-8", "iso-8859-8-i"}},
		{charmap.Windows1255, hebrew, []string{"windows-1255"}},
		{charmap.ISO8859_9, turkish, []string{"iso-8859-9", "latin5"}},
		{charmap.Windows1254, turkish, []string{"windows-1254"}},
		{charmap.ISO8859_10, "abcxyz ĀĒĢĪĨ", []string{"iso-8859-10"}},
		{charmap.ISO8859_14, "abcxyz ŴŶẀ", []string{"iso-8859-14"}},
		{charmap.ISO8859_16, "abcxyz ȘȚșț€", []string{"iso-8859-16"}},
		{charmap.Windows1258, "abcxyz ăâđêôơư", []string{"windows-1258"}},
		{charmap.Windows874, thai, []string{"windows-874", "tis-620"}},
		{charmap.CodePage437, "abcxyz ÄÖÜäöüßéèàçñ", []string{"cp437", "ibm437"}},
		{charmap.CodePage850, "abcxyz ÄÖÜäöüßéèàçñ", []string{"cp850"}},
		{charmap.Macintosh, "abcxyz ÄÖÜäöüßéèàçñ", []string{"macintosh"}},
	} {
		for _, label := range c.labels {
			list = append(list, spoken{label, c.enc, c.letters})
		}
	}
	return list
}

// TestRoundTrip generates mails with known content in every charset and transfer
// encoding, and reads them back.
func TestRoundTrip(t *testing.T) {
	for _, c := range charsets() {
		t.Run(c.label, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				word := rapid.StringOfN(rapid.SampledFrom([]rune(c.letters)), 0, 40, -1)
				lines := rapid.SliceOfN(word, 1, 6).Draw(t, "lines")
				subject := strings.Join(strings.Fields(word.Draw(t, "subject")), " ")
				transfer := rapid.SampledFrom([]string{"8bit", "quoted-printable", "base64", "x-uuencode"}).Draw(t, "transfer")
				text := strings.Join(lines, "\n") + "\nend of text\n"
				checkRoundTrip(t, c, text, subject, transfer)
			})
		})
	}
}

func checkRoundTrip(t *rapid.T, c spoken, text, subject, transfer string) {
	if transfer == "8bit" && (strings.HasPrefix(c.label, "utf-16") || strings.HasPrefix(c.label, "utf-32")) {
		transfer = "base64" // they have bytes that look like line ends
	}
	raw := encode(t, c, strings.ReplaceAll(text, "\n", "\r\n"))
	html := "<p>" + strings.ReplaceAll(text, "\n", "<br>") + "</p>"
	var mail bytes.Buffer
	fmt.Fprintf(&mail, "From: ann@example.com\r\nSubject: =?%s?B?%s?=\r\nContent-Type: multipart/alternative; boundary=\"=_b\"\r\n\r\n", c.label, base64.StdEncoding.EncodeToString(encode(t, c, subject)))
	for _, part := range []struct {
		kind string
		raw  []byte
	}{{"text/plain", raw}, {"text/html", encode(t, c, html)}} {
		fmt.Fprintf(&mail, "--=_b\r\nContent-Type: %s; charset=%s\r\nContent-Transfer-Encoding: %s\r\n\r\n", part.kind, c.label, transfer)
		writeTransfer(&mail, transfer, part.raw)
		mail.WriteString("\r\n")
	}
	mail.WriteString("--=_b--\r\n")
	m, err := Map(mail.Bytes(), "", testOptions())
	if err != nil {
		t.Fatal(err)
	}
	if m.Subject != strings.TrimSpace(subject) {
		t.Errorf("subject %q, want %q", m.Subject, subject)
	}
	// Blanks at the ends of lines do not survive quoted-printable (RFC 2045 section
	// 6.7), and not always uuencode.
	if got, want := trimLines(m.Text), trimLines(text); got != want {
		t.Errorf("%s, %s: text %q, want %q", c.label, transfer, got, want)
	}
	if got := trimLines(m.HTML); got != trimLines(html) {
		t.Errorf("%s, %s: html %q, want %q", c.label, transfer, got, html)
	}
}

func encode(t *rapid.T, c spoken, s string) []byte {
	b, err := c.enc.NewEncoder().Bytes([]byte(s))
	if err != nil {
		t.Fatalf("%s cannot write %q: %v", c.label, s, err)
	}
	return b
}

func trimLines(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n "), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func writeTransfer(w *bytes.Buffer, transfer string, raw []byte) {
	switch transfer {
	case "quoted-printable":
		q := quotedprintable.NewWriter(w)
		q.Binary = true
		_, _ = q.Write(raw)
		_ = q.Close()
	case "base64":
		s := base64.StdEncoding.EncodeToString(raw)
		for len(s) > 0 {
			n := min(76, len(s))
			w.WriteString(s[:n] + "\r\n")
			s = s[n:]
		}
	case "x-uuencode":
		writeUU(w, raw)
	default:
		w.Write(raw)
	}
}

func writeUU(w *bytes.Buffer, raw []byte) {
	w.WriteString("begin 644 body\r\n")
	for len(raw) > 0 {
		n := min(45, len(raw))
		line := make([]byte, (n+2)/3*3)
		copy(line, raw[:n])
		w.WriteByte(byte(' ' + n))
		for i := 0; i < len(line); i += 3 {
			v := uint32(line[i])<<16 | uint32(line[i+1])<<8 | uint32(line[i+2])
			for shift := 18; shift >= 0; shift -= 6 {
				c := byte(v>>shift) & 63
				if c == 0 {
					c = '`' - ' '
				}
				w.WriteByte(' ' + c)
			}
		}
		w.WriteString("\r\n")
		raw = raw[n:]
	}
	w.WriteString("`\r\nend\r\n")
}
