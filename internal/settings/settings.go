// Package settings reads settings from the tags of struct fields. The name, the
// default, the range and the explanation of a setting are in its tag, and nowhere
// else:
//
//	Recipients int `toml:"recipients" default:"100" range:"1..10000" doc:"The most recipients of one mail."`
//
// Every package of smtp2rest declares its own settings in this way. relay/config
// embeds them in the tables of the file. Tests get the defaults of a package from
// Defaults.
//
// The tags are:
//
//	toml        the name of the setting or of the table in the file
//	default     the default as in the file, but without quotes, and with spaces
//	            between the items of a list; if missing, the zero value
//	usual       the default in words, if it is worked out from something else
//	range       the least and the greatest value
//	words       the allowed words
//	check       the name of a check in relay/config
//	doc         the explanation, in one or two sentences
//	example     a value as in the file, if the default is not a good example; a
//	            setting with an example and without a default must be set
//	env         the environment variable that takes precedence over the file
//	credential  the names of the systemd credential of a secret
//	restart     why a change takes a restart; if missing, a reload changes the setting
package settings

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Value reads and writes the value of a setting.
type Value interface {
	// Set sets the value to one that TOML gave: string, int64, float64, bool,
	// time.Time, []any or map[string]any. The error says what was found and what to
	// write instead.
	Set(v any) error
	// Text returns the value as TOML writes it.
	Text() string
}

// Setting is a setting of a struct.
type Setting struct {
	Path    string // "api.timeout"; "listener#2.address" when there are several
	Default string // as TOML writes it, or in words; "" is none
	Tag     reflect.StructTag
	Value   Value
}

// Table is one table of the file.
type Table struct {
	Name, Doc string // the name is "" for the settings above the first table
	Repeated  bool   // [[name]], none or several of them
}

// Kinds returns the Value of a field whose type or check this package does not know,
// or nil. The field is a pointer.
type Kinds func(field any, tag reflect.StructTag) Value

// Declare sets every setting of a struct to its default, and returns the settings in
// the order of the fields. A struct with a name is a table. A slice of structs with a
// name is a repeated table. The settings of a struct without a name, and those of a
// pointer to a struct in an interface, belong to the table around it. tags, if not nil,
// fills in what is not known before, such as the name of a vendor. Declare fails if tags
// are wrong.
func Declare(ptr any, kinds Kinds, tags *strings.Replacer) ([]Setting, error) {
	w := walk{kinds: kinds, tags: tags}
	w.fields(reflect.ValueOf(ptr).Elem(), "")
	return w.list, errors.Join(w.errs...)
}

type walk struct {
	kinds Kinds
	tags  *strings.Replacer
	list  []Setting
	errs  []error
}

func (w *walk) fields(v reflect.Value, table string) {
	for i := range v.NumField() {
		field, declared := v.Field(i), v.Type().Field(i)
		tag := declared.Tag
		if w.tags != nil {
			tag = reflect.StructTag(w.tags.Replace(string(tag)))
		}
		if !declared.IsExported() {
			if declared.Anonymous && field.Kind() == reflect.Struct { // its own fields may be exported
				w.fields(field, table)
			}
			continue
		}
		name, named := tag.Lookup("toml")
		_, hasDefault := tag.Lookup("default")
		if (named || hasDefault) && w.setting(join(table, name), field, tag) {
			continue
		}
		switch {
		case field.Kind() == reflect.Struct:
			w.fields(field, join(table, name))
		case field.Kind() == reflect.Interface:
			if own := field.Elem(); own.Kind() == reflect.Pointer && own.Elem().Kind() == reflect.Struct {
				w.fields(own.Elem(), table)
			}
		case named && field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct:
			for n := range field.Len() {
				w.fields(field.Index(n), Numbered(name, n, field.Len()))
			}
		case named:
			w.errs = append(w.errs, fmt.Errorf("%s: nothing reads a setting of type %s", join(table, name), field.Type()))
		}
	}
}

// setting adds a field if it is a setting, and reports whether it is.
func (w *walk) setting(path string, field reflect.Value, tag reflect.StructTag) bool {
	s := Setting{Path: path, Tag: tag}
	if w.kinds != nil {
		s.Value = w.kinds(field.Addr().Interface(), tag)
	}
	var err error
	if s.Value == nil {
		s.Value, err = builtIn(field, tag)
	}
	if s.Value == nil {
		return false
	}
	if err = errors.Join(err, s.setDefault(field.Kind())); err != nil {
		w.errs = append(w.errs, fmt.Errorf("%s: %w", path, err))
	}
	if tag.Get("toml") != "" {
		w.list = append(w.list, s)
	}
	return true
}

func (s *Setting) setDefault(kind reflect.Kind) error {
	usual, worked := s.Tag.Lookup("usual")
	text, given := s.Tag.Lookup("default")
	var err error
	if text != "" {
		err = s.Value.Set(fromTag(text, kind))
	}
	switch {
	case worked:
		s.Default = usual
	case given || s.Tag.Get("example") == "":
		s.Default = s.Value.Text()
	}
	return err
}

// fromTag returns a default as TOML would give it.
func fromTag(text string, kind reflect.Kind) any {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && kind == reflect.Int {
		return n
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && kind == reflect.Float64 {
		return f
	}
	switch kind {
	case reflect.Bool:
		return text == "true"
	case reflect.Slice:
		var items []any
		for _, item := range strings.Fields(text) {
			items = append(items, item)
		}
		return items
	}
	return text
}

// Defaults returns a struct with the defaults in its tags. It ignores wrong tags,
// because relay/config reports those of all packages.
func Defaults[T any]() T {
	var t T
	_, _ = Declare(&t, nil, nil)
	return t
}

// Tables returns the tables of a struct in the order of its fields. The first one has
// no name: its settings are above the first table of the file.
func Tables(ptr any) []Table {
	list := []Table{{}}
	t := reflect.TypeOf(ptr).Elem()
	for i := range t.NumField() {
		field := t.Field(i)
		name, named := field.Tag.Lookup("toml")
		repeated := field.Type.Kind() == reflect.Slice
		if table := named && (field.Type.Kind() == reflect.Struct || repeated && field.Tag.Get("doc") != "" && isTable(field.Type.Elem())); table {
			list = append(list, Table{Name: name, Doc: field.Tag.Get("doc"), Repeated: repeated})
		}
	}
	return list
}

// isTable reports whether a struct has settings in it.
func isTable(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	for i := range t.NumField() {
		if _, named := t.Field(i).Tag.Lookup("toml"); named || isTable(t.Field(i).Type) {
			return true
		}
	}
	return false
}

// Numbered returns the name of the i-th of n tables, such as "listener#2".
func Numbered(name string, i, n int) string {
	if n == 1 {
		return name
	}
	return fmt.Sprintf("%s#%d", name, i+1)
}

func join(table, name string) string {
	switch {
	case table == "":
		return name
	case name == "":
		return table
	}
	return table + "." + name
}
