// Package settings reads what the fields of a struct say of the settings they
// hold, so that the name, the default, the range and the explanation of a setting
// stand at its field and nowhere else:
//
//	Recipients int `toml:"recipients" default:"100" range:"1..10000" doc:"The most recipients of one mail."`
//
// Every package of smtp2rest tags its own settings. relay/config puts them together
// into the file's tables; tests take a package's defaults with Defaults. The
// package imports nothing of ours.
//
// The tags are:
//
//	toml      the setting's name in the file, or a table's
//	default   as in the file, without quotes; the items of a list are set apart
//	          by spaces. Without it the default is the zero value.
//	usual     the default in words, where it is worked out from something else
//	range     the least and the most that are allowed
//	words     the words that are allowed
//	check     the name of a check of relay/config
//	doc       the explanation, in one or two sentences
//	example   as in the file, where the default shows too little. A setting with an
//	          example and no default has to be set.
//	env       the variable of the environment that comes before the file
//	restart   why a change takes a restart; without it a reload changes the setting
package settings

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Value is where a setting is kept.
type Value interface {
	// Set takes what TOML gave: string, int64, float64, bool, time.Time, []any
	// or map[string]any. The error says what was found and what to write.
	Set(v any) error
	// Text is the value as TOML writes it.
	Text() string
}

// Setting is one setting of a struct.
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

// Kinds makes the Value of a field with a type of its own, or with a check. It
// returns nil for the types that this package knows.
type Kinds func(field any, tag reflect.StructTag) Value

// Declare gives every setting of a struct its default and returns them in the
// order of the fields. A struct in it without a name has its settings beside the
// others; one with a name is a table, and a list of such is a table that is
// repeated as often as the list is long. The error is of tags that are wrong.
func Declare(ptr any, kinds Kinds) ([]Setting, error) {
	w := walk{kinds: kinds}
	w.fields(reflect.ValueOf(ptr).Elem(), "")
	return w.list, errors.Join(w.errs...)
}

type walk struct {
	kinds Kinds
	list  []Setting
	errs  []error
}

func (w *walk) fields(v reflect.Value, table string) {
	for i := range v.NumField() {
		field, tag := v.Field(i), v.Type().Field(i).Tag
		if !v.Type().Field(i).IsExported() {
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
		case named && field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct:
			for n := range field.Len() {
				w.fields(field.Index(n), Numbered(name, n, field.Len()))
			}
		case named:
			w.errs = append(w.errs, fmt.Errorf("%s: nothing reads a setting of type %s", join(table, name), field.Type()))
		}
	}
}

// setting takes a field that is a setting; it is false for another.
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

// fromTag is a default as TOML would give it.
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

// Defaults is a struct with the defaults that its tags name. Whether they are good
// is for relay/config to say, which reads them all.
func Defaults[T any]() T {
	var t T
	_, _ = Declare(&t, nil)
	return t
}

// Tables are the tables of a struct, in the order of its fields. The nameless
// one, whose settings stand above the first table, comes first.
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

// Numbered is how the settings of the i-th of n tables are called.
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
