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

// WithoutRestart compares the configuration with the one that is to follow it.
// What a running daemon cannot change is in the error, an Errors.
func (c *Config) WithoutRestart(next *Config) ([]Change, error) {
	changes := c.changes(next)
	var problems Errors
	for _, change := range changes {
		if why := c.restart(change.Path); why != "" {
			problems = append(problems, Problem{Path: change.Path, Text: fmt.Sprintf(
				"found %s where %s is in force, which takes a restart: %s; restart smtp2rest, or write %s again", change.New, change.Old, why, change.Old)})
		}
	}
	if problems != nil {
		return nil, problems
	}
	return changes, nil
}

// restart is why a change of a setting takes a restart; "" is that it does not.
func (c *Config) restart(path string) string {
	for _, s := range c.settings {
		if s.Path == path {
			return s.Tag.Get("restart")
		}
	}
	return ""
}

// changes are in the order of the file, the files behind it last.
func (c *Config) changes(next *Config) (list []Change) {
	before, after := c.facts(), next.facts()
	for _, name := range union(before.names, after.names) {
		was, wasThere := before.of[name]
		is, isThere := after.of[name]
		switch {
		case was.mark == is.mark,
			!wasThere && is.implied, // a table that comes or goes is told by what somebody wrote in it
			!isThere && was.implied:
			continue
		}
		if was.secret || is.secret {
			was.text, is.text = shownSecret(was), shownSecret(is)
		}
		list = append(list, Change{name, was.text, is.text})
	}
	for _, file := range union(slices.Sorted(maps.Keys(c.files)), slices.Sorted(maps.Keys(next.files))) {
		was, is := c.files[file], next.files[file]
		if was != "" && is != "" && was != is { // else a setting that names it has changed
			list = append(list, Change{"file " + file, "as it was", "other content"})
		}
	}
	return list
}

func shownSecret(f fact) string {
	if f.mark == "" {
		return "not set"
	}
	return "set, not shown"
}

// fact is a setting as two configurations are compared by.
type fact struct {
	mark   string // equal for equal values
	text   string
	secret bool

	implied bool // a default, and not what its table is known by
}

type facts struct {
	names []string // in order
	of    map[string]fact
}

// facts name the settings of repeated tables by what tells one table from
// another, so that a table that comes or goes does not shift the others.
func (c *Config) facts() facts {
	f := facts{of: map[string]fact{}}
	for _, s := range c.Describe() {
		name, value := c.nameOf(s.Path), s.Value
		one := fact{mark: value, text: value, secret: s.Secret, implied: s.Origin == "default" && !identifies(s.Path)}
		if secret, ok := c.hidden(s.Path); ok {
			one.secret, one.mark = true, ""
			if secret != "" {
				one.mark = digest([]byte(secret))
			}
		}
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

// hidden is the value of a setting that Describe does not show.
func (c *Config) hidden(path string) (string, bool) {
	for _, s := range c.settings {
		if s.Path != path {
			continue
		}
		switch v := s.Value.(type) {
		case secret:
			return v.p.Reveal(), true
		case hash:
			return *v.p, true
		}
	}
	return "", false
}

// nameOf is a setting's path with the name of its table in place of a number.
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
	case "warming":
		return kind + " " + settings.Quote(c.Warming[i].Domain) + "." + name
	}
	return path
}

// numbered names a listener. Several may have the address of a free port.
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

// union is both lists without what is there twice, in their order.
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
