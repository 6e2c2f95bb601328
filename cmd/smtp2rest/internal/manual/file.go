package manual

import "fmt"

// Table is one table of the configuration file.
type Table struct {
	Name     string // "" for what is above the first table
	Repeated bool
	About    string
	Settings []Setting
}

// Setting is one line of it.
type Setting struct{ Path, About, Default, Example, Env string }

// File is the page of the configuration file, smtp2rest.toml(5).
func File(version string, tables []Table) string {
	p := newPage("smtp2rest.toml", "5", version)
	p.section("NAME")
	p.line("smtp2rest.toml - settings of smtp2rest")
	p.section("DESCRIPTION")
	p.prose(`The file given to 'smtp2rest serve --config' and the commands beside it, in TOML. It
may be missing: the environment is enough for a start. Times are written 500ms, 10s,
5m, 1h, 2d; sizes 512KiB, 25MiB, 1GiB. A relative path starts at the directory of the
file. 'smtp2rest check' says what is wrong with it, and what is in force.`)
	for _, t := range tables {
		switch {
		case t.Name == "":
			p.section("AT THE TOP")
		case t.Repeated:
			p.section("[[" + t.Name + "]]")
		default:
			p.section("[" + t.Name + "]")
		}
		if t.About != "" {
			p.prose(t.About)
		}
		for _, s := range t.Settings {
			p.item(s.Path, s.About+s.details())
		}
	}
	p.section("SEE ALSO")
	p.line("smtp2rest(1), smtp2rest-serve(1), smtp2rest-check(1)")
	return p.String()
}

func (s Setting) details() string {
	text := ""
	for _, d := range []struct{ what, value string }{
		{"Default", s.Default}, {"Example", s.Example}, {"Environment", s.Env},
	} {
		if d.value != "" {
			text += fmt.Sprintf(" %s: %s.", d.what, d.value)
		}
	}
	return text
}
