// Package history is 'smtp2rest history', 'trace' and 'forget': what became of
// mail.
package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/history"
)

func Command(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "history",
		Short: "Search what became of mail.",
		Long: `Lists one line for each recipient of the mails that match, those that came last
first: when, its queue id, where the recipient stands, and its subject if
history.subjects is on, else what its client was told. 'smtp2rest trace ID' tells
the whole story of one.

States are: waiting, refused (the client was told no for good), deferred (it was told
to come again), sent, failed, dropped (by an operator), unknown (a crash took the note
of how it ended), and, by what the provider told after it was sent, delivered, bounced
and complained.

It asks the running daemon, or opens the data directory of one that is stopped.`,
		Example: terminal.Examples(
			"smtp2rest history --recipient bob@example.net",
			"smtp2rest history --state failed,bounced --since 1d",
			"smtp2rest history --sender shop@example.com --since 2026-11-01 --until 2026-11-08 --limit 0 --json",
		),
	}
	fs := c.Flags()
	var q reach.Flags
	var f historyFlags
	q.Declare(fs)
	f.declare(fs)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) > 0 {
			return terminal.Usagef("unexpected argument %q; 'smtp2rest trace %s' tells of one mail", args[0], args[0])
		}
		query, err := f.query()
		if err != nil {
			return err
		}
		return q.With(ctx, t, func(o reach.Operator) error {
			if q.JSON {
				return historyJSON(ctx, t.Out, o, query, f.limit)
			}
			return historyTable(ctx, t, o, query, f.limit)
		})
	}
	return c
}

// historyFlags select recipients of mails.
type historyFlags struct {
	states, sender, recipient, subject string
	since, until                       timeValue
	limit                              int
}

func (f *historyFlags) declare(fs *pflag.FlagSet) {
	fs.StringVar(&f.states, "state", "", "only these `states`, with commas")
	fs.StringVar(&f.sender, "sender", "", "only mail of this envelope `address`")
	fs.StringVar(&f.sender, "from", "", "the same as --sender: an `address`")
	fs.StringVar(&f.recipient, "recipient", "", "only mail to this `address`")
	fs.StringVar(&f.subject, "subject", "", "only mail whose subject has this `text`, if history.subjects is on")
	fs.Var(&f.since, "since", "only mail that came since this `time`: 2026-11-25, 2026-11-25T18:00, or how long ago, such as 90m or 2d")
	fs.Var(&f.until, "until", "only mail that came before this `time`")
	fs.IntVar(&f.limit, "limit", terminal.TableLimit, "list at most this `number` of recipients, 0 for all")
}

func (f *historyFlags) query() (history.Query, error) {
	q := history.Query{
		Sender: f.sender, Recipient: f.recipient, Subject: f.subject,
		From: time.Time(f.since), Until: time.Time(f.until),
	}
	for _, word := range terminal.SplitList(f.states) {
		s, err := historyState(word)
		if err != nil {
			return q, err
		}
		q.States = append(q.States, s)
	}
	return q, nil
}

func historyState(word string) (history.State, error) {
	var names []string
	for _, s := range history.States() {
		if string(s) == word {
			return s, nil
		}
		names = append(names, string(s))
	}
	return "", terminal.NoState(word, names)
}

// timeValue is a flag for a moment: a date, a time, or how long ago.
type timeValue time.Time

func (v *timeValue) Set(s string) error {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			*v = timeValue(at)
			return nil
		}
	}
	d, err := settings.ParseDuration(s)
	if err != nil || d <= 0 {
		return errors.New(`write a date, such as "2026-11-25", a time, such as "2026-11-25T18:00", or how long ago, such as "90m" or "2d"`)
	}
	*v = timeValue(time.Now().Add(-d))
	return nil
}

// Type is what the help calls the value.
func (*timeValue) Type() string { return "time" }

func (v *timeValue) String() string {
	if v == nil || time.Time(*v).IsZero() {
		return ""
	}
	return time.Time(*v).Format(time.RFC3339)
}

// everyMail calls f for all that match, page by page, up to limit; 0 is all. It
// says whether there is more.
func everyMail(ctx context.Context, h admin.History, q history.Query, limit int, f func(history.Mail) error) (more bool, err error) {
	q.Limit = 1000
	if limit > 0 {
		q.Limit = min(limit+1, q.Limit)
	}
	for n := 0; ; {
		page, err := h.Find(ctx, q)
		if err != nil {
			return false, err
		}
		for _, m := range page.Entries {
			if limit > 0 && n == limit {
				return true, nil
			}
			n++
			if err := f(m); err != nil {
				return false, err
			}
		}
		if q.Cursor = page.Cursor; q.Cursor == "" {
			return false, nil
		}
	}
}

// historyJSON prints an array piece by piece; see listJSON.
func historyJSON(ctx context.Context, w io.Writer, h admin.History, q history.Query, limit int) error {
	between, end := "[\n", "[]\n"
	_, err := everyMail(ctx, h, q, limit, func(m history.Mail) error {
		line, err := terminal.PlainJSON(m)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(w, between, line)
		between, end = ",\n", "\n]\n"
		return err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(w, end)
	return err
}

func historyTable(ctx context.Context, t *terminal.Terminal, h admin.History, q history.Query, limit int) error {
	table := terminal.NewTable(t, "RECEIVED", "ID", "STATE", "SENDER", "RECIPIENT", "SUBJECT OR REPLY")
	n, short := 0, terminal.AddressWidth(t)
	more, err := everyMail(ctx, h, q, limit, func(m history.Mail) error {
		n++
		about := m.Subject
		if about == "" {
			about = m.Reply
		}
		r := m.Recipients[0]
		return table.Add(terminal.Clock(m.Received), m.ID, string(r.State), terminal.Cut(terminal.Address(m.Sender), short), terminal.Cut(terminal.Printable(r.Addr), short), terminal.Printable(about))
	})
	if err != nil {
		return err
	}
	if err := table.Flush(); err != nil {
		return err
	}
	switch {
	case n == 0:
		_, err = fmt.Fprintln(t.Out, "Nothing of that kind in the history.")
	case more:
		_, err = fmt.Fprintf(t.Out, "\n%d shown, and there are more: --limit 0 shows all\n", n)
	}
	return err
}
