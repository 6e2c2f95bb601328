// Package completion writes the scripts by which shells complete the
// program's command lines. It is pure; package main hands in what there is to
// complete.
package completion

import (
	"fmt"
	"sort"
	"strings"
)

// Command is a command, or a verb of one, with what may follow it.
type Command struct {
	Name    string
	Summary string
	Flags   []string // with their dashes
	Verbs   []Command
	Files   bool // what follows are files
}

// Shells are the shells there is a script for.
func Shells() []string { return []string{"bash", "zsh", "fish"} }

// Script is the script for a shell, "" for one that is not in Shells.
func Script(shell string, commands []Command) string {
	switch shell {
	case "bash":
		return bash(commands)
	case "zsh":
		// zsh runs bash's completions; a second script would say the same.
		return "#compdef smtp2rest\nautoload -U +X bashcompinit && bashcompinit\n" + bash(commands)
	case "fish":
		return fish(commands)
	}
	return ""
}

// bash tells by the words before the cursor which list to offer.
func bash(commands []Command) string {
	var b strings.Builder
	b.WriteString(`# bash completion of smtp2rest
_smtp2rest() {
  local cur=${COMP_WORDS[COMP_CWORD]} before="${COMP_WORDS[1]}" words= files=
  [ "$COMP_CWORD" -gt 2 ] && case ${COMP_WORDS[2]} in -*) ;; *) before="$before ${COMP_WORDS[2]}" ;; esac
  [ "$COMP_CWORD" -eq 1 ] && before=
  case $before in
`)
	fmt.Fprintf(&b, "    '') words='help %s' ;;\n", strings.Join(names(commands), " "))
	fmt.Fprintf(&b, "    help*) words='%s' ;;\n", strings.Join(names(commands), " "))
	for _, c := range commands {
		for _, v := range c.Verbs {
			b.WriteString(bashCase(c.Name+" "+v.Name, v, nil))
		}
		b.WriteString(bashCase(c.Name, c, names(c.Verbs)))
	}
	b.WriteString(`  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  case $cur in -*) ;; *) [ -n "$files" ] && COMPREPLY+=($(compgen -f -- "$cur")) ;; esac
  case ${COMP_WORDS[COMP_CWORD-1]} in --config|--data-dir|--socket|--dir) COMPREPLY=($(compgen -f -- "$cur")) ;; esac
}
complete -o filenames -F _smtp2rest smtp2rest
`)
	return b.String()
}

func bashCase(pattern string, c Command, verbs []string) string {
	line := fmt.Sprintf("    '%s'", pattern)
	if len(verbs) == 0 && !strings.Contains(pattern, " ") {
		line += fmt.Sprintf("|'%s '*", pattern)
	}
	line += fmt.Sprintf(") words='%s'", strings.Join(append(verbs, sorted(c.Flags)...), " "))
	if c.Files {
		line += " files=1"
	}
	return line + " ;;\n"
}

func fish(commands []Command) string {
	var b strings.Builder
	b.WriteString("# fish completion of smtp2rest\ncomplete -c smtp2rest -f\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "complete -c smtp2rest -n __fish_use_subcommand -a %s -d '%s'\n", c.Name, fishQuoted(c.Summary))
	}
	for _, c := range commands {
		at := fmt.Sprintf("__fish_seen_subcommand_from %s", c.Name)
		b.WriteString(fishFlags(at, c))
		for _, v := range c.Verbs {
			fmt.Fprintf(&b, "complete -c smtp2rest -n '%s' -a %s -d '%s'\n", at, v.Name, fishQuoted(v.Summary))
			b.WriteString(fishFlags(at+"; and __fish_seen_subcommand_from "+v.Name, v))
		}
	}
	return b.String()
}

func fishFlags(at string, c Command) string {
	var b strings.Builder
	for _, f := range sorted(c.Flags) {
		fmt.Fprintf(&b, "complete -c smtp2rest -n '%s' -l %s\n", at, strings.TrimLeft(f, "-"))
	}
	if c.Files {
		fmt.Fprintf(&b, "complete -c smtp2rest -n '%s' -F\n", at)
	}
	return b.String()
}

func fishQuoted(s string) string { return strings.ReplaceAll(s, "'", `\'`) }

func names(commands []Command) []string {
	var list []string
	for _, c := range commands {
		list = append(list, c.Name)
	}
	return list
}

func sorted(list []string) []string {
	list = append([]string(nil), list...)
	sort.Strings(list)
	return list
}
