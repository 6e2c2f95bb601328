// Package cli is the command line: the tree of commands, and the commands that are
// alone. Groups of commands, such as queue, are packages below it. What they share
// is in the packages terminal and reach.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/forward"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/history"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/queue"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/sendmail"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/serve"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/suppressions"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/config"
	relayqueue "github.com/smtp2rest/smtp2rest/relay/queue"
)

// Main runs the program with the arguments of the process and returns its exit
// code. release is the version that the build was given, or "".
func Main(release string) int {
	t := &terminal.Terminal{
		In:      os.Stdin,
		Out:     os.Stdout,
		Err:     os.Stderr,
		Name:    os.Args[0],
		Version: versionOf(release),
		Env:     os.LookupEnv,
		Service: reach.DaemonConfig,
		Color:   terminal.WantsColor(os.Stdout, os.LookupEnv),
		Width:   terminal.Columns(os.Stdout),
		Asks:    terminal.Columns(os.Stdin) > 0,
	}
	ctx, atOnce := untilSignal()
	ended := make(chan int, 1)
	go func() { ended <- Run(ctx, t, sendmail.CalledAs(os.Args)) }()
	select {
	case code := <-ended:
		return code
	case <-atOnce:
		return terminal.ExitFailed
	}
}

// untilSignal returns a context that ends at the first signal to stop. When Ctrl-C
// follows, atOnce is closed, because somebody waits. A second SIGTERM does nothing:
// timeout(1) and some supervisors send two.
func untilSignal() (ctx context.Context, atOnce <-chan struct{}) {
	ctx, stop := context.WithCancel(context.Background())
	now := make(chan struct{})
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		stop()
		for s := range signals {
			if s == os.Interrupt {
				close(now)
				return
			}
		}
	}()
	return ctx, now
}

// Root returns the tree of commands.
func Root(t *terminal.Terminal) *cobra.Command {
	var version bool
	c := &cobra.Command{
		Use:   "smtp2rest",
		Short: "Take mail over SMTP and send it through the NexusProMail REST API.",
		Long: `smtp2rest takes mail over SMTP and sends it through the NexusProMail REST API.
New here? 'smtp2rest demo' shows it all at work.`,
		SilenceErrors: true, // report prints them
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return terminal.UnknownCommand(cmd, args[0])
			}
			return nil
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
	// Cobra would print the version by a template, with other words than 'version' has.
	c.Flags().BoolVarP(&version, "version", "v", false, "print the version")
	c.SetFlagErrorFunc(flagError)
	c.SetHelpCommand(helpCommand())
	addGroup(c, "Begin:", serve.DemoCommand(t), serve.Command(t), serve.SendCommand(t), explainCommand(t), checkCommand(t))
	addGroup(c, "See and change what the relay does:", queue.StatusCommand(t), queue.Command(t), history.TraceCommand(t), history.Command(t),
		suppressions.Command(t), webhookCommand(t), notifyCommand(t), forward.Command(t), history.ForgetCommand(t), reloadCommand(t), healthcheckCommand(t))
	addGroup(c, "Other tools:", sendmail.Command(t, func(ctx context.Context, args ...string) int { return Run(ctx, t, args) }), hashPasswordCommand(t), migrateCommand(t), tokenCommand(t), serve.SandboxCommand(t), benchCommand(t), manCommand(t), versionCommand(t))
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

// helpCommand is like cobra's, but an unknown command is an error.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Print the help of a command.",
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

// report prints what went wrong and returns the exit code.
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

// failureOf describes an error, with a hint for a person, and chooses the exit
// code.
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
	case errors.Is(err, fs.ErrPermission), errors.Is(err, relayqueue.ErrNewer): // a restart does not help here, either
		return terminal.Failure{Error: err.Error(), Exit: terminal.ExitConfig}, ""
	default:
		return terminal.Failure{Error: err.Error(), Exit: terminal.ExitFailed}, ""
	}
}

// flagError says what is wrong with a flag, and which flag was probably meant.
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

func versionCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version.",
		Long:    "Prints the version, or the commit it was built from, and the Go release.",
		Example: terminal.Examples("smtp2rest version", "smtp2rest version --json"),
		Args:    terminal.NoArgs(""),
	}
	asJSON := terminal.DeclareJSON(c.Flags())
	c.RunE = func(_ *cobra.Command, _ []string) error {
		if *asJSON {
			return terminal.PrintJSON(t.Out, struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				OS      string `json:"os"`
				Arch    string `json:"arch"`
			}{t.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH})
		}
		_, err := fmt.Fprintf(t.Out, "smtp2rest %s %s %s/%s\n", t.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return err
	}
	return c
}

// versionOf returns the version of the release, or of the module, or the commit.
func versionOf(release string) string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "commit " + s.Value[:12]
		}
	}
	return "development"
}
