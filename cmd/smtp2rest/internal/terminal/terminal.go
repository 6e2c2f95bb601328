// Package terminal is what the commands share that talks to a person or a
// script: the screen, tables, JSON, questions, and errors with their exit codes.
// It knows no relay; package reach does.
package terminal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Exit codes. The systemd unit relies on ExitConfig: a wrong configuration
// does not mend itself, so it must not be restarted.
const (
	ExitOK      = 0
	ExitFailed  = 1
	ExitUsage   = 2
	ExitStopped = 3  // no daemon runs, as service managers have it (LSB, status)
	ExitConfig  = 78 // EX_CONFIG of sysexits(3)
)

// Terminal is what a command talks to.
type Terminal struct {
	Name     string // of this program, as it was called
	Version  string // of this program
	In       io.Reader
	Out, Err io.Writer
	Env      func(string) (string, bool)
	Service  string // path of the service's configuration, there or not
	Color    bool
	Width    int  // columns of the screen that Out is; 0 when it is none
	Asks     bool // there is a person at In who can answer
}

// Palette is how t is coloured, if it is.
func (t *Terminal) Palette() Palette { return Palette{t.Color} }

// ExitError ends a command with a code that says something. Err, if any, is
// told besides.
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

// UnknownCommand names the command that was probably meant.
func UnknownCommand(parent *cobra.Command, word string) error {
	return Usagef("there is no command %q%s", strings.TrimPrefix(parent.CommandPath()+" "+word, "smtp2rest "), DidYouMean(word, Subcommands(parent)))
}

// Subcommands are the names of the commands below c.
func Subcommands(c *cobra.Command) []string {
	var all []string
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			all = append(all, sub.Name())
		}
	}
	return all
}

// Unexpected is about an argument where there can be none. A word close to a
// subcommand's is taken for a mistyped one; otherwise hint says what to do.
func Unexpected(cmd *cobra.Command, word, hint string) error {
	if near := DidYouMean(word, Subcommands(cmd)); near != "" {
		return UnknownCommand(cmd, word)
	}
	return Usagef("unexpected argument %q; %s", word, hint)
}

// Examples is the text of a command's examples, one on each line.
func Examples(list ...string) string { return "  " + strings.Join(list, "\n  ") }

// NoJSON is the sentence of a command's help that says why it has no --json.
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

// Indent sets each line of s in by two spaces.
func Indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ")
}

// IsUsage reports whether err is a mistake on the command line.
func IsUsage(err error) bool {
	var usage *UsageError
	return errors.As(err, &usage)
}

// WantsColor is true on a terminal whose user did not ask for plain text
// (https://no-color.org).
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

// Columns is the width of a terminal, or 0 when f is none. A device such as
// /dev/null is none.
func Columns(f *os.File) int {
	width, _, err := term.GetSize(int(f.Fd()))
	switch {
	case err != nil:
		return 0
	case width == 0: // a terminal that does not know, as of expect(1)
		return 80
	}
	return width
}
