// Package cli is the command line: the tree of commands, and those that have no
// family. Families are packages of their own below it; what all of them share is
// in terminal and reach beside it.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/history"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/queue"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/sendmail"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/serve"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/suppressions"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/config"
	relayqueue "github.com/smtp2rest/smtp2rest/relay/queue"
)

// Root is the whole program. Its commands are in the order in which a newcomer
// needs them.
func Root(t *terminal.Terminal) *cobra.Command {
	var version bool
	c := &cobra.Command{
		Use:   "smtp2rest",
		Short: "Take mail over SMTP and send it through the NexusProMail REST API.",
		Long: `smtp2rest takes mail over SMTP and sends it through the NexusProMail REST API.
New here? 'smtp2rest demo' shows it all at work.`,
		SilenceErrors: true, // report says it
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return terminal.UnknownCommand(cmd, args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version {
				_, err := fmt.Fprintf(t.Out, "smtp2rest %s\n", t.Version)
				return err
			}
			cmd.SetOut(t.Err)
			return errors.Join(cmd.Help(), &terminal.ExitError{Code: terminal.ExitUsage})
		},
	}
	// Cobra would print it by a template. With text/template in the program, the
	// linker must keep every exported method of everything: 3 MB.
	c.Flags().BoolVarP(&version, "version", "v", false, "print the version")
	c.SetFlagErrorFunc(flagError)
	c.SetHelpCommand(helpCommand())
	addGroup(c, "Begin:", serve.DemoCommand(t), serve.Command(t), serve.SendCommand(t), explainCommand(t), checkCommand(t))
	addGroup(c, "See and change what the relay does:", queue.StatusCommand(t), queue.Command(t), history.TraceCommand(t), history.Command(t),
		suppressions.Command(t), webhookCommand(t), history.ForgetCommand(t), reloadCommand(t), healthcheckCommand(t))
	addGroup(c, "Other tools:", sendmail.Command(t, func(ctx context.Context, args ...string) int { return Run(ctx, t, args) }), hashPasswordCommand(t), serve.SandboxCommand(t), manCommand(t), versionCommand(t))
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
				return terminal.UnknownCommand(found, rest[0])
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
			return slices.DeleteFunc(terminal.Subcommands(found), others), cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// Run runs one command line and returns the exit code.
func Run(ctx context.Context, t *terminal.Terminal, args []string) int {
	c := Root(t)
	c.SetArgs(args)
	c.SetIn(t.In)
	c.SetOut(t.Out)
	c.SetErr(t.Err)
	cmd, err := c.ExecuteContextC(ctx)
	return report(t, cmd, slices.Contains(args, "--json") && cmd.Flags().Lookup("json") != nil, err)
}

// report says what went wrong and returns the exit code.
func report(t *terminal.Terminal, c *cobra.Command, asJSON bool, err error) int {
	if code, failed := sendmail.Failed(t, err); failed {
		return code
	}
	f, hint := failureOf(c, err)
	switch {
	case f.Error == "":
	case asJSON:
		_ = terminal.PrintJSON(t.Err, f) // there is nowhere left to say that it failed
	default:
		fmt.Fprintf(t.Err, "%s: %s%s\n", c.CommandPath(), f.Error, hint)
	}
	return f.Exit
}

// failureOf says what went wrong, and for people what helps them further, and
// chooses the exit code.
func failureOf(c *cobra.Command, err error) (f terminal.Failure, hint string) {
	var usage *terminal.UsageError
	var problems config.Errors
	var exit *terminal.ExitError
	switch {
	case err == nil:
		return terminal.Failure{Exit: terminal.ExitOK}, ""
	case errors.As(err, &exit):
		if exit.Err != nil {
			f.Error = exit.Err.Error()
		}
		f.Exit = exit.Code
		return f, ""
	case errors.As(err, &usage):
		return terminal.Failure{Error: usage.Text, Exit: terminal.ExitUsage}, "\nSee '" + c.CommandPath() + " --help'."
	case errors.As(err, &problems):
		return terminal.Failure{Error: "the configuration is not usable", Exit: terminal.ExitConfig, Problems: terminal.ProblemsOf(problems)}, ":\n" + terminal.Indent(err.Error())
	case errors.Is(err, fs.ErrPermission), errors.Is(err, relayqueue.ErrNewer): // a restart does not mend that either
		return terminal.Failure{Error: err.Error(), Exit: terminal.ExitConfig}, ""
	default:
		return terminal.Failure{Error: err.Error(), Exit: terminal.ExitFailed}, ""
	}
}

// flagError says what is wrong with a flag, and which one was probably meant.
func flagError(c *cobra.Command, err error) error {
	if missing, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return terminal.Usagef("--%s needs a value", missing.GetSpecifiedName())
	}
	if wrong, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		cause := wrong.Unwrap()
		if number, ok := errors.AsType[*strconv.NumError](cause); ok {
			cause = number.Err
		}
		return terminal.Usagef("invalid value %q for --%s: %v", wrong.GetValue(), wrong.GetFlag().Name, cause)
	}
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		return terminal.Usagef("%s", err)
	}
	name, dashes := unknown.GetSpecifiedName(), "--"
	if shorthands := unknown.GetSpecifiedShortnames(); shorthands != "" { // -config is a word, not -c -o -n -f -i -g
		name, dashes = shorthands, "-"
	}
	var known []string
	c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	return terminal.Usagef("there is no flag %s%s%s", dashes, name, terminal.DidYouMean(name, known, "--"))
}
