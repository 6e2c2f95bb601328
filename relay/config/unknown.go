package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/internal/settings"
)

// tableNames are the names of tables that are not repeated.
func tableNames() []string { return tablesThat(false) }

// repeatedTables are the names of repeated tables.
func repeatedTables() []string { return tablesThat(true) }

func tablesThat(repeat bool) []string {
	var names []string
	for _, t := range settings.Tables(&Config{}) {
		if t.Name != "" && t.Repeated == repeat {
			names = append(names, t.Name)
		}
	}
	return names
}

// isRepeated reports whether a table, such as "listener" or "listener#2", can be
// repeated.
func isRepeated(table string) bool {
	name, _, _ := strings.Cut(table, "#")
	return slices.Contains(repeatedTables(), name)
}

// elsewhere returns our name for a setting by the name that other programs give it.
func elsewhere(key string) string {
	switch key {
	case "listen", "listen_addr", "bind", "port", "host":
		return "address in [[listener]]"
	case "allow", "allowed_networks", "mynetworks", "trusted_networks":
		return "networks in [[listener]]"
	case "max_message_size", "max_size":
		return "message_size in [limits]"
	case "max_recipients":
		return "recipients in [limits]"
	case "max_connections":
		return "connections in [limits]"
	case "loglevel", "log_level", "verbose":
		return "level in [log]"
	case "from", "from_email":
		return "email in [sender]"
	case "from_name":
		return "name in [sender]"
	case "base_url", "endpoint", "api_url":
		return "url in [api]"
	default:
		return ""
	}
}

// suggest says which setting an unknown key was probably meant to be. It never shows
// the value, which may be a secret under a wrong name.
func (l *loader) suggest(table string, e entry) string {
	key := strings.ToLower(e.key)
	if _, isTable := e.data.(map[string]any); isTable {
		return unknownTable(key)
	}
	switch key {
	case "key", "api_key", "apikey", "token", "api_token", l.vendor.Credential():
		return l.secretAt("api.key").notHere()
	case "secret", "webhook_secret":
		return l.secretAt("webhook.secret").notHere()
	}
	if name, _, _ := strings.Cut(table, "#"); name == "user" && strings.HasPrefix(key, "pass") {
		return "passwords are not kept in this file; write password_hash, which 'smtp2rest hash-password' makes"
	}
	var here, there []string
	for _, s := range l.settings {
		if s.secret() {
			continue
		}
		in, name := splitPath(s.Path)
		if in == table {
			here = append(here, name)
		} else if strings.EqualFold(name, key) {
			there = append(there, inTable(in))
		}
		if env := s.Tag.Get("env"); env != "" && strings.EqualFold(env, key) {
			return fmt.Sprintf("is a variable of the environment; in the file it is %s %s", name, inTable(in))
		}
	}
	if len(there) > 0 {
		return fmt.Sprintf("unknown setting; %s belongs %s", key, there[0])
	}
	if place := elsewhere(key); place != "" {
		return "unknown setting; here that is " + place
	}
	if near := settings.Nearest(key, here); near != "" {
		return fmt.Sprintf("unknown setting; did you mean %s?", near)
	}
	if table == "" {
		if near := settings.Nearest(key, tableNames()); near != "" {
			return fmt.Sprintf("unknown setting; did you mean the table [%s]?", near)
		}
	}
	return fmt.Sprintf("unknown setting; %s there is %s", inTable(table), strings.Join(here, ", "))
}

func unknownTable(key string) string {
	names := append(tableNames(), repeatedTables()...)
	slices.Sort(names)
	if near := settings.Nearest(key, names); near != "" {
		return fmt.Sprintf("unknown table; did you mean %s?", bracket(near))
	}
	for i, name := range names {
		names[i] = bracket(name)
	}
	return "unknown table; there are " + strings.Join(names, ", ")
}

// splitPath returns the table and the name of a setting.
func splitPath(path string) (table, name string) {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// inTable says where in the file the settings of a table are.
func inTable(table string) string {
	if table == "" {
		return "above the first table"
	}
	return "in " + bracket(table)
}

// bracket returns the header of a table in the file.
func bracket(table string) string {
	if isRepeated(table) {
		name, _, _ := strings.Cut(table, "#")
		return "[[" + name + "]]"
	}
	return "[" + table + "]"
}
