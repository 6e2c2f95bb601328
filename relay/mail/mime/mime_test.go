package mime

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseValue(t *testing.T) {
	for _, c := range []struct {
		value string
		kind  string
		want  []Param
	}{
		{`text/plain`, "text/plain", nil},
		{`Text/HTML; Charset="UTF-8"`, "text/html", []Param{{"charset", "UTF-8"}}},
		{`text/html charset=utf-8`, "text/html", []Param{{"charset", "utf-8"}}},
		{`text/html; charset=utf-8 format=flowed`, "text/html", []Param{{"charset", "utf-8"}, {"format", "flowed"}}},
		{`text/html; charset = utf-8`, "text/html", []Param{{"charset", "utf-8"}}},
		{`text/html; charset=a; charset=b`, "text/html", []Param{{"charset", "a"}}},
		{`text/html; ; bare; charset=a;`, "text/html", []Param{{"charset", "a"}}},
		{`charset=utf-8`, "", []Param{{"charset", "utf-8"}}},
		{`text/plain (comment; x=y); charset=a (b)`, "text/plain", []Param{{"charset", "a"}}},
		{`a/b; name=my report (1).pdf; x=y`, "a/b", []Param{{"name", "my report (1).pdf"}, {"x", "y"}}},
		{`a/b; name="unclosed; x=y`, "a/b", []Param{{"name", "unclosed; x=y"}}},
		{`a/b; name="C:\dir\file \"x\".txt"`, "a/b", []Param{{"name", `C:\dir\file "x".txt`}}},
		{`a/b; name="dir\"`, "a/b", []Param{{"name", `dir\`}}},
		{`a/b; name*=utf-8''%e2%82%ac.txt`, "a/b", []Param{{"name", "€.txt"}}},
		{`a/b; name*=utf-8''it's.txt`, "a/b", []Param{{"name", "it's.txt"}}},
		{`a/b; name=plain; name*=utf-8''%e2%82%ac`, "a/b", []Param{{"name", "€"}}},
		{`a/b; name*1=b; name*0=a; name*2*=%20c`, "a/b", []Param{{"name", "ab c"}}},
		{`a/b; name*0*=utf-8''%e2; name*1*=%82%ac`, "a/b", []Param{{"name", "€"}}},
		{`a/b; name*=koi8-r''%c1%c2`, "a/b", []Param{{"name", "аб"}}},
		{`a/b; name*=no-quotes%20here`, "a/b", []Param{{"name", "no-quotes here"}}},
		{`a/b; name="=?utf-8?B?4oKs?="`, "a/b", []Param{{"name", "€"}}},
		{`a/b; name==?utf-8?B?4oKs?=`, "a/b", []Param{{"name", "€"}}},
		{"a/b;\r\n\tname=x", "a/b", []Param{{"name", "x"}}},
	} {
		kind, params := new(Decoder).parseValue([]byte(c.value))
		if kind != c.kind || len(params)+len(c.want) > 0 && !reflect.DeepEqual(params, c.want) {
			t.Errorf("%s: got %q %q, want %q %q", c.value, kind, params, c.kind, c.want)
		}
	}
}

func TestDecodeWords(t *testing.T) {
	for _, c := range []struct{ in, hint, want string }{
		{"plain", "", "plain"},
		{" a  b ", "", "a  b"},
		{"a\r\n\t b", "", "a b"},
		{"=?utf-8?q?a_b=C3=A9?=", "", "a bé"},
		{"=?utf-8?Q?a?= =?utf-8?Q?b?=", "", "ab"},
		{"=?utf-8?Q?a?=\r\n  =?UTF-8?B?Yg==?=", "", "ab"},
		{"=?utf-8?Q?a?= b =?utf-8?Q?c?=", "", "a b c"},
		{"=?utf-8?Q?=C3?= =?utf-8?Q?=A9?=", "", "é"},
		{"=?utf-8?Q?=C3?= =?iso-8859-1?Q?=E9?=", "", "Ãé"},
		{"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "", "日本"},
		{"=?utf-8?B?w6k?=", "", "é"},
		{"=?utf-8?B?w6 k=?=", "", "é"},
		{"=?utf-8*en?Q?x?=", "", "x"},
		{"=?utf-8?Q?what?=3F?=", "", "what??"},
		{"=?utf-8?Q?a?=and=?utf-8?Q?b?=", "", "aandb"},
		{"=?utf-8?Q??=", "", ""},
		{"=?utf-8?Q?open", "", "=?utf-8?Q?open"},
		{"=??Q?x?=", "", "=??Q?x?="},
		{"=?=?=?", "", "=?=?=?"},
		{"Gr\xfc\xdfe", "", "Grüße"},
		{"\xc1\xc2\xd7", "koi8-r", "абв"},
		{"Gr\xc3\xbc\xc3\x9fe", "koi8-r", "Grüße"},
		{"=?utf-8?Q?a=0D=0A=00b=7F?=", "", "a  b"},
	} {
		if got := new(Decoder).Words([]byte(c.in), c.hint); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}

func TestDecoded(t *testing.T) {
	for _, c := range []struct{ transfer, body, want string }{
		{"base64", "SGVsbG8=", "Hello"},
		{"BASE64", "SGVs\r\nbG8=\r\n", "Hello"},
		{"base64", "SGVsbG8", "Hello"},
		{"base64", "  SGVs\n bG8=", "Hello"},
		{"base64", "SGVs*bG8hIEhlbGxvISBIZWxsbyE=", "Hello! Hello! Hello!"},
		{"base64", "SGVsbG8=SGVsbG8=", "HelloHello"},
		{"base64", "SGVsbG8gdGhlcmUhIQ==\n____\nfooter line\n", "Hello there!!\n____\nfooter line\n"},
		{"base64", "not encoded at all, just a line of text", "not encoded at all, just a line of text"},
		{"quoted-printable", "a=3Db=\r\nc  \r\nd=e9", "a=bc\r\nd\xe9"},
		{"quoted-printable", "100% = =XY =", "100% = =XY "},
		{"Quoted_Printable", "=41", "A"},
		{"x-uuencode", "begin 644 x\n#0V%T\n`\nend\n", "Cat"},
		{"x-uuencode", "not uuencoded", "not uuencoded"},
		{"8bit", "=41", "=41"},
		{"nonsense", "=41", "=41"},
		{"", "=41", "=41"},
	} {
		mail := "Content-Transfer-Encoding: " + c.transfer + "\r\n\r\n" + c.body
		if got := string(Parse([]byte(mail), Limits{}).Decoded()); got != c.want {
			t.Errorf("%s %q: got %q, want %q", c.transfer, c.body, got, c.want)
		}
	}
}

// TestAppendBase64 checks that the base64 in the JSON decodes to the part's content,
// however it was transferred.
func TestAppendBase64(t *testing.T) {
	for _, mail := range []string{
		"Content-Transfer-Encoding: base64\r\n\r\nSGVs\r\nbG8=\r\n",
		"Content-Transfer-Encoding: base64\r\n\r\nSGVsbG8\r\n",
		"Content-Transfer-Encoding: base64\r\n\r\nSGVs bG8=\r\n",
		"Content-Transfer-Encoding: quoted-printable\r\n\r\nHel=6Co",
		"\r\nHello",
	} {
		p := Parse([]byte(mail), Limits{})
		if got := string(p.AppendBase64([]byte("x"))); got != "xSGVsbG8=" {
			t.Errorf("%q: got %q", mail, got)
		}
		if n := p.Size(); n < 5 || n > 7 {
			t.Errorf("%q: size %d", mail, n)
		}
	}
}

// shape writes a tree of parts as one line.
func shape(p *Part) string {
	if !p.Container() {
		return fmt.Sprintf("%s%q", strings.TrimPrefix(p.Type, "text/"), textOf(p))
	}
	var list []string
	for _, child := range p.Parts {
		list = append(list, shape(child))
	}
	return strings.TrimPrefix(p.Type, "multipart/") + "(" + strings.Join(list, " ") + ")"
}

func TestParseStructure(t *testing.T) {
	const mixed = "Content-Type: multipart/mixed; boundary=b\n\n"
	for _, c := range []struct{ name, mail, want string }{
		{"two parts", mixed + "--b\n\none\n--b\n\ntwo\n--b--\n", `mixed(plain"one" plain"two")`},
		{"blanks after the boundary", mixed + "--b \t\n\none\n--b--  \n", `mixed(plain"one")`},
		{"not a boundary", mixed + "--b\n\none\n--bc\n --b\n--b-\n--b--\n", `mixed(plain"one\n--bc\n --b\n--b-")`},
		{"not closed", mixed + "--b\n\none\n", `mixed(plain"one\n")`},
		{"no text before the next", mixed + "--b\n--b\n\ntwo\n--b--", `mixed(plain"" plain"two")`},
		{"outer boundary ends the inner", mixed + "--b\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\none\n--b\n\ntwo\n--b--", `mixed(mixed(plain"one") plain"two")`},
		{"closed twice", mixed + "--b\n\none\n--b--\n--b--\n", `mixed(plain"one")`},
		{"message", "Content-Type: message/rfc822\n\nSubject: in\n\nbody", `message/rfc822(plain"body")`},
		{"message in a part", mixed + "--b\nContent-Type: message/rfc822\n\nSubject: in\n\nbody\n--b\n\ntwo\n--b--", `mixed(message/rfc822(plain"body") plain"two")`},
		{"digest", "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: in\n\nbody\n--b--", `digest(message/rfc822(plain"body"))`},
		{"boundary in quotes and blanks", "Content-Type: multipart/mixed; boundary=\"a b \"\n\n--a b\n\none\n--a b--", `mixed(plain"one")`},
		{"boundary with a comment's letters", "Content-Type: multipart/mixed; boundary=(b)\n\n--x\nContent-Type: text/plain\n\none\n--x--", `mixed(plain"one")`},
		{"no parts", mixed + "just text", `plain"just text"`},
		{"html instead of parts", mixed + "<html>x</html>", `html"<html>x</html>"`},
	} {
		for _, ends := range []string{"\n", "\r\n"} {
			mail := strings.ReplaceAll(c.mail, "\n", ends)
			if got := shape(Parse([]byte(mail), Limits{})); got != c.want {
				t.Errorf("%s: got %s, want %s", c.name, got, c.want)
			}
		}
	}
}

func TestHeaderLines(t *testing.T) {
	for _, c := range []struct{ mail, subject, body string }{
		{"Subject: x\n\nbody", "x", "body"},
		{"Subject : x\n\nbody", "x", "body"},
		{"subject:x\n\nbody", "x", "body"},
		{"junk\nSubject: x\n\nbody", "x", "body"},
		{"Subject: x\njunk\nFrom: y\n\nbody", "x", "body"},
		{"Subject: x\nHello, no blank line\n", "x", "Hello, no blank line\n"},
		{"Subject: x\nhttps://example.com/\n", "x", "https://example.com/\n"},
		{"Subject: x\n \nbody", "x", "body"},
		{"Subject: x\n \n y\nFrom: z\n\nbody", "x y", "body"},
		{">From x\nSubject: x\n\nbody", "x", "body"},
		{"\n\nSubject: x\n\nbody", "x", "body"},
		{"\n\nNothing: like a header\n", "", "\nNothing: like a header\n"},
		{"", "", ""},
		{"\n", "", ""},
		{"Subject: x", "x", ""},
		{"no header\nat all", "", "no header\nat all"},
		{"Subject: x\rFrom: y\r\rbody", "x", "body"},
		{"Subject: x\r\r\nFrom: y\r\r\n\r\r\nbody", "x", "body"},
	} {
		p := Parse([]byte(c.mail), Limits{})
		if s := new(Decoder).Words(p.Header.Get("Subject"), ""); s != c.subject || textOf(p) != c.body {
			t.Errorf("%q: got %q, %q", c.mail, s, textOf(p))
		}
	}
}

// FuzzParse checks that the parser never fails, that bodies are within the mail, and
// that decoded text is UTF-8.
func FuzzParse(f *testing.F) {
	f.Add([]byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b--\r\n"))
	f.Add([]byte("From: a@b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogeA0KDQp5"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		limits := Limits{Depth: 5, Parts: 20, HeaderFields: 10, HeaderBytes: 500}
		parts := 0
		var walk func(p *Part, depth int)
		walk = func(p *Part, depth int) {
			parts++
			if depth > limits.Depth || len(p.Header) > limits.HeaderFields {
				t.Errorf("depth %d, %d fields", depth, len(p.Header))
			}
			for _, s := range []string{textOf(p), p.Filename(), p.ContentID(), new(Decoder).Words(p.Header.Get("Subject"), "")} {
				if !utf8.ValidString(s) {
					t.Errorf("not UTF-8: %q", s)
				}
			}
			for _, a := range new(Decoder).Addresses(p.Header.Get("From"), "") {
				if a.Email != OneLine(a.Email) || a.Name != OneLine(a.Name) {
					t.Errorf("a control character in %q", a)
				}
			}
			for _, child := range p.Parts {
				walk(child, depth+1)
			}
		}
		walk(Parse(raw, limits), 0)
		if parts > 11*limits.Parts+3 { // with the containers
			t.Errorf("%d parts", parts)
		}
		if !bytes.Equal(raw, before) {
			t.Error("the mail was changed")
		}
	})
}

func textOf(p *Part) string {
	text, _ := p.Text()
	return text
}
