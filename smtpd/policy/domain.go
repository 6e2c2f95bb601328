package policy

import (
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Domain is the one form of a domain, in which domains are compared: lower
// case, without the root's dot, and in ASCII (RFC 5890). Labels need not be
// those of a host name: companies have underscores in theirs.
//
// It is not sure of a name that other programs may read as another one, such
// as one with letters that IDNA does not allow. A rule that denies has to deny
// such a name, and one that allows must not allow it.
func Domain(name string) (form string, sure bool) {
	name = strings.TrimRight(name, ".")
	lower := lowerASCII(name)
	switch {
	case isASCII(name) && strings.HasPrefix(name, "["):
		return literal(lower), true
	case isASCII(name) && !strings.Contains(lower, "xn--"):
		return lower, true
	}
	ascii, err := international().ToASCII(name)
	ascii = strings.TrimRight(ascii, ".") // of a full stop in another script
	switch {
	case isASCII(name): // DNS looks up this very name, whatever it decodes to
		return lower, err == nil && ascii == lower
	case err != nil || !isASCII(ascii) || !utf8.ValidString(name):
		return lower, false
	}
	return ascii, true
}

// international is idna.Lookup without what it asks of host names.
func international() *idna.Profile {
	return idna.New(
		idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false), idna.VerifyDNSLength(true),
		idna.StrictDomainName(false), idna.CheckHyphens(false))
}

// literal is the one form of an address literal (RFC 5321 section 4.1.3).
// Anything else in brackets is left as it is.
func literal(s string) string {
	inside, closed := strings.CutSuffix(strings.TrimPrefix(s, "["), "]")
	addr, err := netip.ParseAddr(strings.TrimPrefix(inside, "ipv6:"))
	switch {
	case !closed || err != nil || addr.Zone() != "":
		return s
	case addr.Unmap().Is4():
		return "[" + addr.Unmap().String() + "]"
	}
	return "[ipv6:" + addr.String() + "]"
}

// lowerASCII leaves other letters: what is in doubt is not to be changed.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}
