package main

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

const overview = `smtp2rest takes mail over SMTP and sends it through the NexusProMail REST API.

Usage: smtp2rest COMMAND [flags]

Commands:
`

func printOverview(w io.Writer) {
	fmt.Fprint(w, overview)
	width := longest(names())
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-*s  %s\n", width, c.name, c.summary)
	}
	fmt.Fprint(w, "\n'smtp2rest help COMMAND' tells more of one. New here? 'smtp2rest demo' shows it all at work.\n")
}

// longest is the width of a column of words.
func longest(words []string) int {
	width := 0
	for _, w := range words {
		width = max(width, len(w))
	}
	return width
}

func help(t *terminal, args []string) int {
	if len(args) == 0 || args[0] == "help" {
		printOverview(t.out)
		return exitOK
	}
	c := find(args[0])
	if c == nil {
		fmt.Fprintf(t.err, "smtp2rest help: there is no command %q%s\n", args[0], noSuch(args[0], names()))
		return exitUsage
	}
	if len(args) > 1 && len(c.verbs) > 0 {
		verb := c.verb(args[1])
		if verb == nil {
			fmt.Fprintf(t.err, "smtp2rest help: %s has no verb %q%s\n", c.name, args[1], noSuch(args[1], c.verbNames()))
			return exitUsage
		}
		c = verb
	}
	printHelp(t.out, c)
	return exitOK
}

// printHelp writes all there is to say of a command.
func printHelp(w io.Writer, c *command) {
	fs := c.flagSet()
	c.setup(fs)
	usage := "smtp2rest " + c.name
	if len(c.verbs) > 0 {
		usage += " [VERB]"
	}
	if hasFlags(fs) {
		usage += " [flags]"
	}
	if c.args != "" {
		usage += " " + c.args
	}
	fmt.Fprintf(w, "%s\n\nUsage: %s\n\n%s\n", c.summary, usage, strings.TrimSpace(c.about))
	if c.noJSON != "" {
		fmt.Fprintf(w, "\nThere is no --json: %s.\n", c.noJSON)
	}
	if len(c.verbs) > 0 {
		fmt.Fprint(w, "\nVerbs:\n")
		width := longest(c.verbNames())
		for i, name := range c.verbNames() {
			fmt.Fprintf(w, "  %-*s  %s\n", width, name, c.verbs[i].summary)
		}
		fmt.Fprintf(w, "\n'smtp2rest help %s VERB' tells more of one.\n", c.name)
	}
	if hasFlags(fs) {
		fmt.Fprint(w, "\nFlags:\n")
		fs.VisitAll(func(f *flag.Flag) { printFlag(w, f) })
	}
	if len(c.examples) > 0 {
		fmt.Fprintf(w, "\nExamples:\n  %s\n", strings.Join(c.examples, "\n  "))
	}
}

func printFlag(w io.Writer, f *flag.Flag) {
	kind, about := flagText(f)
	fmt.Fprintf(w, "  %-24s %s\n", strings.TrimRight("--"+f.Name+" "+kind, " "), about)
}

// flagText is what a flag takes and what it is for.
func flagText(f *flag.Flag) (kind, about string) {
	kind, about = flag.UnquoteUsage(f)
	if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" {
		about += " (default " + f.DefValue + ")"
	}
	return kind, about
}

func hasFlags(fs *flag.FlagSet) bool {
	has := false
	fs.VisitAll(func(*flag.Flag) { has = true })
	return has
}
