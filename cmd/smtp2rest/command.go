package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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

// root is the whole program. Its commands are in the order in which a newcomer
// needs them.
func root(t *terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "smtp2rest",
		Short: "Take mail over SMTP and send it through the NexusProMail REST API.",
		Long: `smtp2rest takes mail over SMTP and sends it through the NexusProMail REST API.
New here? 'smtp2rest demo' shows it all at work.`,
		Version:       versionText(),
		SilenceErrors: true, // report says it
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(cmd, args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(t.err)
			return errors.Join(cmd.Help(), &exitError{code: exitUsage})
		},
	}
	c.SetVersionTemplate("smtp2rest {{.Version}}\n")
	c.SetFlagErrorFunc(flagError)
	c.SetHelpCommand(helpCommand())
	addGroup(c, "Begin:", demoCommand(t), serveCommand(t), sendCommand(t), explainCommand(t), checkCommand(t))
	addGroup(c, "See and change what the relay does:", statusCommand(t), queueCommand(t), traceCommand(t), historyCommand(t),
		suppressionsCommand(t), webhookCommand(t), forgetCommand(t), reloadCommand(t), healthcheckCommand(t))
	addGroup(c, "Other tools:", sendmailCommand(t), hashPasswordCommand(t), sandboxCommand(t), manCommand(t), versionCommand(t))
	return c
}

// addGroup adds commands under a heading of the help.
func addGroup(c *cobra.Command, title string, commands ...*cobra.Command) {
	c.AddGroup(&cobra.Group{ID: title, Title: title})
	for _, sub := range commands {
		sub.GroupID = title
	}
	c.AddCommand(commands...)
	c.SetHelpCommandGroupID(title)
	c.SetCompletionCommandGroupID(title)
}

// helpCommand is cobra's own, but that an unknown command is an error.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Tell more of a command.",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(found, rest[0])
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			found, _, err := cmd.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			others := func(name string) bool { return !strings.HasPrefix(name, begun) }
			return slices.DeleteFunc(subcommands(found), others), cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// unknownCommand names the command that was probably meant.
func unknownCommand(parent *cobra.Command, word string) error {
	return usagef("there is no command %q%s", strings.TrimPrefix(parent.CommandPath()+" "+word, "smtp2rest "), didYouMean(word, subcommands(parent)))
}

func subcommands(c *cobra.Command) []string {
	var all []string
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			all = append(all, sub.Name())
		}
	}
	return all
}

// unexpected is about an argument where there can be none. A word close to a
// subcommand's is taken for a mistyped one; otherwise hint says what to do.
func unexpected(cmd *cobra.Command, word, hint string) error {
	if near := didYouMean(word, subcommands(cmd)); near != "" {
		return unknownCommand(cmd, word)
	}
	return usagef("unexpected argument %q; %s", word, hint)
}

// examples is the text of a command's examples, one on each line.
func examples(list ...string) string { return "  " + strings.Join(list, "\n  ") }

// noJSON is the sentence of a command's help that says why it has no --json.
func noJSON(why string) string { return "\n\nThere is no --json: " + why + "." }

// run runs one command line and returns the exit code.
func run(ctx context.Context, t *terminal, args []string) int {
	c := root(t)
	c.SetArgs(args)
	c.SetIn(t.in)
	c.SetOut(t.out)
	c.SetErr(t.err)
	cmd, err := c.ExecuteContextC(ctx)
	return report(t, cmd, slices.Contains(args, "--json") && cmd.Flags().Lookup("json") != nil, err)
}

// report says what went wrong and returns the exit code.
func report(t *terminal, c *cobra.Command, asJSON bool, err error) int {
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
		fmt.Fprintf(t.err, "%s: %s%s\n", c.CommandPath(), f.Error, hint)
	}
	return f.Exit
}

// failureOf says what went wrong, and for people what helps them further, and
// chooses the exit code.
func failureOf(c *cobra.Command, err error) (f failure, hint string) {
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
		return failure{Error: usage.text, Exit: exitUsage}, "\nSee '" + c.CommandPath() + " --help'."
	case errors.As(err, &problems):
		return failure{Error: "the configuration is not usable", Exit: exitConfig, Problems: problemsOf(problems)}, ":\n" + indent(err.Error())
	case errors.Is(err, fs.ErrPermission), errors.Is(err, sqlite.ErrNewer), errors.Is(err, records.ErrNewer): // a restart does not mend that either
		return failure{Error: err.Error(), Exit: exitConfig}, ""
	default:
		return failure{Error: err.Error(), Exit: exitFailed}, ""
	}
}

// flagError says what is wrong with a flag, and which one was probably meant.
func flagError(c *cobra.Command, err error) error {
	if missing, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return usagef("--%s needs a value", missing.GetSpecifiedName())
	}
	if wrong, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		cause := wrong.Unwrap()
		if number, ok := errors.AsType[*strconv.NumError](cause); ok {
			cause = number.Err
		}
		return usagef("invalid value %q for --%s: %v", wrong.GetValue(), wrong.GetFlag().Name, cause)
	}
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		return usagef("%s", err)
	}
	name, dashes := unknown.GetSpecifiedName(), "--"
	if shorthands := unknown.GetSpecifiedShortnames(); shorthands != "" { // -config is a word, not -c -o -n -f -i -g
		name, dashes = shorthands, "-"
	}
	var known []string
	c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	return usagef("there is no flag %s%s%s", dashes, name, didYouMean(name, known, "--"))
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
