package suppress

import (
	"strings"
	"unicode"

	"github.com/smtp2rest/smtp2rest/smtpd/policy"
)

// Normalise returns the form in which addresses are compared: the domain
// without case and in its ASCII form (RFC 5890), the local part without case,
// which no provider distinguishes, and in quotes only where it needs them (RFC
// 5321 section 4.1.2). Dots and +tags stay: to some hosts they are other
// mailboxes, and merging too much would refuse good mail.
func Normalise(address string) string {
	if plain(address) {
		return address // as most are
	}
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return lower(address)
	}
	return localPart(address[:at]) + "@" + Domain(address[at+1:])
}

// DomainOf is the domain of a normalised address.
func DomainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// plain reports whether Normalise has nothing to do.
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

// localPart is a local part's one form. What is in quotes and need not be is
// the same mailbox without them.
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
// section 4.1.2, atext; RFC 6531 section 3.3). Dots do not: what stands
// between them is the host's business.
func special(r rune) bool {
	return r <= ' ' || r == 0x7f || strings.ContainsRune(`()<>[]:;@\,"`, r)
}

// unquote is the content of a quoted string; anything else is its own.
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

// lower takes away case and nothing else. Letters that only look like others'
// capitals stay: the Kelvin sign is not a k, and the dotted İ is no i.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if l := unicode.ToLower(r); l != r && unicode.ToUpper(l) == r {
			return l
		}
		return r
	}, s)
}

// Domain is a domain's one form.
func Domain(s string) string {
	form, _ := policy.Domain(s)
	return form
}
