package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/vendors"
	"github.com/smtp2rest/smtp2rest/relay/warm"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// setting is a setting of a Config, with the origin of its value.
type setting struct {
	settings.Setting
	origin string // "default", "file" and so on; "" of a secret that is not set
}

// settingsOf puts the defaults into a Config and returns its settings, which depend on
// the vendor. It fails if tags are wrong.
func settingsOf(c *Config, v provider.Vendor, all []provider.Vendor) ([]setting, error) {
	c.API.Vendor, c.Mail.Fields = v, v.Settings()
	declared, err := settings.Declare(c, kinds, vendorTags(v, all))
	var list []setting
	for _, s := range declared {
		one := setting{Setting: s, origin: "default"}
		if one.secret() {
			one.origin = ""
		}
		list = append(list, one)
	}
	return list, err
}

// oneOfEach returns a Config with one table of each kind that can be repeated.
func oneOfEach() *Config {
	return &Config{
		Listeners: make([]smtpd.Listener, 1),
		Users:     make([]User, 1),
		Warming:   make([]warm.Plan, 1),
		Accounts:  make([]Account, 1),
		Operators: make([]Operator, 1),
		Forwards:  make([]Forward, 1),
	}
}

// everySetting returns all settings, with one table of each kind that can be repeated.
func everySetting() []setting {
	all := vendors.All()
	list, _ := settingsOf(oneOfEach(), all[0], all)
	return list
}

// Setting describes a setting to people.
type Setting struct {
	Path    string // "api.timeout"; "listener#2.address" when there are several
	Value   string // as in TOML; of a secret only whether it is set, and from where
	Origin  string // "default", "file", "environment NAME", "file of …", "credential NAME"
	Doc     string // one or two sentences
	Default string // as in TOML, or in words where it is worked out; "" is none
	Example string // as in TOML, where the default says too little
	Env     string // the variable of the environment that comes before the file, if any
	Secret  bool
	Restart string // why a change takes a restart; "" is that a reload changes it

	Providers []string // those that have the setting; none is all of them
	Others    []string // what is different with another provider than the first, as phrases
}

// Describe returns every setting with its value, in the order of the example file.
func (c *Config) Describe() []Setting {
	list := make([]Setting, len(c.settings))
	for i, s := range c.settings {
		list[i] = s.document()
		list[i].Origin, list[i].Value = s.origin, s.Value.Text()
		if v, ok := s.Value.(secret); ok {
			list[i].Value = "not set"
			if v.p.IsSet() {
				list[i].Value = "set (from " + s.origin + ")"
			}
		}
	}
	return list
}

// document describes a setting without its value.
func (s setting) document() Setting {
	d := Setting{
		Path: s.Path, Doc: s.Tag.Get("doc"), Default: s.Default, Example: s.Tag.Get("example"),
		Env: s.Tag.Get("env"), Secret: s.secret(), Restart: s.Tag.Get("restart"),
	}
	if d.Secret {
		d.Default = ""
	}
	return d
}

// Section is a table of the file with its settings.
type Section struct {
	settings.Table
	Settings []Setting
}

// Reference returns every setting without values, for documentation. Repeated tables
// are there once.
func Reference() []Section {
	return reference(vendors.All())
}

// reference merges the settings of all vendors.
func reference(all []provider.Vendor) []Section {
	list := settings.Tables(&Config{})
	sections := make([]Section, len(list))
	for i, t := range list {
		t.Doc = vendorTags(all[0], all).Replace(t.Doc)
		sections[i].Table = t
	}
	for _, v := range all {
		declared, _ := settingsOf(oneOfEach(), v, all)
		for _, s := range declared {
			table, _ := splitPath(s.Path)
			i := slices.IndexFunc(list, func(t settings.Table) bool { return t.Name == table })
			sections[i].add(v.Name, s.document())
		}
	}
	for _, section := range sections {
		for i, s := range section.Settings {
			if len(s.Providers) == len(all) {
				section.Settings[i].Providers = nil
			}
		}
	}
	return sections
}

// add adds a setting as it is with a vendor.
func (s *Section) add(vendor string, one Setting) {
	i := slices.IndexFunc(s.Settings, func(known Setting) bool { return known.Path == one.Path })
	if i < 0 {
		one.Providers = []string{vendor}
		s.Settings = append(s.Settings, one)
		return
	}
	known := &s.Settings[i]
	known.Providers = append(known.Providers, vendor)
	if one.Default != known.Default {
		known.Others = append(known.Others, fmt.Sprintf("default with %q: %s", vendor, one.Default))
	}
	if one.Env != known.Env {
		known.Others = append(known.Others, fmt.Sprintf("environment with %q: %s", vendor, one.Env))
	}
}

// Note says what depends on the provider, or "".
func (s Setting) Note() string {
	notes := s.Others
	if s.Providers != nil {
		notes = append([]string{"only with api.provider = " + strings.Join(s.Providers, ", ")}, notes...)
	}
	return strings.Join(notes, "; ")
}
