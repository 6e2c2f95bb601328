package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/sendmail"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/store/records"
	"github.com/smtp2rest/smtp2rest/relay/store/sqlite"
)

// Exit codes. The systemd unit relies on exitConfig: a wrong configuration
// does not mend itself, so it must not be restarted.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 78 // EX_CONFIG of sysexits(3)
)

// terminal is what a command talks to.
type terminal struct {
	name     string // of this program, as it was called
	in       io.Reader
	out, err io.Writer
	env      func(string) (string, bool)
	service  string // path of the service's configuration, there or not
	color    bool
	width    int  // columns of the screen that out is; 0 when it is none
	asks     bool // there is a person at in who can answer
}

// command is one subcommand. Its help is made from these fields alone.
type command struct {
	name     string
	args     string // what follows the flags, such as "mail.eml"
	summary  string // one line
	about    string // a paragraph or more
	examples []string
	// setup declares the flags and returns what to run once they are parsed.
	setup func(fs *flag.FlagSet) action
	// verbs are commands of its own, such as "queue drop". The command itself
	// is what is meant when none is named.
	verbs []*command
	// raw commands read their arguments themselves, flags and all.
	raw bool
	// noJSON is why there is no --json, a clause that the help shows; "" where
	// there is one.
	noJSON string
}

type action func(ctx context.Context, t *terminal, args []string) error

// exitError ends a command with a code that says something; err, if any, is
// what to tell besides.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

// usageError is a mistake on the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// commands are in the order in which a newcomer needs them.
func commands() []*command {
	return []*command{
		demoCommand(), serveCommand(), sendCommand(), explainCommand(), checkCommand(),
		statusCommand(), queueCommand(), traceCommand(), historyCommand(), suppressionsCommand(), webhookCommand(), forgetCommand(),
		reloadCommand(), sendmailCommand(), hashPasswordCommand(), sandboxCommand(), healthcheckCommand(),
		manCommand(), completionCommand(), versionCommand(),
	}
}

// run runs one command line and returns the exit code.
func run(ctx context.Context, t *terminal, args []string) int {
	if len(args) == 0 {
		printOverview(t.err)
		return exitUsage
	}
	name, rest := args[0], args[1:]
	switch name {
	case "help", "-h", "-help", "--help":
		return help(t, rest)
	case "-version", "--version":
		name = "version"
	}
	c := find(name)
	if c == nil {
		fmt.Fprintf(t.err, "smtp2rest: there is no command %q%s\n", name, didYouMean(name, names()))
		fmt.Fprintln(t.err, "See 'smtp2rest help'.")
		return exitUsage
	}
	return c.run(ctx, t, rest)
}

func (c *command) run(ctx context.Context, t *terminal, args []string) int {
	fs := c.flagSet()
	act := c.setup(fs)
	if len(c.verbs) > 0 && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		verb := c.verb(args[0])
		if verb == nil {
			return report(t, c, wantsJSON(fs, args), usagef("there is no verb %q%s", args[0], noSuch(args[0], c.verbNames())))
		}
		return verb.run(ctx, t, args[1:])
	}
	if c.raw {
		return report(t, c, false, act(ctx, t, args))
	}
	rest, err := parse(fs, args)
	if errors.Is(err, flag.ErrHelp) {
		printHelp(t.out, c)
		return exitOK
	}
	if err == nil {
		err = act(ctx, t, rest)
	}
	return report(t, c, wantsJSON(fs, args), err)
}

// report says what went wrong and returns the exit code.
func report(t *terminal, c *command, asJSON bool, err error) int {
	var failed *sendmail.Error
	if errors.As(err, &failed) {
		return sendmailFailed(t, failed)
	}
	f, hint := failureOf(c, err)
	switch {
	case f.Error == "":
	case asJSON:
		_ = printJSON(t.err, f) // there is nowhere left to say that it failed
	default:
		fmt.Fprintf(t.err, "smtp2rest %s: %s%s\n", c.name, f.Error, hint)
	}
	return f.Exit
}

// failureOf says what went wrong, and for people what helps them further, and
// chooses the exit code.
func failureOf(c *command, err error) (f failure, hint string) {
	var usage *usageError
	var problems config.Errors
	var exit *exitError
	switch {
	case err == nil:
		return failure{Exit: exitOK}, ""
	case errors.As(err, &exit):
		if exit.err != nil {
			f.Error = exit.err.Error()
		}
		f.Exit = exit.code
		return f, ""
	case errors.As(err, &usage):
		return failure{Error: usage.text, Exit: exitUsage}, "\nSee 'smtp2rest help " + c.name + "'."
	case errors.As(err, &problems):
		return failure{Error: "the configuration is not usable", Exit: exitConfig, Problems: problemsOf(problems)}, ":\n" + indent(err.Error())
	case errors.Is(err, fs.ErrPermission), errors.Is(err, sqlite.ErrNewer), errors.Is(err, records.ErrNewer): // a restart does not mend that either
		return failure{Error: err.Error(), Exit: exitConfig}, ""
	default:
		return failure{Error: err.Error(), Exit: exitFailed}, ""
	}
}

func (c *command) flagSet() *flag.FlagSet {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // we say it better
	fs.Usage = func() {}
	return fs
}

// parse parses flags wherever they stand, before or after other arguments;
// package flag stops at the first that is none. "--" ends the flags.
func parse(fs *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := fs.Parse(args); err != nil {
			return nil, flagError(fs, err)
		}
		seen := len(args) - fs.NArg()
		if fs.NArg() == 0 || seen > 0 && args[seen-1] == "--" {
			return append(rest, fs.Args()...), nil
		}
		rest = append(rest, fs.Arg(0))
		args = fs.Args()[1:]
	}
}

func flagError(fs *flag.FlagSet, err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	wrong, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !unknown {
		text := err.Error()
		if name, lacks := strings.CutPrefix(text, "flag needs an argument: -"); lacks {
			return usagef("--%s needs a value", strings.TrimLeft(name, "-"))
		}
		return usagef("%s", strings.Replace(text, " for flag -", " for --", 1))
	}
	var known []string
	fs.VisitAll(func(f *flag.Flag) { known = append(known, f.Name) })
	wrong = strings.TrimLeft(wrong, "-")
	return usagef("there is no flag --%s%s", wrong, didYouMean(wrong, known, "--"))
}

func find(name string) *command {
	for _, c := range commands() {
		if c.name == name {
			return c
		}
	}
	return nil
}

// verb is the command of that verb, or nil.
func (c *command) verb(word string) *command {
	for _, v := range c.verbs {
		if v.name == c.name+" "+word {
			return v
		}
	}
	return nil
}

func (c *command) verbNames() []string {
	var all []string
	for _, v := range c.verbs {
		all = append(all, strings.TrimPrefix(v.name, c.name+" "))
	}
	return all
}

func names() []string {
	all := []string{"help"}
	for _, c := range commands() {
		all = append(all, c.name)
	}
	return all
}

// noSuch names the nearest candidate, or all of them when none is near.
func noSuch(word string, candidates []string) string {
	if nearest := didYouMean(word, candidates); nearest != "" {
		return nearest
	}
	return "; there are " + strings.Join(candidates, ", ")
}

// didYouMean names the nearest candidate, if one is near.
func didYouMean(word string, candidates []string, prefix ...string) string {
	nearest := config.Nearest(word, candidates)
	if nearest == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", strings.Join(prefix, "")+nearest)
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ")
}
