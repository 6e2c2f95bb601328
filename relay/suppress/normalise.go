package suppress

import (
	"strings"
	"unicode"

	"github.com/smtp2rest/smtp2rest/smtpd/policy"
)

// Normalise returns the form in which addresses are compared. The domain is in lower
// case and in its ASCII form (RFC 5890). The local part is in lower case, because no
// provider distinguishes case, and in quotes only when it needs them (RFC 5321 section
// 4.1.2). Dots and +tags stay: at some hosts they are other mailboxes, and good mail
// must not be refused.
func Normalise(address string) string {
	if plain(address) {
		return address // most addresses
	}
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return lower(address)
	}
	return localPart(address[:at]) + "@" + Domain(address[at+1:])
}

// DomainOf returns the domain of a normalised address.
func DomainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// plain reports whether an address is normalised already.
func plain(address string) bool {
	at := -1
	for i := range len(address) {
		switch c := address[i]; {
		case c == '@':
			if at >= 0 {
				return false
			}
			at = i
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '-', c == '_', c == '+' && at < 0:
		default:
			return false
		}
	}
	return at > 0 && at < len(address)-1 && address[len(address)-1] != '.' && !strings.Contains(address[at:], "xn--")
}

// localPart normalises a local part. Quotes that are not needed do not make another
// mailbox.
func localPart(s string) string {
	content := lower(unquote(s))
	if content != "" && strings.IndexFunc(content, special) < 0 {
		return content
	}
	if strings.ContainsAny(content, `\"`) {
		content = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(content)
	}
	return `"` + content + `"`
}

// special reports whether a local part with r in it needs quotes (RFC 5321
// section 4.1.2, atext; RFC 6531 section 3.3). Dots do not.
func special(r rune) bool {
	return r <= ' ' || r == 0x7f || strings.ContainsRune(`()<>[]:;@\,"`, r)
}

// unquote returns the content of a quoted string, or s if it is not one.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' {
		return s
	}
	var content strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"' && i == len(s)-1:
			return content.String()
		case s[i] == '"':
			return s
		case s[i] == '\\' && i < len(s)-2:
			i++
		}
		content.WriteByte(s[i])
	}
	return s
}

// lower changes only case. Letters that merely look like capitals of others stay: the
// Kelvin sign is not a k, and the dotted İ is not an i.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if l := unicode.ToLower(r); l != r && unicode.ToUpper(l) == r {
			return l
		}
		return r
	}, s)
}

// Domain normalises a domain.
func Domain(s string) string {
	form, _ := policy.Domain(s)
	return form
}
