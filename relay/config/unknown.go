package config

import (
	"fmt"
	"slices"
	"strings"
)

// tableNames are the tables of the file that are not repeated.
func tableNames() []string {
	var names []string
	for _, s := range sections() {
		if s.name != "" && s.name != "listener" {
			names = append(names, s.name)
		}
	}
	return names
}

// elsewhere are names that other programs have for settings of ours.
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

// unknown says of a key that is no setting what it was probably meant to be.
// The value is never shown: it may be a secret under a wrong name.
func (l *loader) unknown(table string, e entry) string {
	key := strings.ToLower(e.key)
	if _, isTable := e.data.(map[string]any); isTable {
		return unknownTable(key)
	}
	switch key {
	case "key", "api_key", "apikey", "token", "api_token", "nexuspromail_api_key":
		return apiKey().notHere()
	case "secret", "webhook_secret":
		return webhookSecret().notHere()
	}
	var here, all []string
	for _, s := range l.settings {
		if s.secret() {
			continue
		}
		in, name := splitPath(s.path)
		if in == table {
			here = append(here, name)
		} else if strings.EqualFold(name, key) {
			all = append(all, bracket(in))
		}
		if s.env != "" && strings.EqualFold(s.env, key) {
			return fmt.Sprintf("is a variable of the environment; in the file it is %s in [%s]", name, in)
		}
	}
	if len(all) > 0 && all[0] != "" {
		return fmt.Sprintf("unknown setting; %s belongs in %s", key, all[0])
	}
	if len(all) > 0 {
		return fmt.Sprintf("unknown setting; %s belongs above the first table", key)
	}
	if place := elsewhere(key); place != "" {
		return "unknown setting; it is called " + place
	}
	if near := Nearest(key, here); near != "" {
		return fmt.Sprintf("unknown setting; did you mean %s?", near)
	}
	if table == "" {
		if near := Nearest(key, tableNames()); near != "" {
			return fmt.Sprintf("unknown setting; did you mean the table [%s]?", near)
		}
		return "unknown setting; above the first table there is " + strings.Join(here, ", ")
	}
	in, _ := splitPath(table + ".")
	return fmt.Sprintf("unknown setting; in %s there are %s", bracket(in), strings.Join(here, ", "))
}

func unknownTable(key string) string {
	names := append(tableNames(), "listener")
	slices.Sort(names)
	if near := Nearest(key, names); near != "" {
		return fmt.Sprintf("unknown table; did you mean %s?", bracket(near))
	}
	for i, name := range names {
		names[i] = bracket(name)
	}
	return "unknown table; there are " + strings.Join(names, ", ")
}

// splitPath is a setting's table and its name.
func splitPath(path string) (table, name string) {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// bracket writes a table's name as its header in the file.
func bracket(table string) string {
	switch {
	case table == "":
		return ""
	case strings.HasPrefix(table, "listener"):
		return "[[listener]]"
	default:
		return "[" + table + "]"
	}
}
