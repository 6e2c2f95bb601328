package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/alias"
)

// Addresses is what becomes of addresses that are none yet.
type Addresses struct {
	QualifyDomain string // "" only when Sender.Email is
	AliasFile     string // in the form of /etc/aliases; "" is none
	Aliases       []alias.Entry
	Local         []string // further domains of which local names are meant
}

// Table is the aliases of the configuration and those that the file has, whose
// text is given. The error joins all that is wrong.
func (a Addresses) Table(file string) (*alias.Table, error) {
	entries, err := alias.Parse(file)
	if err != nil {
		return nil, err
	}
	return alias.New(alias.Options{Qualify: a.QualifyDomain, Local: a.Local}, append(slices.Clone(a.Aliases), entries...))
}

func addressSettings(a *Addresses) []setting {
	return []setting{
		{path: "qualify_domain", value: textValue{&a.QualifyDomain, checkQualify}, defWord: "the domain of sender.email", example: `"mail.example.com"`,
			doc: "The domain of addresses that come without one, such as root."},
		{path: "alias_file", value: textValue{&a.AliasFile, checkText}, def: "",
			doc: "A file in the form of /etc/aliases; it is read again when it changes. A relative\npath starts at the directory of this file."},
		{path: "aliases", value: aliasesValue{&a.Aliases}, def: map[string]any{},
			doc: "More aliases, also as a table [aliases]: root = [\"ops@example.com\"]. Names: a local\nname, an address, \"@domain\" for a whole domain, \"*\" for local names without one."},
	}
}

func checkQualify(s string) error {
	if s == "" {
		return nil
	}
	return checkDomain(s)
}

// deriveAddresses comes after the sender and the host name are known.
func (l *loader) deriveAddresses() {
	a, c := &l.cfg.Addresses, l.cfg
	if a.QualifyDomain == "" && c.Sender.Email != "" {
		a.QualifyDomain = domainOf(c.Sender.Email)
	}
	a.AliasFile = l.fromFile(a.AliasFile)
	a.Local = []string{"localhost", "localhost.localdomain", c.Hostname}
	if name, err := l.src.Hostname(); err == nil {
		a.Local = append(a.Local, name)
	}
}

// validateAliases reads the file as the daemon will.
func (l *loader) validateAliases() {
	a := &l.cfg.Addresses
	if l.bad["aliases"] || l.bad["alias_file"] {
		return
	}
	if _, err := a.Table(""); err != nil {
		l.problem("aliases", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	if a.AliasFile == "" {
		return
	}
	text, err := ReadAliases(a.AliasFile, l.src.ReadFile)
	if err == nil {
		_, err = a.Table(text)
	}
	if err != nil {
		l.problem("alias_file", "%s: %s", a.AliasFile, strings.ReplaceAll(cause(err).Error(), "\n", "; "))
	}
}

// ReadAliases reads a file of aliases of at most 1 MiB. A nil read is the
// operating system's.
func ReadAliases(path string, read func(string) ([]byte, error)) (string, error) {
	if read == nil {
		read = readBounded
	}
	data, err := read(path)
	if err == nil && len(data) > maxFile {
		err = errors.New("it is larger than 1 MiB")
	}
	if errors.Is(err, os.ErrNotExist) {
		return "", errors.New("there is no such file")
	}
	return string(data), err
}

type aliasesValue struct{ p *[]alias.Entry }

func (v aliasesValue) set(given any) error {
	const want = `write a table of lists, as in root = ["ops@example.com"]`
	table, ok := given.(map[string]any)
	if !ok {
		return wrongType(given, want)
	}
	var entries []alias.Entry
	for _, name := range slices.Sorted(maps.Keys(table)) {
		if one, ok := table[name].(string); ok {
			entries = append(entries, alias.Entry{Name: name, Targets: []string{one}})
			continue
		}
		targets, err := textList(table[name], want)
		if err != nil {
			return fmt.Errorf("%s: %w", show(name), err)
		}
		entries = append(entries, alias.Entry{Name: name, Targets: targets})
	}
	*v.p = entries
	return nil
}

func (v aliasesValue) text() string {
	list := make([]string, len(*v.p))
	for i, e := range *v.p {
		list[i] = quote(e.Name) + " = " + quoteList(e.Targets)
	}
	if len(list) == 0 {
		return "{}"
	}
	return "{ " + strings.Join(list, ", ") + " }"
}
