package sendmail

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxAddress is RFC 5321 section 4.5.3.1.3's bound of a path.
const maxAddress = 254

// Addresses reads a list of recipients: the value of To, Cc or Bcc, folded or not, or a
// word of the command line. If any part cannot be read it returns an error, because
// each part that is guessed or left out is a person who does not get the mail. A local
// name without a domain, such as root, is an address here.
//
// relay/mail/mime reads the same fields to show them and accepts everything: it takes
// "root" in "root, Bob <bob@example.net>" for Bob's name, and stops after 200. net/mail
// refuses a list with a local name in it.
func Addresses(field string) ([]string, error) {
	l := lister{rest: unfold(field)}
	for l.rest != "" {
		if err := l.next(); err != nil {
			return nil, err
		}
	}
	if err := l.flush(); err != nil {
		return nil, err
	}
	return l.list, nil
}

// unfold turns line ends into spaces.
func unfold(s string) string { return strings.NewReplacer("\r\n", " ", "\n", " ").Replace(s) }

// lister splits a list at the commas and semicolons outside quotes, comments,
// angles and brackets.
type lister struct {
	rest  string
	list  []string
	words strings.Builder // of the current mailbox outside its angles
	angle string
	has   bool // there was an angle
}

func (l *lister) next() error {
	c := l.rest[0]
	switch c {
	case '"', '[':
		end := closing(l.rest)
		if end < 0 {
			return fmt.Errorf("%c is not closed", c)
		}
		l.words.WriteString(l.rest[:end])
		l.rest = l.rest[end:]
	case '(':
		end := comment(l.rest)
		if end < 0 {
			return errors.New("a comment is not closed")
		}
		l.words.WriteByte(' ')
		l.rest = l.rest[end:]
	case '<':
		return l.angled()
	case ',', ';':
		l.rest = l.rest[1:]
		return l.flush()
	case ':': // ends the name of a group, RFC 5322 section 3.4
		if l.has || strings.Contains(l.words.String(), "@") {
			return fmt.Errorf("%s has a colon in it", clean(l.words.String()))
		}
		l.words.Reset()
		l.rest = l.rest[1:]
	default:
		l.words.WriteByte(c)
		l.rest = l.rest[1:]
	}
	return nil
}

// angled reads "<address>".
func (l *lister) angled() error {
	if l.has {
		return errors.New("two addresses without a comma between them")
	}
	for i := 1; i < len(l.rest); i++ {
		switch l.rest[i] {
		case '"':
			end := closing(l.rest[i:])
			if end < 0 {
				return errors.New(`" is not closed`)
			}
			i += end - 1
		case '<':
			return errors.New("< inside of < >")
		case '>':
			l.angle, l.has = strings.TrimSpace(l.rest[1:i]), true
			l.rest = l.rest[i+1:]
			l.words.Reset() // a name
			return nil
		}
	}
	return errors.New("< is not closed")
}

// flush ends the current mailbox.
func (l *lister) flush() error {
	words := strings.TrimSpace(l.words.String())
	address := words
	if l.has {
		if strings.Contains(words, "@") {
			return errors.New("two addresses without a comma between them")
		}
		address = l.angle
		if strings.HasPrefix(address, "@") { // a route, to be ignored: RFC 5322 section 4.4
			_, address, _ = strings.Cut(address, ":")
		}
	} else if words == "" {
		return nil
	}
	l.words.Reset()
	l.angle, l.has = "", false
	if !valid(address) {
		return fmt.Errorf("%s is not an address", clean(address))
	}
	l.list = append(l.list, address)
	return nil
}

// closing returns the end of the quoted string or domain literal that s begins with, or
// -1.
func closing(s string) int {
	end := s[0]
	if end == '[' {
		end = ']'
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case end:
			return i + 1
		}
	}
	return -1
}

// comment returns the end of the comment that s begins with, or -1. Comments nest.
func comment(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// valid reports whether s can be put between < and > in an SMTP command. Whether the
// address exists is for the daemon to say.
func valid(s string) bool {
	if s == "" || len(s) > maxAddress || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return false
	}
	local, domain, qualified := s, "", false
	if s[0] == '"' {
		end := closing(s)
		if end < 3 {
			return false
		}
		if s[end:] == "" {
			return true
		}
		local = "quoted"
		if domain, qualified = strings.CutPrefix(s[end:], "@"); !qualified {
			return false
		}
	} else {
		local, domain, qualified = strings.Cut(s, "@")
	}
	if strings.Trim(local, ".") == "" || strings.ContainsFunc(local, func(r rune) bool { return !isAtext(r) && r != '.' }) {
		return false
	}
	return !qualified || isDomain(domain)
}

// isAtext: RFC 5322 section 3.2.3 and RFC 6532.
func isAtext(r rune) bool {
	return isLetter(r) || strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r)
}

func isLetter(r rune) bool {
	if r >= utf8.RuneSelf {
		return unicode.IsGraphic(r) && !unicode.IsSpace(r)
	}
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

func isDomain(s string) bool {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		return ok && inner != "" && !strings.ContainsFunc(inner, func(r rune) bool { return !isLetter(r) && r != '.' && r != ':' })
	}
	for _, label := range strings.Split(s, ".") {
		if label == "" || strings.ContainsFunc(label, func(r rune) bool { return !isLetter(r) && r != '-' && r != '_' }) {
			return false
		}
	}
	return true
}

// clean returns s for a message to a person: quoted, short, on one line and printable.
func clean(s string) string {
	const most = 80
	runes := []rune(strings.ToValidUTF8(s, "?"))
	if len(runes) > most {
		runes = append(runes[:most], '…')
	}
	for i, r := range runes {
		if !unicode.IsGraphic(r) {
			runes[i] = '?'
		}
	}
	return `"` + string(runes) + `"`
}
