package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// readFile puts the file's settings into the Config. The file is not decoded
// into the structs: the library would stop at the first problem, has no
// positions for most of them, and takes 5 for five nanoseconds.
func (l *loader) readFile() {
	if l.src.Path == "" {
		return
	}
	data, err := l.src.ReadFile(l.src.Path)
	if err == nil && len(data) > maxFile {
		err = errors.New("it is larger than 1 MiB")
	}
	if err != nil {
		l.fileProblem(0, "", "cannot read the configuration: %v", cause(err))
		return
	}
	f := tomlFile{loader: l}
	var top map[string]toml.Primitive
	if f.md, err = toml.Decode(string(data), &top); err != nil {
		l.syntaxProblem(data, err)
		return
	}
	f.top(f.entries("", top))
}

// cause is err without the name of the file, which the message has already.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func (l *loader) fileProblem(line int, path, format string, args ...any) {
	l.problems = append(l.problems, Problem{File: l.src.Path, Line: line, Path: path, Text: fmt.Sprintf(format, args...)})
}

// mayHoldSecret matches a line or a key whose value is not to be shown: the
// library quotes what it cannot read.
var mayHoldSecret = regexp.MustCompile(`(?i)key|secret|token|passw`)

func (l *loader) syntaxProblem(data []byte, err error) {
	var parse toml.ParseError
	if !errors.As(err, &parse) {
		l.fileProblem(0, "", "this is not TOML")
		return
	}
	line := parse.Position.Line
	text := strings.TrimSuffix(parse.Message, ".")
	lines := bytes.Split(data, []byte("\n"))
	around := bytes.Join(lines[max(0, min(line-2, len(lines))):min(line, len(lines))], []byte("\n"))
	if mayHoldSecret.MatchString(parse.LastKey) || mayHoldSecret.Match(around) {
		text = "something is wrong at this line; it is not shown because a secret may be in it"
	}
	l.fileProblem(line, "", "this is not TOML: %s", text)
}

// tomlFile walks what the library parsed.
type tomlFile struct {
	*loader
	md toml.MetaData
}

// entry is one key of a table.
type entry struct {
	key   string
	path  string // of the table and the key, as TOML writes it
	data  any
	line  int // 0 when not known
	raw   toml.Primitive
	again bool // the same key in another case came before
}

// probe makes the library hand over a value together with its line: it has
// positions only in the errors of Unmarshalers.
type probe struct{ data any }

func (p *probe) UnmarshalTOML(v any) error {
	p.data = v
	return errors.New("probe")
}

// entries are the keys of a table, in the order of the file where it is known.
func (f *tomlFile) entries(prefix string, table map[string]toml.Primitive) []entry {
	var list []entry
	for key, raw := range table {
		var p probe
		var at toml.ParseError
		errors.As(f.md.PrimitiveDecode(raw, &p), &at)
		e := entry{key: key, path: toml.Key{key}.String(), data: p.data, line: at.Position.Line, raw: raw}
		if prefix != "" {
			e.path = prefix + "." + e.path
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b entry) int {
		if a.line != b.line {
			return a.line - b.line
		}
		return strings.Compare(a.key, b.key)
	})
	for i := range list {
		for _, earlier := range list[:i] {
			list[i].again = list[i].again || strings.EqualFold(earlier.key, list[i].key)
		}
	}
	return list
}

// top takes the settings above the first table, and each table.
func (f *tomlFile) top(entries []entry) {
	for _, e := range entries {
		name := strings.ToLower(e.key)
		switch {
		case e.again:
			f.fileProblem(e.line, e.path, "is here twice, written in different cases; keep one")
		case name == "listener":
			f.listeners(e)
		case slices.Contains(tableNames(), name):
			if table, ok := f.table(e); ok {
				f.assign(name, f.entries(name, table))
			} else {
				f.fileProblem(e.line, name, "found %s; %s is a table: write [%s] and its settings below", kindOf(e.data), name, name)
			}
		default:
			f.assign("", []entry{e})
		}
	}
}

func (f *tomlFile) table(e entry) (map[string]toml.Primitive, bool) {
	var table map[string]toml.Primitive
	if _, ok := e.data.(map[string]any); !ok {
		return nil, false
	}
	return table, f.md.PrimitiveDecode(e.raw, &table) == nil
}

// listeners takes the array of tables.
func (f *tomlFile) listeners(e entry) {
	const want = "write [[listener]], in double brackets, above the settings of each"
	var tables []map[string]toml.Primitive
	n := 0
	switch list := e.data.(type) {
	case []map[string]any:
		n = len(list)
	case []any:
		n = len(list)
		for _, item := range list {
			if _, ok := item.(map[string]any); !ok {
				f.fileProblem(e.line, "listener", "found a list with %s in it; %s", kindOf(item), want)
				return
			}
		}
	default:
		f.fileProblem(e.line, "listener", "found %s; %s", kindOf(e.data), want)
		return
	}
	if n == 0 {
		f.fileProblem(e.line, "listener", "found an empty list; leave it out for the default, or %s", want)
		return
	}
	if err := f.md.PrimitiveDecode(e.raw, &tables); err != nil {
		f.fileProblem(e.line, "listener", "%s", want)
		return
	}
	f.setListeners(n)
	for i, table := range tables {
		entries := f.entries(listenerPrefix(i, n), table)
		if n > 1 {
			// The library keeps one position for all tables of an array, so
			// that lines would be those of the last one.
			for j := range entries {
				entries[j].line = 0
			}
		}
		f.assign(listenerPrefix(i, n), entries)
	}
}

// assign sets the settings of one table.
func (f *tomlFile) assign(table string, entries []entry) {
	for _, e := range entries {
		path := e.key
		if table != "" {
			path = table + "." + e.key
		}
		s := f.find(path)
		switch {
		case e.again:
			f.fileProblem(e.line, e.path, "is here twice, written in different cases; keep one")
			continue
		case s == nil:
			f.fileProblem(e.line, e.path, "%s", f.unknown(table, e))
			continue
		}
		f.lines[s.path] = e.line
		if err := s.value.set(e.data); err != nil {
			f.bad[s.path] = true
			f.fileProblem(e.line, s.path, "%v", err)
			continue
		}
		s.origin = "file"
	}
}
