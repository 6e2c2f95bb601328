package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/internal/settings"
)

// Change is one difference between two configurations.
type Change struct {
	Path     string // "api.rate"; `listener "127.0.0.1:2525".tls` of what is repeated; "file /etc/aliases"
	Old, New string // as TOML writes them; of secrets and files only that they changed; "" is not there
}

// WithoutRestart compares the configuration with the one that is to follow it. The
// error is an Errors. It names the changes that take a restart.
func (c *Config) WithoutRestart(next *Config) ([]Change, error) {
	var changes []Change
	var problems Errors
	before, after := c.facts(), next.facts()
	for _, name := range union(before.names, after.names) {
		was, wasThere := before.of[name]
		is, isThere := after.of[name]
		if was.value == is.value || !wasThere && is.implied || !isThere && was.implied {
			continue // of a table that comes or goes, only what somebody wrote in it is a change
		}
		change := Change{name, was.shown, is.shown}
		if was.hidden || is.hidden {
			change.Old, change.New = was.hiddenText(), is.hiddenText()
		}
		changes = append(changes, change)
		switch {
		case was.restart != "" && isThere:
			problems = append(problems, Problem{Path: name, Text: fmt.Sprintf(
				"found %s where %s is in force, which takes a restart: %s; restart smtp2rest, or write %s again", change.New, change.Old, was.restart, change.Old)})
		case was.restart != "":
			problems = append(problems, Problem{Path: name, Text: "is gone, which takes a restart: " + was.restart + "; restart smtp2rest, or write it again"})
		case is.restart != "":
			problems = append(problems, Problem{Path: name, Text: "is new, which takes a restart: " + is.restart + "; restart smtp2rest, or leave it out"})
		}
	}
	if problems != nil {
		return nil, problems
	}
	for _, file := range union(slices.Sorted(maps.Keys(c.files)), slices.Sorted(maps.Keys(next.files))) {
		was, is := c.files[file], next.files[file]
		if was != "" && is != "" && was != is { // otherwise the setting that names the file has changed
			changes = append(changes, Change{"file " + file, "as it was", "other content"})
		}
	}
	return changes, nil
}

// fact is a setting as two configurations are compared.
type fact struct {
	value   string // equal for equal values
	shown   string
	hidden  bool   // a secret or a password's hash, which is not shown
	implied bool   // a default, and not what identifies its table
	restart string // why a change takes a restart
}

func (f fact) hiddenText() string {
	if f.value == "" {
		return "not set"
	}
	return "set, not shown"
}

type facts struct {
	names []string // in the order of the file
	of    map[string]fact
}

// facts are named by what identifies a repeated table instead of its number, so
// that a table that comes or goes does not shift the others.
func (c *Config) facts() facts {
	f := facts{of: map[string]fact{}}
	for _, s := range c.settings {
		one := fact{shown: s.Value.Text(), restart: s.Tag.Get("restart"), implied: s.origin == "default" && !identifies(s.Path)}
		one.value = one.shown
		switch v := s.Value.(type) {
		case secret:
			one.value, one.hidden = v.p.Reveal(), true
		case hash:
			one.value, one.hidden = *v.p, true
		case hookURL:
			one.value = *v.p // what differs may be what is not shown
		}
		name := c.nameOf(s.Path)
		f.names = append(f.names, name)
		f.of[name] = one
	}
	return f
}

// identifies reports whether a setting tells one repeated table from another: the
// address of a listener, the name of a user, the domain of a warming.
func identifies(path string) bool {
	_, name := splitPath(path)
	return name == "address" || name == "name" || name == "domain"
}

// nameOf returns a setting's path, with what identifies a repeated table instead of
// its number.
func (c *Config) nameOf(path string) string {
	table, name := splitPath(path)
	kind, number, _ := strings.Cut(table, "#")
	i := 0
	if number != "" {
		_, _ = fmt.Sscan(number, &i) // ours: it is a number
		i--
	}
	switch kind {
	case "listener":
		return kind + " " + c.numbered(i) + "." + name
	case "user":
		return kind + " " + settings.Quote(c.Users[i].Name) + "." + name
	case "operator":
		return kind + " " + settings.Quote(c.Operators[i].Name) + "." + name
	case "account":
		return kind + " " + settings.Quote(c.Accounts[i].Name) + "." + name
	case "forward":
		return kind + " " + settings.Quote(c.Forwards[i].Name) + "." + name
	case "warming":
		of := ""
		if account := c.Warming[i].Account; account != "" {
			of = " of " + settings.Quote(account)
		}
		return kind + " " + settings.Quote(c.Warming[i].Domain) + of + "." + name
	}
	return path
}

// numbered identifies a listener by its address. Several listeners may have the
// same one, if its port is 0.
func (c *Config) numbered(i int) string {
	address, n := c.Listeners[i].Address, 1
	for _, earlier := range c.Listeners[:i] {
		if earlier.Address == address {
			n++
		}
	}
	if n == 1 {
		return settings.Quote(address)
	}
	return fmt.Sprintf("%s (%d)", settings.Quote(address), n)
}

// union returns both lists in their order, without duplicates.
func union(a, b []string) []string {
	seen := map[string]bool{}
	var all []string
	for _, name := range append(slices.Clone(a), b...) {
		if !seen[name] {
			seen[name] = true
			all = append(all, name)
		}
	}
	return all
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
