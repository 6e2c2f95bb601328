package history

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
)

// ForgetCommand returns 'smtp2rest forget'.
func ForgetCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "forget ADDRESS",
		Short: "Erase what is stored about an address.",
		Long: `Erases from the history the mails that the address sent, its part in those that it
got, the provider's events about it, and every other place that names it. Then it
reads the file to see that the address is gone, and rewrites the file if it is not.
Where others got the same mail, their part is kept without the subject and the reply.

Three things are not erased, and the output says so:
  Mail that is still in the queue. It has to be sent or dropped first ('smtp2rest
  queue drop'). Mail that was sent is listed there for queue.keep_sent. Nothing
  more is recorded of these mails.
  The suppression of the address, because without it the address is written to
  again. --suppressions erases it, too.
  The log, because others keep it.

It asks the running daemon, or opens the data directory of a stopped one.`,
		Example: terminal.Examples("smtp2rest forget bob@example.net", "smtp2rest forget bob@example.net --suppressions"),
		Args:    terminal.Args(1, 1, "name one address"),
	}
	var r reach.Flags
	r.Declare(c.Flags())
	yes := c.Flags().Bool("yes", false, "do not ask")
	list := c.Flags().Bool("suppressions", false, "erase its suppression as well: the address can be written to again")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case !strings.Contains(args[0], "@"):
			return terminal.Usagef("%q is no address", args[0])
		case !*yes && !t.Asks:
			return terminal.Usagef("no terminal to ask at; use --yes to confirm")
		}
		return r.With(cmd.Context(), t, func(o reach.Operator) error {
			return forget(cmd.Context(), t, o, admin.ForgetRequest{Address: args[0], Suppressions: *list}, *yes, r.JSON)
		})
	}
	return c
}

func forget(ctx context.Context, t *terminal.Terminal, o reach.Operator, request admin.ForgetRequest, yes, asJSON bool) error {
	if !yes {
		list := ""
		if request.Suppressions {
			list = ", and that it must not be written to"
		}
		if err := t.Confirm(ctx, fmt.Sprintf("Erase what is stored about %s%s? It cannot be undone.", terminal.Printable(request.Address), list)); err != nil {
			return err
		}
	}
	done, err := o.Forget(ctx, request)
	switch {
	case err != nil:
		return err
	case asJSON:
		return terminal.PrintJSON(t.Out, done)
	}
	return showForgotten(t, done)
}

func showForgotten(t *terminal.Terminal, f admin.Forgotten) error {
	fmt.Fprintf(t.Out, "Erased: the record of %s, a part of %d more, %s.\n",
		terminal.Counted(f.Mails, "mail"), f.Recipients+f.Cleared, terminal.Counted(f.Events, "event"))
	if f.Suppressed {
		fmt.Fprintln(t.Out, "It is off the suppression list: the next mail to it asks the API again.")
	}
	if f.Clean {
		fmt.Fprintln(t.Out, "The history (records.db) was read afterwards and has the address nowhere.")
	} else {
		fmt.Fprintln(t.Out, "The history (records.db) still has the address: the suppression list keeps it, or that it was taken off; --suppressions erases both.")
	}
	for _, m := range f.Queued {
		fmt.Fprintf(t.Out, "In the queue still: %s, %s, which came %s ago.\n", terminal.Printable(m.ID), m.State, terminal.Age(m.Received))
	}
	if len(f.Queued) == 0 {
		return nil
	}
	_, err := fmt.Fprintln(t.Out, "Nothing more is recorded of them. 'smtp2rest queue drop ID' drops what waits or failed;\nwhat was sent is listed for queue.keep_sent.")
	return err
}
