// Package alias expands the recipients that programs name, such as root, to the
// addresses of people. It reads tables in the form of /etc/aliases and of the
// configuration. It is pure: relay/app reads the file and notices changes, and
// relay/intake asks at RCPT.
//
// An alias leads to addresses only. sendmail also allows programs, files and
// included lists; New refuses these with an error that names them.
package alias

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxTargets bounds the addresses of one alias, after aliases that it leads to are
// expanded. Each address costs one API call for each mail.
const MaxTargets = 1000

// MaxDepth bounds how many aliases may lead to one another.
const MaxDepth = 50

// Entry is one alias. Name is a local name ("root"), an address, a whole domain
// ("@example.com"), or "*" for every local name without an alias of its own.
type Entry struct {
	Name    string
	Targets []string // addresses or local names; a \ before one stops its expansion
	Line    int      // in its file; 0: not known
}

// Options say which addresses are local.
type Options struct {
	Qualify string   // the domain to add to local names; "" adds none
	Local   []string // other domains whose addresses are local names
}

// Table is an immutable table of aliases.
type Table struct {
	opt     Options
	local   map[string]bool
	entries map[string]Entry // by name in lower case
}

// New checks the entries and returns their table. The error joins everything that
// is wrong. A table without entries changes nothing.
func New(o Options, entries []Entry) (*Table, error) {
	t := &Table{opt: o, local: map[string]bool{}, entries: map[string]Entry{}}
	for _, domain := range append([]string{o.Qualify}, o.Local...) {
		t.local[strings.ToLower(domain)] = true
	}
	delete(t.local, "")
	var problems []error
	for _, e := range entries {
		e.Name = strings.ToLower(e.Name)
		if err := e.check(); err != nil {
			problems = append(problems, e.problem(err))
			continue
		}
		if first, twice := t.entries[e.Name]; twice && slices.Equal(first.Targets, e.Targets) {
			continue // for example in the settings and in the system's file
		} else if twice {
			problems = append(problems, e.problem(fmt.Errorf("%q is there twice%s; keep one", e.Name, first.where())))
			continue
		}
		t.entries[e.Name] = e
	}
	if len(problems) == 0 {
		problems = t.checkTogether(entries)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return t, nil
}

// checkTogether finds errors that only show in the whole table, such as circles.
func (t *Table) checkTogether(entries []Entry) []error {
	var problems []error
	for _, e := range entries {
		w := walk{table: t, seen: map[string]bool{}, found: map[string]bool{}}
		w.expand(t.entries[strings.ToLower(e.Name)])
		switch {
		case len(w.circle) > 0:
			problems = append(problems, e.problem(fmt.Errorf("%s leads back to itself: %s; a \\ before an address ends it there", e.Name, strings.Join(w.circle, " -> "))))
		case w.deep:
			problems = append(problems, e.problem(fmt.Errorf("%s leads through more than %d aliases one behind the other", e.Name, MaxDepth)))
		case w.more:
			problems = append(problems, e.problem(fmt.Errorf("%s leads to more than %d addresses", e.Name, MaxTargets)))
		}
	}
	return problems
}

func (e Entry) where() string {
	if e.Line == 0 {
		return ""
	}
	return fmt.Sprintf(" (first at line %d)", e.Line)
}

func (e Entry) problem(err error) error {
	if e.Line == 0 {
		return err
	}
	return fmt.Errorf("line %d: %w", e.Line, err)
}

// Len returns the number of aliases.
func (t *Table) Len() int { return len(t.entries) }

// Expand returns the addresses that an address stands for, each once. It returns
// false if no alias applies. A target for which the alias itself would apply again
// is final. For example, "www: www, ops" keeps www, and "@example.com" may lead to
// an address in example.com.
func (t *Table) Expand(address string) ([]string, bool) {
	e, ok := t.lookup(address)
	if !ok {
		return nil, false
	}
	w := walk{table: t, seen: map[string]bool{}, found: map[string]bool{}}
	w.expand(e)
	return w.to, true
}

// lookup returns the most specific alias: of the address, else of the local name,
// else of the domain, else of all local names.
func (t *Table) lookup(address string) (Entry, bool) {
	address = strings.ToLower(address)
	local, domain := address, ""
	if i := strings.LastIndexByte(address, '@'); i >= 0 {
		local, domain = address[:i], address[i+1:]
	}
	names := []string{address}
	if domain != "" {
		names = append(names, "@"+domain)
	}
	if domain == "" || t.local[domain] {
		names = slices.Insert(names, 1, local)
		names = append(names, "*")
	}
	for _, name := range names {
		if e, ok := t.entries[name]; ok {
			return e, true
		}
	}
	return Entry{}, false
}

// walk expands an alias.
type walk struct {
	table  *Table
	path   []string        // the aliases being expanded, the outermost first
	seen   map[string]bool // the aliases expanded so far
	found  map[string]bool
	to     []string
	more   bool     // there are more than MaxTargets
	deep   bool     // it goes deeper than MaxDepth
	circle []string // an alias that leads back to itself
}

func (w *walk) expand(e Entry) {
	if len(w.path) == MaxDepth {
		w.deep = true
	}
	if w.deep || w.more {
		return
	}
	w.seen[e.Name] = true
	w.path = append(w.path, e.Name)
	for _, target := range e.Targets {
		if final, ok := strings.CutPrefix(target, `\`); ok {
			w.end(final)
			continue
		}
		next, ok := w.table.lookup(target)
		switch i := slices.Index(w.path, next.Name); {
		case !ok || i >= 0 && i == len(w.path)-1: // "root: root, ops" is root as well
			w.end(target)
		case i >= 0:
			w.circle = append(slices.Clone(w.path[i:]), next.Name)
			w.end(target)
		case !w.seen[next.Name]:
			w.expand(next)
		}
	}
	w.path = w.path[:len(w.path)-1]
}

// end adds an address to the result.
func (w *walk) end(address string) {
	if !strings.Contains(address, "@") && w.table.opt.Qualify != "" {
		address += "@" + w.table.opt.Qualify
	}
	switch key := strings.ToLower(address); {
	case w.found[key]:
	case len(w.to) >= MaxTargets:
		w.more = true
	default:
		w.found[key] = true
		w.to = append(w.to, address)
	}
}

// Parse reads a file in the form of /etc/aliases (aliases(5)): "name: target,
// target", comments after #, and lines that continue after white space. The error
// joins the malformed lines. New checks the entries.
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

// cutName splits a line at the colon after its name. The name may be quoted.
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

// splitTargets splits at commas outside quotes. A target that is quoted as a whole
// loses its quotes, as in sendmail's "|command".
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

// check checks an entry on its own.
func (e Entry) check() error {
	name := strings.TrimPrefix(e.Name, "@")
	switch {
	case e.Name == "*":
	case name != e.Name && !isDomain(name), name == e.Name && !isAddress(name):
		return fmt.Errorf(`%s cannot be the name of an alias; use a local name, an address, "@" with a domain, or "*"`, show(e.Name))
	}
	if len(e.Targets) == 0 {
		return fmt.Errorf("%s leads to nobody; add an address, or remove it", e.Name)
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

// isAddress reports whether s is an address or a local name that needs no quotes,
// so that it can stand in an SMTP command as it is.
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

// show quotes s for an error message, and shortens it.
func show(s string) string {
	if r := []rune(s); len(r) > 60 {
		s = string(r[:60]) + "…"
	}
	return fmt.Sprintf("%q", s)
}
