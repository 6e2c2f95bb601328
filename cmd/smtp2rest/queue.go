package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/relay/admin"
)

// queueCommand is the operator's side of the queue. Its verbs are in files of
// their own; what they have in common is here.
func queueCommand(t *terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "queue",
		Short: "See what waits and why, and change it.",
		Long: `Lists what waits, is held or failed, and why; the verbs below do the rest.

It asks the running daemon over its socket, or opens the data directory of one
that is stopped. Both are found by --socket or --data-dir, else by the settings
in --config and the environment, else in /var/lib/smtp2rest. They are the
daemon's user's alone, so that sudo is needed where it runs as a service.

A mail is named by its id, as in the reply to its client and in the log. The
beginning of an id is enough if no other mail has the same.`,
		Example: examples("smtp2rest queue", "sudo smtp2rest queue --older 1h", "smtp2rest queue --json"),
	}
	addList(t, c)
	c.AddCommand(
		queueListCommand(t), queueShowCommand(t), queueStatusCommand(t), queueRetryCommand(t), queueFlushCommand(t),
		queueHoldCommand(t), queueReleaseCommand(t), queueDropCommand(t), queueSetAsideCommand(t),
	)
	return c
}

// queueFlags are the flags of every verb.
type queueFlags struct {
	reach reach
	json  bool
}

func (q *queueFlags) declare(fs *pflag.FlagSet) {
	q.declareReach(fs)
	declareJSON(fs, &q.json)
}

// declareReach declares those that lead to the daemon.
func (q *queueFlags) declareReach(fs *pflag.FlagSet) { q.reach.declare(fs) }

// with runs f with the queue that the flags lead to.
func (q *queueFlags) with(ctx context.Context, t *terminal, f func(admin.Admin) error) (err error) {
	a, done, err := q.reach.open(ctx, t)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	return candidates(f(a))
}

// candidates writes the mails that a shortened id could mean one below the
// other, to be copied.
func candidates(err error) error {
	var ambiguous *admin.AmbiguousError
	if !errors.As(err, &ambiguous) {
		return err
	}
	text := fmt.Sprintf("several mails begin with %s:\n%s", printable(ambiguous.Prefix), indent(strings.Join(ambiguous.IDs, "\n")))
	if ambiguous.More {
		text += "\n  and more"
	}
	return errors.New(text)
}

// printNotes says what stands in the way of mail.
func printNotes(w io.Writer, p palette, notes []admin.Note) {
	for _, n := range notes {
		fmt.Fprintf(w, "%s %s: %s%s\n", p.bold("note:"), printable(n.What), printable(n.Why), printable(when(n)))
		if n.Do != "" {
			fmt.Fprintf(w, "      %s\n", p.dim(printable(n.Do)))
		}
	}
}

func when(n admin.Note) string {
	var parts []string
	if !n.Since.IsZero() {
		parts = append(parts, "for "+age(n.Since))
	}
	if !n.Until.IsZero() {
		parts = append(parts, "next in "+until(n.Until))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}
