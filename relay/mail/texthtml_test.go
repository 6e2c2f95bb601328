package mail

import (
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/net/html"
)

func TestTextToHTML(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "<div></div>"},
		{"a\nb\n", "<div>a<br>\nb</div>"},
		{"a  b\n c", "<div>a&nbsp; b<br>\n&nbsp;c</div>"},
		{"<a href=\"x\">&'", "<div>&lt;a href=&quot;x&quot;&gt;&amp;'</div>"},
		{"see http://a.example/x.", `<div>see <a href="http://a.example/x">http://a.example/x</a>.</div>`},
		{"(https://a.example/(x))", `<div>(<a href="https://a.example/(x)">https://a.example/(x)</a>)</div>`},
		{"<http://a.example/?a=1&b=2>", `<div>&lt;<a href="http://a.example/?a=1&amp;b=2">http://a.example/?a=1&amp;b=2</a>&gt;</div>`},
		{"www.a.example!", `<div><a href="http://www.a.example">www.a.example</a>!</div>`},
		{"awww.a.example, www.x", "<div>awww.a.example, www.x</div>"},
		{"to ann.b+c@a.example.", `<div>to <a href="mailto:ann.b+c@a.example">ann.b+c@a.example</a>.</div>`},
		{"javascript://x file:///etc mailto:x", "<div>javascript://x file:///etc mailto:x</div>"},
		{`http://a.example/"onclick="x`, `<div><a href="http://a.example/">http://a.example/</a>&quot;onclick=&quot;x</div>`},
		{"http://", "<div>http://</div>"},
	} {
		if got := asHTML(c.text); got != c.want {
			t.Errorf("%q: got %s, want %s", c.text, got, c.want)
		}
	}
}

func TestTabular(t *testing.T) {
	for text, want := range map[string]bool{
		"Name      Size\na.txt     12\nb.txt     13\n":   true,
		"a\tb\nc\td\ne\tf\n":                             true,
		"| a | b |\n| c | d |\n| e | f |\n":              true,
		"┌───┐\n│ a │\n└───┘\n":                          true,
		"Dear Bob,\n\n    indented prose\n    goes on\n": false,
		"One.   Two.\nThree.\nFour.\nFive.\n":            false,
		"-----\nrule above\n":                            false,
	} {
		if got := tabular(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// FuzzTextToHTML checks that the html shows the same text, character by character, and
// has no tags but ours.
func FuzzTextToHTML(f *testing.F) {
	f.Add("a  <b>\n\thttp://x.example/\"y")
	f.Add("| a | b |\n| c | d |\n| e | f |\nwww.x.example")
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || strings.ContainsAny(text, "\r\x00") {
			return // the parser has seen to that
		}
		doc := asHTML(text)
		var shown strings.Builder
		z := html.NewTokenizer(strings.NewReader(doc))
		for z.Next() != html.ErrorToken {
			token := z.Token()
			switch {
			case token.Type == html.TextToken:
				shown.WriteString(token.Data)
			case !strings.Contains(" div pre br a ", " "+token.Data+" "):
				t.Errorf("a tag %q from %q", token.Data, text)
			}
			for _, a := range token.Attr {
				if a.Key != "href" && a.Key != "style" {
					t.Errorf("an attribute %q from %q", a.Key, text)
				}
				if a.Key == "href" && !strings.Contains(a.Val, "://") && !strings.HasPrefix(a.Val, "mailto:") {
					t.Errorf("a link to %q from %q", a.Val, text)
				}
			}
		}
		if got, want := visible(shown.String()), visible(text); got != want {
			t.Errorf("shows %q, want %q", got, want)
		}
	})
}

// visible removes blanks, which html spells in another way.
func visible(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\n' || r == '\t' || r == '\u00A0' }), "")
}

// asHTML converts a text to html without a limit of memory.
func asHTML(text string) string {
	c := composer{memory: 1 << 30}
	return c.textToHTML(text)
}
