// Package alias turns the recipients that programs name, such as root, into
// people: a table in the form of /etc/aliases and of the configuration, and its
// expansion. It is pure; relay/app reads the file and notices that it changed,
// and relay/intake asks at RCPT.
//
// An alias leads to addresses only. Programs, files and lists in files, which
// sendmail allows here, are no mail, and are refused by name.
package alias

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxTargets bounds what one alias may come to, all others it leads to
// included: each is a call of the API for each mail.
const MaxTargets = 1000

// MaxDepth bounds how many aliases may follow each other.
const MaxDepth = 50

// Entry is one alias. Its name is a local name ("root"), an address, all of a
// domain ("@example.com"), or "*": every local name that has none of its own.
type Entry struct {
	Name    string
	Targets []string // addresses or local names; one behind a \ is final
	Line    int      // in its file; 0 is not known
}

// Options say which names are local.
type Options struct {
	Qualify string   // the domain of addresses that have none; "" leaves them bare
	Local   []string // further domains of which local names are meant
}

// Table is safe for concurrent use: it never changes.
type Table struct {
	opt     Options
	local   map[string]bool
	entries map[string]Entry // by name in lower case
}

// New checks all entries together: the error joins all that is wrong. No
// entries make a table that changes nothing.
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
			continue // the settings say what the system's file says as well
		} else if twice {
			problems = append(problems, e.problem(fmt.Errorf("%q is there twice%s; keep one", e.Name, first.where())))
			continue
		}
		t.entries[e.Name] = e
	}
	if len(problems) == 0 {
		problems = t.judge(entries)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return t, nil
}

// judge finds what only the whole table shows.
func (t *Table) judge(entries []Entry) []error {
	var problems []error
	for _, e := range entries {
		w := walk{table: t, seen: map[string]bool{}, found: map[string]bool{}}
		w.follow(t.entries[strings.ToLower(e.Name)])
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

// Len is the number of aliases.
func (t *Table) Len() int { return len(t.entries) }

// Expand returns whom a recipient stands for, each once, and false when no
// alias applies. A target to which its own alias would apply again is final:
// "www: www, ops" is www as well, and "@example.com" may lead to an address of
// that very domain.
func (t *Table) Expand(address string) ([]string, bool) {
	e, ok := t.lookup(address)
	if !ok {
		return nil, false
	}
	w := walk{table: t, seen: map[string]bool{}, found: map[string]bool{}}
	w.follow(e)
	return w.to, true
}

// lookup finds the nearest alias: of the address, of the local name, of the
// domain, of all local names.
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

// walk follows an alias to its ends.
type walk struct {
	table  *Table
	path   []string        // the aliases that are being followed
	seen   map[string]bool // those that were followed
	found  map[string]bool
	to     []string
	more   bool // than MaxTargets
	deep   bool // deeper than MaxDepth
	circle []string
}

func (w *walk) follow(e Entry) {
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
			w.follow(next)
		}
	}
	w.path = w.path[:len(w.path)-1]
}

// end adds an address.
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
