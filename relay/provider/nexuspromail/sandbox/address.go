package sandbox

import "strings"

// validAddress takes the addr-spec of RFC 5321, section 4.1.2, with UTF-8 in
// both halves (RFC 6531), within the lengths of section 4.5.3.1. Address
// literals are refused: no provider delivers to them.
func validAddress(s string) bool {
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at > 64 || len(s) > 254 {
		return false
	}
	return validLocal(s[:at]) && validDomain(s[at+1:])
}

func validLocal(s string) bool {
	if s[0] == '"' {
		return validQuoted(s)
	}
	for _, atom := range strings.Split(s, ".") {
		if atom == "" {
			return false
		}
		for i := range len(atom) {
			if !isAtext(atom[i]) {
				return false
			}
		}
	}
	return true
}

// validQuoted takes a local part that is one quoted string.
func validQuoted(s string) bool {
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return i == len(s)-1
		case c == '\\':
			i++
			if i < len(s) && (s[i] < ' ' || s[i] >= 0x7f) {
				return false
			}
		case c < ' ' || c == 0x7f:
			return false
		}
	}
	return false
}

func validDomain(s string) bool {
	for _, label := range strings.Split(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !isAlnum(c) && c != '-' {
				return false
			}
		}
	}
	return true
}

func isAtext(c byte) bool { return isAlnum(c) || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0 }

// isAlnum takes the bytes of non-ASCII characters too.
func isAlnum(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}
