package policy

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func list(t testing.TB, entries ...string) List {
	t.Helper()
	l, err := Parse(entries)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestHas(t *testing.T) {
	for _, tt := range []struct {
		pattern string
		in, out string // addresses, separated by blanks; "" among them is written <>
	}{
		{"Ann@B.test", "ann@b.test ANN@B.TEST \"ann\"@b.test \"a\\nn\"@b.test ann@b.test.", "<> bob@b.test xann@b.test ann@b.test.evil ann@sub.b.test ann+x@b.test ann@b.test@c.test"},
		{"@b.test", "ann@b.test x@B.Test. \"@\"@b.test", "<> ann@sub.b.test b.test \"x@b.test\"@c.test x@b.test@c.test x@xb.test"},
		{"@.b.test", "ann@b.test ann@sub.b.test ann@a.sub.B.test", "<> ann@xb.test ann@b.test.evil ann@test"},
		{"bounce-*@b.test", "bounce-@b.test bounce-7=x@b.test \"bounce-@x\"@b.test", "<> bounce@b.test bounce-7@c.test xbounce-7@b.test"},
		{"*@*.b.test", "a@c.b.test a@d.c.b.test", "<> a@b.test a@b.test.evil"},
		{"no*reply*@b.test", "noreply@b.test no-reply-7@b.test", "<> reply@b.test no-repl@b.test"},
		{"a*a@b.test", "aa@b.test aba@b.test", "<> a@b.test"},
		{"@b*", "x@b.test x@b", "<> x@a.b"},
		{"*", "a@b.test \"a b\"@[192.0.2.1]", "<>"},
		{"<>", "<>", "a@b.test <>@b.test"},
		{"@[192.0.2.1]", "a@[192.0.2.1]", "<> a@[192.0.2.2]"},
		{"@xn--bcher-kva.test", "a@bücher.test a@BÜCHER.test a@xn--bcher-kva.test", "<> a@bucher.test"},
		{"@.xn--bcher-kva.test", "a@a_b.bücher.test a@A_B.BÜCHER.test. a@-x.bücher.test a@ab--cd.bücher。test a@a_b.xn--bcher-kva.test", "<> a@a_b.bucher.test"},
		{"@xn--b_cher-3ya.test", "a@bü_cher.test a@BÜ_cher.test a@bü＿cher.test", "<> a@bü-cher.test"},
		{"@[ipv6:2001:db8::1]", "a@[IPv6:2001:DB8::1] a@[IPv6:2001:db8:0:0:0:0:0:1]", "<> a@[IPv6:2001:db8::2]"},
		{"@[IPv6:2001:db8:0::1]", "a@[IPv6:2001:DB8::1]", "<>"},
		{"@[192.0.2.1]", "a@[IPv6:::ffff:192.0.2.1]", "<>"},
		{"\"a b\"@b.test", "\"A B\"@b.test", "<> ab@b.test"},
		{"zoë@b.test", "zoë@b.test ZOË@b.test zoë@b.test", "<> zoe@b.test"},
	} {
		l := list(t, tt.pattern)
		for want, addresses := range map[bool]string{true: tt.in, false: tt.out} {
			for _, a := range split(addresses) {
				if l.Has(a) != want {
					t.Errorf("%s has %q: %v", tt.pattern, a, !want)
				}
			}
		}
	}
}

// A domain that other programs may read as another one is neither allowed nor
// kept from being denied.
func TestUncertainDomains(t *testing.T) {
	for _, domain := range []string{"xn--b-.test", "xn--0.test", "xn--u-ccb.test", "a․bücher.test", "́a.test", "a\u200db.test", "אa.test", "\xffü.test",
		strings.Repeat("ü", 70) + ".test", strings.Repeat("ü.", 90) + "test"} {
		address := "ann@" + domain
		for name, tt := range map[string]struct {
			rule Rule
			want bool
		}{
			"no rule":                  {Rule{}, true},
			"another domain is denied": {Rule{Deny: list(t, "@b.test")}, false},
			"another user is denied":   {Rule{Deny: list(t, "bob@*", "<>")}, true},
			"a domain is allowed":      {Rule{Allow: list(t, "@test", "@.test", "@b.test")}, false},
			"all is allowed":           {Rule{Allow: list(t, "*")}, true},
		} {
			if got := tt.rule.Permits(address); got != tt.want {
				t.Errorf("%s: %q is permitted: %v", name, address, got)
			}
			if _, _, broken := (Chain{{AllowRecipients: tt.rule.Allow, DenyRecipients: tt.rule.Deny}}).Broken(Recipient, address); broken == tt.want {
				t.Errorf("%s: a chain permits %q: %v", name, address, !broken)
			}
		}
	}
}

// The form of a form is the same, and as sure.
func TestDomainStays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.StringOf(rapid.RuneFrom([]rune("abZ0.-_xnüÜßאıİK。．̈\u200d:[]")))).Draw(t, "domain")
		once, sure := Domain(s)
		if twice, still := Domain(once); twice != once || sure && !still {
			t.Fatalf("%q is %q, %v, and that is %q, %v", s, once, sure, twice, still)
		}
	})
}

// split cuts at blanks outside quotes.
func split(s string) (all []string) {
	for _, a := range regexp.MustCompile(`("[^"]*"|[^" ])+`).FindAllString(s, -1) {
		if a == Null {
			a = ""
		}
		all = append(all, a)
	}
	return all
}

func TestParse(t *testing.T) {
	for _, bad := range []string{"", "ann", "b.test", "@", "ann@", "@.", "@..b", "a@.b.test", "a@b..c", "a@b c", "a@b.", "@bücher.test", "a\n@b.test", "@<b>", "a@b@", "*.b.test"} {
		if l, err := Parse([]string{"a@b.test", bad}); err == nil || !strings.Contains(err.Error(), `write an address, "@example.com"`) {
			t.Errorf("%q is %+v, %v", bad, l, err)
		}
	}
}

func TestRules(t *testing.T) {
	everywhere := Rules{
		DenySenders:     list(t, "evil@b.test", "<>"),
		AllowRecipients: list(t, "@d.test", "@e.test"),
	}
	user := Rules{
		AllowSenders: list(t, "@b.test"),
		AllowFrom:    list(t, "@b.test"), DenyFrom: list(t, "boss@b.test"),
		DenyRecipients: list(t, "all@d.test"), AllowRecipients: list(t, "@d.test"),
	}
	c := Chain{everywhere, {}, user}
	for _, tt := range []struct {
		chain Chain
		part  Part
		in    []string
		out   []string
	}{
		{c, Sender, []string{"a@b.test"}, []string{"evil@b.test", "", "a@c.test"}},
		{c, Author, []string{"a@b.test", "evil@b.test"}, []string{"boss@b.test", "a@c.test", ""}},
		{c, Recipient, []string{"a@d.test"}, []string{"all@d.test", "a@e.test", "a@f.test"}},
		{nil, Sender, []string{"", "a@b.test"}, nil},
		{Chain{{}}, Recipient, []string{"a@b.test"}, nil},
	} {
		for _, a := range tt.in {
			if !tt.chain.Permits(tt.part, a) {
				t.Errorf("part %d: %q is refused", tt.part, a)
			}
		}
		for _, a := range tt.out {
			if tt.chain.Permits(tt.part, a) {
				t.Errorf("part %d: %q is let in", tt.part, a)
			}
		}
	}
}

// matches agrees with a regular expression.
func TestMatchesIsAGlob(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringOfN(rapid.RuneFrom([]rune("ab*")), 0, 12, -1).Draw(t, "pattern")
		s := rapid.StringOfN(rapid.RuneFrom([]rune("abc")), 0, 20, -1).Draw(t, "s")
		re := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$")
		if got, want := matches(pattern, s), re.MatchString(s); got != want {
			t.Fatalf("%q matches %q: %v", pattern, s, got)
		}
	})
}

// FuzzHas: no address, however odd, ends the program, or is in a list that its
// domain is not in.
func FuzzHas(f *testing.F) {
	for _, s := range []string{"", "@", `"`, `"\`, `"@`, "a@b", "a@xn--", `"a\"@b.test`, "\xff@\xff"} {
		f.Add(s)
	}
	l := list(f, "@b.test")
	f.Fuzz(func(t *testing.T, address string) {
		lower := strings.ToLower(address)
		if l.Has(address) && strings.IndexFunc(address, func(r rune) bool { return r >= 0x80 }) < 0 &&
			!strings.HasSuffix(lower, "@b.test") && !strings.HasSuffix(lower, "@b.test.") {
			t.Fatalf("%q is in @b.test", address)
		}
	})
}
