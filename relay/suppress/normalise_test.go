package suppress

import (
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"
)

func TestNormalise(t *testing.T) {
	tests := []struct{ in, want string }{
		{"bob@example.net", "bob@example.net"},
		{"Bob@Example.NET", "bob@example.net"},
		{"bob@example.net.", "bob@example.net"},
		{"b.o.b+tag@example.net", "b.o.b+tag@example.net"},
		{"root", "root"},
		{"Root", "root"},
		{"", ""},
		{"@", `""@`},
		{"bob@", "bob@"},
		{"@example.net", `""@example.net`},
		{"bob@not valid", "bob@not valid"},
		{"bob@[192.0.2.1]", "bob@[192.0.2.1]"},
		{"bob@[IPv6:2001:DB8::1]", "bob@[ipv6:2001:db8::1]"},
		{"bob@[IPv6:2001:db8:0:0::1]", "bob@[ipv6:2001:db8::1]"},
		{"bob@under_score.example", "bob@under_score.example"},

		// IDNA: one form, whichever was written.
		{"bob@bücher.example", "bob@xn--bcher-kva.example"},
		{"bob@BÜCHER.example", "bob@xn--bcher-kva.example"},
		{"bob@bu\u0308cher.example", "bob@xn--bcher-kva.example"},
		{"bob@XN--BCHER-KVA.example", "bob@xn--bcher-kva.example"},
		{"bob@bücher\u3002example", "bob@xn--bcher-kva.example"},
		{"bob@ｅｘａｍｐｌｅ.net", "bob@example.net"},
		{"bob@faß.example", "bob@xn--fa-hia.example"}, // not fass: another domain since IDNA 2008
		{"bob@xn--0.example", "bob@xn--0.example"},    // no Punycode: as it is
		{"bob@XN--0.example", "bob@xn--0.example"},
		{"bob@a․bücher.example", "bob@a․bücher.example"}, // disallowed: as it is

		// Labels that no host has are spelt in two ways as well.
		{"bob@a_b.bücher.example", "bob@a_b.xn--bcher-kva.example"},
		{"bob@BÜ_cher.example", "bob@xn--b_cher-3ya.example"},
		{"bob@ab--cd.bücher.example", "bob@ab--cd.xn--bcher-kva.example"},

		// Local parts: case alone, and quotes only where they are needed.
		{"ZOË@example.net", "zoë@example.net"},
		{"\u212Aelvin@example.net", "\u212Aelvin@example.net"}, // the sign is no k
		{"\u0130pek@example.net", "\u0130pek@example.net"},
		{"zoe\u0308@example.net", "zoe\u0308@example.net"},
		{`"bob"@example.net`, "bob@example.net"},
		{`"B\ob"@example.net`, "bob@example.net"},
		{`"john doe"@example.net`, `"john doe"@example.net`},
		{"john doe@example.net", `"john doe"@example.net`},
		{`"a@b"@example.net`, `"a@b"@example.net`},
		{"a@b@example.net", `"a@b"@example.net`},
		{`"a\"b\\c"@example.net`, `"a\"b\\c"@example.net`},
		{`"\"bob\""@example.net`, `"\"bob\""@example.net`},
		{`"bob@example.net`, `"\"bob"@example.net`},
		{`""@example.net`, `""@example.net`},
		{`"a..b"@example.net`, "a..b@example.net"},
	}
	for _, tt := range tests {
		if got := Normalise(tt.in); got != tt.want {
			t.Errorf("Normalise(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func local() *rapid.Generator[string] {
	return rapid.StringOfN(rapid.OneOf(rapid.RuneFrom([]rune(`abzABZ019.+-_'"\@ é`)), rapid.Rune()), 1, 12, -1)
}

// TestNormalisedStaysSo: the form of the form is the form, for any text.
func TestNormalisedStaysSo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.Map(local(), func(l string) string { return l + "@example.net" })).Draw(t, "address")
		once := Normalise(s)
		if twice := Normalise(once); twice != once {
			t.Fatalf("%q, then %q, then %q", s, once, twice)
		}
	})
}

// TestOnlyCaseAndQuotesMerge: two local parts have one form only if their
// letters are the same but for case.
func TestOnlyCaseAndQuotesMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := local().Draw(t, "a")
		b := rapid.OneOf(local(), rapid.Custom(func(t *rapid.T) string { return mutate(t, a) })).Draw(t, "b")
		if Normalise(a+"@example.net") != Normalise(b+"@example.net") {
			return
		}
		x, y := []rune(unquote(a)), []rune(unquote(b))
		if len(x) != len(y) {
			t.Fatalf("%q and %q are one", a, b)
		}
		for i := range x {
			if x[i] != y[i] && unicode.ToLower(x[i]) != y[i] && unicode.ToUpper(x[i]) != y[i] {
				t.Fatalf("%q and %q are one", a, b)
			}
		}
	})
}

// mutate is s with one thing changed that other systems forgive.
func mutate(t *rapid.T, s string) string {
	return []func() string{
		func() string { return strings.ReplaceAll(s, ".", "") },
		func() string { before, _, _ := strings.Cut(s, "+"); return before },
		func() string { return strings.ToUpper(s) },
		func() string { return `"` + s + `"` },
		func() string { return strings.TrimSpace(s) },
		func() string { return s + " " },
		func() string { return strings.ReplaceAll(s, "-", "") },
		func() string { return "." + s },
	}[rapid.IntRange(0, 7).Draw(t, "mutation")]()
}

// TestCaseNeverMatters: whoever shouts is the same.
func TestCaseNeverMatters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`[a-z0-9.+_-]{1,10}@[a-z0-9]{1,8}\.[a-z]{2,5}`).Draw(t, "address")
		if Normalise(strings.ToUpper(s)) != Normalise(s) || Normalise(s) != s {
			t.Fatalf("%q: %q and %q", s, Normalise(s), Normalise(strings.ToUpper(s)))
		}
	})
}

func FuzzNormalise(f *testing.F) {
	for _, s := range []string{"bob@example.net", `"a\"@b"@BÜCHER.example.`, "\xff@\xff", "@", "a@b@c", "x@xn--\u0130", "a@。", "\"\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once := Normalise(s)
		if twice := Normalise(once); twice != once {
			t.Errorf("%q, then %q, then %q", s, once, twice)
		}
	})
}
