// Package history has the commands 'smtp2rest history', 'trace' and 'forget', which are
// about what became of mail.
package history

import (
	"fmt"
	"iter"
	"slices"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/queue"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/history"
)

// Command returns 'smtp2rest history'.
func Command(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "history",
		Short: "Search what became of mail.",
		Long: `Lists one line for each recipient of the mails that match, the newest first: when the
mail came, its queue id, the recipient's state, and the subject of the mail. Without
history.subjects, the last column has the reply to the client. 'smtp2rest trace ID' shows
everything about one mail.

The states are:
  waiting      it is in the queue
  refused      the relay refused it, and told the client so
  deferred     the relay told the client to try again later
  sent         the API took it
  failed       the relay gave it up
  dropped      an operator dropped it
  unknown      the relay crashed before it recorded the result
and, by the provider's events after it was sent:
  delivered, bounced, complained

It asks the running daemon, or opens the data directory of a stopped one.`,
		Example: terminal.Examples(
			"smtp2rest history --recipient bob@example.net",
			"smtp2rest history --state failed,bounced --since 1d",
			"smtp2rest history --sender shop@example.com --since 2026-11-01 --until 2026-11-08 --json",
		),
		Args: terminal.NoArgs("'smtp2rest trace %[1]s' shows one mail"),
	}
	var r reach.Flags
	var s selection
	var p terminal.Paging
	r.Declare(c.Flags())
	s.declare(c)
	p.Declare(c.Flags(), "recipients")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		return r.With(cmd.Context(), t, func(o reach.Operator) error {
			list := admin.AllHistory(cmd.Context(), o, s.query(p.Limit(r.JSON)))
			if r.JSON {
				return terminal.PrintJSONList(t.Out, p, list)
			}
			multipleAccounts, err := queue.Several(cmd.Context(), o)
			if err != nil {
				return err
			}
			shown, err := printMails(t, p, list, multipleAccounts)
			switch {
			case err != nil:
				return err
			case shown.Rows == 0:
				_, err = fmt.Fprintln(t.Out, "Nothing in the history matches.")
			case shown.More:
				_, err = fmt.Fprintf(t.Out, "\n%s.\n", shown)
			}
			return err
		})
	}
	return c
}

// selection holds the flags that select mail of the history.
type selection struct {
	terminal.Selection
	subject string
}

func (s *selection) declare(c *cobra.Command) {
	var names []string
	for _, state := range history.States() {
		names = append(names, string(state))
	}
	s.Declare(c.Flags(), names)
	c.Flags().StringVar(&s.subject, "subject", "", "only mail whose subject has this `text`, if history.subjects is on")
}

// query returns what the flags select. limit is how many rows will be shown; 0 is all.
func (s *selection) query(limit int) history.Query {
	q := history.Query{ID: s.ID, Sender: s.Sender, Recipient: s.Recipient, Account: s.Account, Subject: s.subject, From: s.Since(), Until: s.Until()}
	for _, word := range s.States {
		q.States = append(q.States, history.State(word))
	}
	if limit > 0 {
		q.Limit = limit + 1 // with one more row we know whether there are more
	}
	return q
}

// printMails prints a table with a line for each recipient. With multipleAccounts there is
// a column for the account.
func printMails(t *terminal.Terminal, p terminal.Paging, list iter.Seq2[history.Mail, error], multipleAccounts bool) (terminal.Shown, error) {
	width := terminal.AddressWidth(t)
	head := []string{"RECEIVED", "ID", "STATE", "SENDER", "RECIPIENT", "SUBJECT OR REPLY"}
	if multipleAccounts {
		head = slices.Insert(head, 2, "ACCOUNT")
	}
	return terminal.PrintTable(t, p, list, head, func(m history.Mail) []string {
		about := m.Subject
		if about == "" {
			about = m.Reply
		}
		r := m.Recipients[0]
		row := []string{terminal.Clock(m.Received), m.ID, string(r.State), terminal.Cut(terminal.Address(m.Sender), width),
			terminal.Cut(terminal.Printable(r.Addr), width), terminal.Printable(about)}
		if multipleAccounts {
			row = slices.Insert(row, 2, terminal.Printable(relay.AccountName(m.Account)))
		}
		return row
	})
}
