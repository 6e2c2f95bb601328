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

func ForgetCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "forget ADDRESS",
		Short: "Erase what is stored about an address.",
		Long: `Erases from the history the mails that the address sent, its part in those that it
got, the provider's events about it, and wherever else its name stands; then reads
the file to see that it is gone, and writes it anew if not. Where others got the
same mail their part is kept, without the subject and the reply.

Not erased, and said: mail that is still in the queue, which has to be sent or
dropped first ('smtp2rest queue drop'), and mail that was sent and is listed there
for queue.keep_sent. Of what becomes of those mails nothing is recorded any more.
The suppression list is kept as well, because an address that is taken off it is
written to again: --suppressions erases its entry, too. The log is not ours to erase.

It asks the running daemon, or opens the data directory of one that is stopped.`,
		Example: terminal.Examples("smtp2rest forget bob@example.net", "smtp2rest forget bob@example.net --suppressions"),
	}
	fs := c.Flags()
	var q reach.Flags
	q.Declare(fs)
	yes := fs.Bool("yes", false, "do not ask")
	list := fs.Bool("suppressions", false, "erase its entry on the suppression list as well: it can be written to again")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		switch {
		case len(args) != 1:
			return terminal.Usagef("name one address")
		case !strings.Contains(args[0], "@"):
			return terminal.Usagef("%q is no address", args[0])
		case !*yes && !t.Asks:
			return terminal.Usagef("there is nobody to ask: say --yes if you mean it")
		}
		return q.With(ctx, t, func(o reach.Operator) error {
			return forget(ctx, t, o, admin.ForgetRequest{Address: args[0], Suppressions: *list}, *yes, q.JSON)
		})
	}
	return c
}

func forget(ctx context.Context, t *terminal.Terminal, o reach.Operator, r admin.ForgetRequest, yes, asJSON bool) error {
	if !yes {
		list := ""
		if r.Suppressions {
			list = ", and that it must not be written to"
		}
		fmt.Fprintf(t.Err, "Erase what is stored about %s%s? It cannot be undone. [y/N] ", terminal.Printable(r.Address), list)
		answer, err := terminal.Ask(ctx, t)
		if err != nil {
			return err
		}
		if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
			return terminal.ErrNotConfirmed
		}
	}
	done, err := o.Forget(ctx, r)
	if err != nil {
		return err
	}
	if asJSON {
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
