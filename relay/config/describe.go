package config

import (
	"slices"
	"strings"
)

// Describe lists every setting as it is in force, in the order of the file.
func (c *Config) Describe() []Setting {
	list := make([]Setting, 0, len(c.settings))
	for _, s := range c.settings {
		list = append(list, s.describe())
	}
	order := sections()
	place := func(path string) int {
		table, _ := splitPath(path)
		table, _, _ = strings.Cut(table, "#")
		return slices.IndexFunc(order, func(s section) bool { return s.name == table })
	}
	slices.SortStableFunc(list, func(a, b Setting) int { return place(a.Path) - place(b.Path) })
	return list
}

func (s setting) describe() Setting {
	d := s.document()
	d.Origin, d.Value = s.origin, s.value.text()
	if v, ok := s.value.(secretValue); ok {
		d.Value = "not set"
		if v.p.IsSet() {
			d.Value = "set (from " + s.origin + ")"
		}
	}
	return d
}

// document is what there is to say of the setting whatever its value.
func (s setting) document() Setting {
	return Setting{
		Path:    s.path,
		Doc:     oneLine(s.doc),
		Default: s.defaultText(),
		Example: s.example,
		Env:     s.env,
		Secret:  s.secret(),
		Restart: needRestart()[s.path],
	}
}

func oneLine(doc string) string { return strings.ReplaceAll(doc, "\n", " ") }

// defaultText is the default as TOML writes it, or in words.
func (s setting) defaultText() string {
	switch def := s.def.(type) {
	case nil:
		return s.defWord
	case string:
		return quote(def)
	case []any:
		list := make([]string, len(def))
		for i, item := range def {
			list[i], _ = item.(string)
		}
		return quoteList(list)
	case map[string]any:
		return "{}"
	default:
		return show(def)
	}
}
