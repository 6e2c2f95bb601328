package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/internal/settings"

	"github.com/BurntSushi/toml"
)

// readFile reads the file's settings into the Config. It does not have the library
// decode the file into the structs, because that stops at the first problem, gives no
// positions for most of them, and reads 5 as five nanoseconds. It returns false if the
// file cannot be read as TOML.
func (l *loader) readFile() bool {
	if l.src.Path == "" {
		return true
	}
	data, err := l.src.ReadFile(l.src.Path)
	if err == nil && len(data) > maxFile {
		err = errors.New("it is larger than 1 MiB")
	}
	if err != nil {
		l.fileProblem(0, "", "cannot read the configuration: %v", cause(err))
		return false
	}
	f := tomlFile{loader: l}
	var top map[string]toml.Primitive
	if f.md, err = toml.Decode(string(data), &top); err != nil {
		l.syntaxProblem(data, err)
		return false
	}
	f.top(top)
	return true
}

// cause removes the name of the file, which the message already has.
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

// mayHoldSecret matches lines and keys whose value must not be shown. The library's
// messages quote what it cannot read.
var mayHoldSecret = regexp.MustCompile(`(?i)key|secret|token|pass|postgres`)

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
	} else if number, _, ok := strings.Cut(parse.Message, " is out of range for "); ok { // the library's numbers have 64 bits
		l.fileProblem(line, parse.LastKey, "found %s, a number beyond every limit; write a smaller one", number)
		return
	}
	l.fileProblem(line, "", "this is not TOML: %s", text)
}

// maxUnknown is how many unknown settings are reported one by one. A file of another
// program may have thousands.
const maxUnknown = 20

// tomlFile is a file that the library has parsed.
type tomlFile struct {
	*loader
	md      toml.MetaData
	unknown int // settings that are not ours
}

// entry is a key of a table with its value.
type entry struct {
	key  string
	path string // of the table and the key, as TOML writes it
	data any
	line int // 0 when not known
	raw  toml.Primitive
}

// probe gets a value together with its line. The library has positions only in the
// errors of Unmarshalers.
type probe struct{ data any }

func (p *probe) UnmarshalTOML(v any) error {
	p.data = v
	return errors.New("probe")
}

// entry reads one key. It is slow, because the library splits the whole file into
// lines each time.
func (f *tomlFile) entry(table, key string, raw toml.Primitive) entry {
	var p probe
	var at toml.ParseError
	errors.As(f.md.PrimitiveDecode(raw, &p), &at)
	e := entry{key: key, path: toml.Key{key}.String(), data: p.data, line: at.Position.Line, raw: raw}
	if table != "" {
		e.path = table + "." + e.path
	}
	if strings.Contains(table, "#") {
		// The library keeps one position for all tables of an array: this line is
		// in the last one.
		e.line = 0
	}
	return e
}

// top assigns the settings above the first table and those of each table. It counts
// the repeated tables first, because there are as many settings as tables.
func (f *tomlFile) top(top map[string]toml.Primitive) {
	repeated := map[string][]map[string]toml.Primitive{}
	for _, key := range slices.Sorted(maps.Keys(top)) {
		if name := strings.ToLower(key); isRepeated(name) && repeated[name] == nil {
			if tables := f.repeated(name, f.entry("", key, top[key])); tables != nil {
				repeated[name] = tables
				f.makeRoom(name, len(tables))
			}
		}
	}
	f.chooseVendor(top)
	f.declare()
	seen := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(top)) {
		name := strings.ToLower(key)
		if !isRepeated(name) && !slices.Contains(tableNames(), name) {
			f.assign("", map[string]toml.Primitive{key: top[key]})
			continue
		}
		e := f.entry("", key, top[key])
		switch table, ok := f.table(e); {
		case seen[name]:
			f.fileProblem(e.line, e.path, "%s", twice)
		case isRepeated(name):
			for i, table := range repeated[name] {
				f.assign(settings.Numbered(name, i, len(repeated[name])), table)
			}
		case ok:
			f.assign(name, table)
		default:
			f.fileProblem(e.line, name, "found %s; %s is a table: write [%s] and its settings below", settings.KindOf(e.data), name, name)
		}
		seen[name] = true
	}
	if n := f.unknown - maxUnknown; n > 0 {
		f.fileProblem(0, "", "there are %d more unknown settings; is this a configuration of smtp2rest?", n)
	}
}

// twice is for names that differ only in case, which TOML distinguishes and people
// do not.
const twice = "is there twice, in upper and lower case; keep one"

func (f *tomlFile) table(e entry) (map[string]toml.Primitive, bool) {
	var table map[string]toml.Primitive
	if _, ok := e.data.(map[string]any); !ok {
		return nil, false
	}
	return table, f.md.PrimitiveDecode(e.raw, &table) == nil
}

// repeated returns the tables of an array, or nil if it is not one.
func (f *tomlFile) repeated(name string, e entry) []map[string]toml.Primitive {
	want := "write " + bracket(name) + ", in double brackets, above the settings of each"
	n := 0
	switch list := e.data.(type) {
	case []map[string]any:
		n = len(list)
	case []any:
		n = len(list)
		for _, item := range list {
			if _, ok := item.(map[string]any); !ok {
				f.fileProblem(e.line, name, "found a list with %s in it; %s", settings.KindOf(item), want)
				return nil
			}
		}
	default:
		f.fileProblem(e.line, name, "found %s; %s", settings.KindOf(e.data), want)
		return nil
	}
	if n == 0 && name == "listener" {
		f.fileProblem(e.line, name, "found an empty list; leave it out for the default, or %s", want)
		return nil
	}
	var tables []map[string]toml.Primitive
	if err := f.md.PrimitiveDecode(e.raw, &tables); err != nil {
		f.fileProblem(e.line, name, "%s", want)
		return nil
	}
	return tables
}

// assign sets the settings of one table.
func (f *tomlFile) assign(table string, values map[string]toml.Primitive) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		path := key
		if table != "" {
			path = table + "." + key
		}
		s := f.find(path)
		if s == nil || strings.Contains(key, ".") { // "api.url" in quotes is one key to TOML
			if f.unknown++; f.unknown <= maxUnknown {
				e := f.entry(table, key, values[key])
				f.fileProblem(e.line, e.path, "%s", f.suggest(table, e))
			}
			continue
		}
		e := f.entry(table, key, values[key])
		if _, seen := f.lines[s.Path]; seen {
			f.fileProblem(e.line, e.path, "%s", twice)
			continue
		}
		f.lines[s.Path] = e.line
		err := s.Value.Set(e.data)
		if errors.Is(err, errInFile) {
			err = errors.New(f.source(s).notHere())
		}
		if err != nil {
			f.bad[s.Path] = true
			f.fileProblem(e.line, s.Path, "%v", err)
			continue
		}
		s.origin = "file"
	}
}
