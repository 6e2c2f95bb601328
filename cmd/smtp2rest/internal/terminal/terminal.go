// Package terminal has what all commands need to talk to a person or a script:
// tables, JSON, questions, arguments, and errors with their exit codes. It does
// not know the relay; package reach does.
package terminal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/smtp2rest/smtp2rest/internal/settings"
)

// Exit codes. The systemd unit does not restart the relay after ExitConfig,
// because a restart does not correct a wrong configuration.
const (
	ExitOK      = 0
	ExitFailed  = 1
	ExitUsage   = 2
	ExitStopped = 3  // no daemon runs; service managers use this code for it (LSB)
	ExitConfig  = 78 // EX_CONFIG of sysexits(3)
)

// Terminal is what a command reads from and writes to.
type Terminal struct {
	Name     string // the name by which this program was called
	Version  string // of this program
	In       io.Reader
	Out, Err io.Writer
	Env      func(string) (string, bool)
	Service  string // path of the service's configuration; the file may be missing
	Color    bool
	Width    int  // columns of the screen; 0 when Out is not a screen
	Asks     bool // a person at In can answer questions
}

// Palette returns the colours for t.
func (t *Terminal) Palette() Palette { return Palette{t.Color} }

// ErrNotConfirmed says that the answer was not yes.
var ErrNotConfirmed = errors.New("not confirmed; nothing was changed")

// Confirm asks a question and returns ErrNotConfirmed unless the answer is yes.
// When ctx ends, the goroutine that reads the answer is left behind: a read from
// a terminal cannot be stopped, and the process is about to end.
func (t *Terminal) Confirm(ctx context.Context, question string) error {
	fmt.Fprintf(t.Err, "%s [y/N] ", question)
	line := make(chan string, 1)
	go func() {
		s, _ := bufio.NewReader(t.In).ReadString('\n') // the end of the input is not a yes
		line <- strings.ToLower(strings.TrimSpace(s))
	}()
	select {
	case answer := <-line:
		if answer == "y" || answer == "yes" {
			return nil
		}
	case <-ctx.Done():
	}
	return ErrNotConfirmed
}

// ExitError ends a command with an exit code of its own. Err, if it is set, is
// printed.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

// UsageError is a mistake on the command line.
type UsageError struct{ Text string }

func (e *UsageError) Error() string { return e.Text }

// Usagef returns a UsageError.
func Usagef(format string, args ...any) error {
	return &UsageError{fmt.Sprintf(format, args...)}
}

// NoArgs is for a command without arguments. A word that is close to the name of
// a subcommand is reported as a mistyped one; for any other word the error gives
// the hint, in which %[1]s stands for the word.
func NoArgs(hint string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return nil
		case DidYouMean(args[0], Subcommands(cmd)) != "":
			return UnknownCommand(cmd, args[0])
		case hint == "":
			return Usagef("unexpected argument %q", args[0])
		case strings.Contains(hint, "%"):
			hint = fmt.Sprintf(hint, args[0])
		}
		return Usagef("unexpected argument %q; %s", args[0], hint)
	}
}

// Args is for a command that takes between least and most arguments; the error
// says what to do.
func Args(least, most int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return Usagef("%s", what)
		}
		return nil
	}
}

// UnknownCommand names the command that was probably meant.
func UnknownCommand(parent *cobra.Command, word string) error {
	return Usagef("there is no command %q%s", strings.TrimPrefix(parent.CommandPath()+" "+word, "smtp2rest "), DidYouMean(word, Subcommands(parent)))
}

// Subcommands returns the names of the commands below c.
func Subcommands(c *cobra.Command) []string {
	var all []string
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			all = append(all, sub.Name())
		}
	}
	return all
}

// Examples lays out a command's examples, one on each line.
func Examples(list ...string) string { return "  " + strings.Join(list, "\n  ") }

// NoJSON is the sentence of a command's help that says why there is no --json.
func NoJSON(why string) string { return "\n\nThere is no --json: " + why + "." }

// NoSuch names the nearest candidate, or all of them when none is near.
func NoSuch(word string, candidates []string) string {
	if nearest := DidYouMean(word, candidates); nearest != "" {
		return nearest
	}
	return "; there are " + strings.Join(candidates, ", ")
}

// DidYouMean names the nearest candidate, if one is near.
func DidYouMean(word string, candidates []string, prefix ...string) string {
	nearest := settings.Nearest(word, candidates)
	if nearest == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", strings.Join(prefix, "")+nearest)
}

// Indent puts two spaces before each line of s.
func Indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ")
}

// WantsColor reports whether f is a terminal whose user did not ask for plain
// text (https://no-color.org).
func WantsColor(f *os.File, env func(string) (string, bool)) bool {
	if v, set := env("NO_COLOR"); set && v != "" {
		return false
	}
	if v, _ := env("TERM"); v == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Columns returns the width of a terminal, or 0 when f is not a terminal.
// /dev/null, for example, is not one.
func Columns(f *os.File) int {
	width, _, err := term.GetSize(int(f.Fd()))
	switch {
	case err != nil:
		return 0
	case width == 0: // a terminal without a size, such as that of expect(1)
		return 80
	}
	return width
}
