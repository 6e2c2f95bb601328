package smtpd

import (
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/smtp2rest/smtp2rest/smtpd/policy"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// maxAddress bounds an address: a path with its brackets may have 256 octets (RFC 5321
// section 4.5.3.1.3). A local part may be longer than the 64 that the RFC allows:
// senders of bulk mail put whole addresses there.
const maxAddress = 254

// pathCommand is a MAIL or RCPT as we read it. go-smtp's parser removes the quotes of a
// local part, so that "a@b"@x cannot be told from a@b@x, and accepts any octet. So it
// gets only what was read here.
type pathCommand struct {
	address string // canonical: a local part is quoted only if it has to be
	size    int64  // of MAIL: SIZE, 0 when not given
	utf8    bool   // of MAIL: SMTPUTF8
}

// parseMail reads the argument of MAIL.
func parseMail(arg string, maxBytes int64, qualify string) (pathCommand, *reply.Reply) {
	cmd, params, refused := parsePath("MAIL", "FROM:", arg, qualify)
	if refused != nil {
		return cmd, refused
	}
	seen := map[string]bool{}
	for _, param := range strings.Fields(params) {
		name, value, _ := strings.Cut(param, "=")
		name = strings.ToUpper(name)
		if seen[name] {
			return cmd, reply.BadArgument(name + " given twice")
		}
		seen[name] = true
		if refused := cmd.mailParameter(name, value, maxBytes); refused != nil {
			return cmd, refused
		}
	}
	if !cmd.utf8 && !isASCII(cmd.address) {
		return cmd, reply.BadAddress("MAIL")
	}
	return cmd, nil
}

func (cmd *pathCommand) mailParameter(name, value string, maxBytes int64) *reply.Reply {
	switch name {
	case "SIZE": // RFC 1870: up to 20 digits, more than go-smtp reads
		if value == "" || len(value) > 20 || strings.Trim(value, "0123456789") != "" {
			return reply.BadArgument("SIZE is not a number")
		}
		size, err := strconv.ParseInt(value, 10, 64)
		if err != nil || size > maxBytes {
			return reply.TooLarge()
		}
		cmd.size = size
	case "BODY":
		if v := strings.ToUpper(value); v != "7BIT" && v != "8BITMIME" {
			return reply.BadArgument("BODY must be 7BIT or 8BITMIME")
		}
	case "SMTPUTF8":
		if value != "" {
			return reply.BadArgument("SMTPUTF8 takes no value")
		}
		cmd.utf8 = true
	case "AUTH":
		// RFC 4954 section 5: who handed the mail to the client. Sendmail says it
		// wherever a login is offered; we do not use it.
		if value != "<>" && !isXtext(value) {
			return reply.BadArgument("AUTH is neither <> nor xtext")
		}
	default:
		return reply.UnknownParameter(name)
	}
	return nil
}

// isXtext: RFC 3461 section 4, with hexadecimal digits in either case.
func isXtext(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < '!' || c > '~' || c == '=':
			return false
		case c == '+':
			if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
				return false
			}
			i += 2
		}
	}
	return s != ""
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'F' || c >= 'a' && c <= 'f'
}

// parseRcpt reads the argument of RCPT.
func parseRcpt(arg string, utf8 bool, qualify string) (pathCommand, *reply.Reply) {
	cmd, params, refused := parsePath("RCPT", "TO:", arg, qualify)
	switch {
	case refused != nil:
		return cmd, refused
	case cmd.address == "", !utf8 && !isASCII(cmd.address):
		return cmd, reply.BadAddress("RCPT")
	}
	if params := strings.Fields(params); len(params) > 0 {
		name, _, _ := strings.Cut(params[0], "=")
		return cmd, reply.UnknownParameter(strings.ToUpper(name))
	}
	return cmd, nil
}

// parsePath reads "FROM:<a@b> parameters". It accepts what old programs send: a space
// behind the colon, and no brackets. An address without a domain, such as <root> or the
// <postmaster> of RFC 5321 section 4.5.1, gets the domain qualify; if that is "", the
// address is refused.
func parsePath(verb, keyword, arg, qualify string) (cmd pathCommand, params string, refused *reply.Reply) {
	if len(arg) < len(keyword) || !strings.EqualFold(arg[:len(keyword)], keyword) {
		return cmd, "", reply.BadArgument(verb + " needs " + keyword + "<address>")
	}
	path, params, ok := cutPath(strings.TrimLeft(arg[len(keyword):], " \t"))
	if !ok {
		return cmd, "", reply.BadAddress(verb)
	}
	if path == "" {
		return cmd, params, nil
	}
	// A source route is to be ignored: RFC 5321 section 4.1.1.3.
	if strings.HasPrefix(path, "@") {
		_, path, _ = strings.Cut(path, ":")
	}
	cmd.address, ok = canonicalAddress(qualified(path, qualify))
	if !ok {
		return cmd, "", reply.BadAddress(verb)
	}
	return cmd, params, nil
}

// qualified adds the domain to an address without an @. canonicalAddress checks the
// result.
func qualified(path, domain string) string {
	if domain == "" || strings.Contains(path, "@") {
		return path
	}
	return path + "@" + domain
}

// cutPath splits s behind its path, which ends at > or, without brackets, at white
// space. Inside quotes neither ends it.
func cutPath(s string) (path, rest string, ok bool) {
	bracket := strings.HasPrefix(s, "<")
	if bracket {
		s = s[1:]
	}
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case bracket && c == '>':
			rest = s[i+1:]
			return s[:i], rest, rest == "" || rest[0] == ' ' || rest[0] == '\t'
		case !bracket && (c == ' ' || c == '\t'):
			return s[:i], s[i:], true
		}
	}
	return s, "", !bracket && !quoted && s != ""
}

// canonicalAddress checks a Mailbox of RFC 5321 section 4.1.2, with the letters of RFC
// 6531 section 3.3, and returns the form that we use: <"a.b"@x> becomes a.b@x.
func canonicalAddress(s string) (string, bool) {
	if len(s) > maxAddress || !utf8.ValidString(s) {
		return "", false
	}
	local, domain, ok := cutLocalPart(s)
	if !ok || !(isDomain(domain) || isAddressLiteral(domain)) {
		return "", false
	}
	if strings.Trim(local, ".") == "" || strings.ContainsFunc(local, func(r rune) bool { return !isAtext(r) && r != '.' }) {
		local = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`
	}
	return local + "@" + domain, true
}

// cutLocalPart returns the local part without quotes, and the domain.
func cutLocalPart(s string) (local, domain string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		// Two dots in a row are against the RFC, but such addresses exist.
		local, domain, ok = strings.Cut(s, "@")
		bad := strings.ContainsFunc(local, func(r rune) bool { return !isAtext(r) && r != '.' })
		return local, domain, ok && !bad && strings.Trim(local, ".") != ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			domain, ok = strings.CutPrefix(s[i+1:], "@")
			return b.String(), domain, ok && b.Len() > 0
		case c < ' ' || c == 0x7f:
			return "", "", false
		case c == '\\':
			i++
			if i == len(s) || s[i] < ' ' || s[i] == 0x7f {
				return "", "", false
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

// isAtext: RFC 5322 section 3.2.3 and RFC 6531.
func isAtext(r rune) bool {
	return isLetterOrDigit(r) || strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r)
}

// isLetterOrDigit counts everything visible beyond ASCII as a letter.
func isLetterOrDigit(r rune) bool {
	if r >= utf8.RuneSelf {
		return unicode.IsGraphic(r) && !unicode.IsSpace(r)
	}
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// isDomain accepts underscores, which host names inside a company have. A domain beyond
// ASCII must have a form in DNS, so that every list of domains can name it.
func isDomain(s string) bool {
	for _, label := range strings.Split(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.ContainsFunc(label, func(r rune) bool { return !isLetterOrDigit(r) && r != '-' && r != '_' }) {
			return false
		}
	}
	_, sure := policy.Domain(s)
	return sure || isASCII(s)
}

// isAddressLiteral: RFC 5321 section 4.1.3.
func isAddressLiteral(s string) bool {
	if !strings.HasPrefix(s, "[") || !strings.HasSuffix(s, "]") {
		return false
	}
	s = s[1 : len(s)-1]
	six, isSix := strings.CutPrefix(s, "IPv6:")
	addr, err := netip.ParseAddr(six)
	return err == nil && addr.Zone() == "" && addr.Is6() == isSix
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}
