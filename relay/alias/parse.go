package alias

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Parse reads a file in the form of /etc/aliases (aliases(5)): "name: target,
// target", # for comments, and white space before a line that goes on. The
// entries are New's to judge; the error joins the lines that are none.
func Parse(text string) ([]Entry, error) {
	var entries []Entry
	var problems []error
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, " \t\r\n")
		switch bare := strings.TrimLeft(line, " \t"); {
		case bare == "" || bare[0] == '#':
		case bare != line && len(entries) > 0:
			last := &entries[len(entries)-1]
			last.Targets = append(last.Targets, splitTargets(bare)...)
		default:
			name, targets, ok := cutName(bare)
			if !ok {
				problems = append(problems, fmt.Errorf("line %d: write name: address, address", n))
				continue
			}
			entries = append(entries, Entry{Name: name, Targets: splitTargets(targets), Line: n})
		}
	}
	return entries, errors.Join(problems...)
}

// cutName splits a line at the colon behind its name, which may be quoted.
func cutName(line string) (name, targets string, ok bool) {
	if strings.HasPrefix(line, `"`) {
		name, targets, ok = strings.Cut(line[1:], `"`)
		targets, colon := strings.CutPrefix(strings.TrimLeft(targets, " \t"), ":")
		return name, targets, ok && colon && name != ""
	}
	name, targets, ok = strings.Cut(line, ":")
	name = strings.TrimSpace(name)
	return name, targets, ok && name != ""
}

// splitTargets splits at the commas outside quotes. What is quoted as a whole
// loses the quotes, as sendmail's "|command" does, if it is no local part.
func splitTargets(s string) []string {
	var list []string
	quoted, start := false, 0
	for i := 0; i <= len(s); i++ {
		switch {
		case i < len(s) && s[i] == '\\' && quoted:
			i++
		case i < len(s) && s[i] == '"':
			quoted = !quoted
		case i == len(s) || s[i] == ',' && !quoted:
			piece := strings.TrimSpace(s[start:min(i, len(s))])
			if inner := strings.Trim(piece, `"`); len(piece) == len(inner)+2 && !strings.Contains(inner, `"`) {
				piece = inner
			}
			if piece != "" {
				list = append(list, piece)
			}
			start = i + 1
		}
	}
	return list
}

// check judges an entry by itself.
func (e Entry) check() error {
	name := strings.TrimPrefix(e.Name, "@")
	switch {
	case e.Name == "*":
	case name != e.Name && !isDomain(name), name == e.Name && !isAddress(name):
		return fmt.Errorf(`%s is no name for an alias; there are local names, addresses, "@" with a domain, and "*"`, show(e.Name))
	}
	if len(e.Targets) == 0 {
		return fmt.Errorf("%s leads to nobody; write whom, or leave it out", e.Name)
	}
	for _, target := range e.Targets {
		if err := checkTarget(target); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	return nil
}

func checkTarget(target string) error {
	target = strings.TrimPrefix(target, `\`)
	switch {
	case strings.HasPrefix(target, "|"):
		return fmt.Errorf("%s is a program: an alias leads to addresses only", show(target))
	case strings.HasPrefix(target, "/"):
		return fmt.Errorf("%s is a file: an alias leads to addresses only, and mail is never thrown away", show(target))
	case strings.HasPrefix(strings.ToLower(target), ":include:"):
		return fmt.Errorf("%s is a list in another file: write the addresses here", show(target))
	case !isAddress(target):
		return fmt.Errorf("%s is not an address", show(target))
	}
	return nil
}

// isAddress takes an address or a local name, of the letters that need no
// quotes: what may stand in an SMTP command as it is.
func isAddress(s string) bool {
	local, domain, qualified := strings.Cut(s, "@")
	if len(s) > 254 || strings.Trim(local, ".") == "" || strings.ContainsFunc(local, func(r rune) bool { return !isAtext(r) && r != '.' }) {
		return false
	}
	return !qualified || isDomain(domain)
}

func isAtext(r rune) bool { return isLetter(r) || strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r) }

func isLetter(r rune) bool {
	if r >= utf8.RuneSelf {
		return r != utf8.RuneError && unicode.IsGraphic(r) && !unicode.IsSpace(r)
	}
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

func isDomain(s string) bool {
	for _, label := range strings.Split(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.ContainsFunc(label, func(r rune) bool { return !isLetter(r) && r != '-' && r != '_' }) {
			return false
		}
	}
	return true
}

// show is s for a message: in quotes, and short.
func show(s string) string {
	if r := []rune(s); len(r) > 60 {
		s = string(r[:60]) + "…"
	}
	return fmt.Sprintf("%q", s)
}
