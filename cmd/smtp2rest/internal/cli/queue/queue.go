// Package queue is 'smtp2rest queue' and 'smtp2rest status': what waits and why,
// and the changes that an operator can make.
package queue

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
)

// Command is the operator's side of the queue. Its verbs are in files of
// their own; what they have in common is here.
func Command(t *terminal.Terminal) *cobra.Command {
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
		Example: terminal.Examples("smtp2rest queue", "sudo smtp2rest queue --older 1h", "smtp2rest queue --json"),
	}
	addList(t, c)
	c.AddCommand(
		queueListCommand(t), queueShowCommand(t), queueStatusCommand(t), queueRetryCommand(t), queueFlushCommand(t),
		queueHoldCommand(t), queueReleaseCommand(t), queueDropCommand(t), queueSetAsideCommand(t),
	)
	return c
}

// printNotes says what stands in the way of mail.
func PrintNotes(w io.Writer, p terminal.Palette, notes []admin.Note) {
	for _, n := range notes {
		fmt.Fprintf(w, "%s %s: %s%s\n", p.Bold("note:"), terminal.Printable(n.What), terminal.Printable(n.Why), terminal.Printable(when(n)))
		if n.Do != "" {
			fmt.Fprintf(w, "      %s\n", p.Dim(terminal.Printable(n.Do)))
		}
	}
}

func when(n admin.Note) string {
	var parts []string
	if !n.Since.IsZero() {
		parts = append(parts, "for "+terminal.Age(n.Since))
	}
	if !n.Until.IsZero() {
		parts = append(parts, "next in "+terminal.Until(n.Until))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}
