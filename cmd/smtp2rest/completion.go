package main

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/completion"
)

func completionCommand() *command {
	return &command{
		name:     "completion",
		args:     "SHELL",
		summary:  "Print a script that lets a shell complete command lines.",
		about:    "Prints the script for " + strings.Join(completion.Shells(), ", ") + ".",
		examples: []string{"source <(smtp2rest completion bash)", "smtp2rest completion fish > ~/.config/fish/completions/smtp2rest.fish"},
		noJSON:   "what is printed is read by a shell",
		setup: func(*flag.FlagSet) action {
			return func(_ context.Context, t *terminal, args []string) error {
				if len(args) != 1 {
					return usagef("name one shell: %s", strings.Join(completion.Shells(), ", "))
				}
				script := completion.Script(args[0], completed(commands()))
				if script == "" {
					return usagef("there is no script for %q: %s are known", args[0], strings.Join(completion.Shells(), ", "))
				}
				_, err := fmt.Fprint(t.out, script)
				return err
			}
		},
	}
}

func completed(list []*command) []completion.Command {
	var all []completion.Command
	for _, c := range list {
		_, name, isVerb := strings.Cut(c.name, " ")
		if !isVerb {
			name = c.name
		}
		d := completion.Command{
			Name: name, Summary: c.summary, Verbs: completed(c.verbs),
			Files: strings.Contains(strings.ToLower(c.args), ".eml"),
		}
		fs := c.flagSet()
		c.setup(fs)
		fs.VisitAll(func(f *flag.Flag) { d.Flags = append(d.Flags, "--"+f.Name) })
		all = append(all, d)
	}
	return all
}
