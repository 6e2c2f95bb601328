package nexuspromail

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzAppendString checks that encoding/json reads what we write.
func FuzzAppendString(f *testing.F) {
	f.Add("a\"\\\n\r\t\x00\x1f\u2028\u2029é😀\xff")
	f.Fuzz(func(t *testing.T, s string) {
		b := appendString(nil, s)
		var back string
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		if want := toValid(s); back != want || !utf8.Valid(b) {
			t.Errorf("%q came back as %q", want, back)
		}
		if strings.ContainsAny(string(b), "\u2028\u2029") {
			t.Error("a line separator is not escaped")
		}
	})
}

// toValid replaces each byte that is not UTF-8. strings.ToValidUTF8 replaces a run of
// them once.
func toValid(s string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteRune(r)
	}
	return b.String()
}

func TestAsItIs(t *testing.T) {
	for c := range 256 {
		for at := range 8 {
			b := []byte("aZ ~0!}b")
			b[at] = byte(c)
			if asItIs(string(b)) && (c < ' ' || c == '"' || c == '\\' || c >= 0x80) || !asItIs(string(b)) && c >= ' ' && c < 0x7F && c != '"' && c != '\\' {
				t.Errorf("%q: %v", b, asItIs(string(b)))
			}
		}
	}
}
