package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/queue"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/history"
)

// TraceCommand returns 'smtp2rest trace'.
func TraceCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "trace NAME",
		Short: "Tell what became of a mail.",
		Long: `Tells everything that happened to one mail, oldest first: who handed it over and
when, what the client was told, each attempt with the API's answer, and what the
provider told later: delivered, opened, bounced with its code and reason, complained.

NAME is one of these:
  the queue id, or its first four characters or more
  the Message-ID in the mail's header
  the message_id of the API
  the address of the sender or of a recipient
  a name without a domain, such as root: the alias that the client named, or
  the part before the @ of any address

When several mails have that name, they are listed, the newest first, and the flags
select among them. The list has at most 1000 mails. 'smtp2rest trace ID' then tells
about one of them.

It asks the running daemon, or opens the data directory of a stopped one, as
'smtp2rest queue' does. The setting history.keep says how long the history is kept.`,
		Example: terminal.Examples(
			"smtp2rest trace 06h0kq3n2a", "smtp2rest trace bob@example.net --state failed --since 2d",
			"smtp2rest trace '<20261125.1@app.example.com>' --json", "smtp2rest trace msg_01hx --follow",
		),
		Args: terminal.Args(1, 1, "name one mail, by an id or an address"),
	}
	fs := c.Flags()
	var r reach.Flags
	var s selection
	var p terminal.Paging
	r.Declare(fs)
	s.declare(c)
	p.Declare(fs, "mails")
	follow := fs.Bool("follow", false, "go on until nothing is left to do, or Ctrl-C")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		return r.With(ctx, t, func(o reach.Operator) error {
			q := s.query(0)
			q.Name, q.Limit = args[0], cmp.Or(p.Limit(r.JSON), admin.MaxPage)
			traced, err := o.Trace(ctx, q)
			if err != nil {
				return err
			}
			if _, stopped := o.(reach.Offline); *follow && stopped {
				// Nothing would happen, and the daemon could not start meanwhile.
				return errors.New("no daemon runs, so nothing more happens to the mail; start it, or leave --follow out")
			}
			several := false
			if !r.JSON {
				if several, err = queue.Several(ctx, o); err != nil {
					return err
				}
			}
			if several && traced.Mail != nil {
				traced.Mail.Account = relay.AccountName(traced.Mail.Account)
			}
			switch {
			case *follow && traced.Mail != nil:
				return followMail(ctx, t, o, traced, r.JSON)
			case r.JSON:
				return terminal.PrintJSON(t.Out, traced)
			case traced.Mail == nil:
				return printMatches(t, args[0], traced, several)
			}
			return printMail(t, traced)
		})
	}
	return c
}

// printMail prints all that is known of one mail.
func printMail(t *terminal.Terminal, traced admin.Traced) error {
	if err := printHead(t, *traced.Mail); err != nil {
		return err
	}
	fmt.Fprintln(t.Out)
	for _, s := range steps(*traced.Mail) {
		fmt.Fprintln(t.Out, s.text(*traced.Mail))
	}
	fmt.Fprintln(t.Out)
	return printStates(t, traced)
}

// printMatches prints the mails that a name can mean.
func printMatches(t *terminal.Terminal, name string, traced admin.Traced, several bool) error {
	var all terminal.Paging // the daemon has applied the limit
	list := func(yield func(history.Mail, error) bool) {
		for _, m := range traced.Matches {
			if !yield(m, nil) {
				return
			}
		}
	}
	if _, err := printMails(t, all, list, several); err != nil {
		return err
	}
	more := ""
	if traced.More {
		more = ", and there are more: --all shows them"
	}
	_, err := fmt.Fprintf(t.Out, "\n%s is in these mails%s. 'smtp2rest trace ID' tells about one;\n"+
		"--sender, --recipient, --state and --since select among them.\n", terminal.Printable(name), more)
	return err
}

// printHead says which mail it is.
func printHead(t *terminal.Terminal, m history.Mail) error {
	w := tabwriter.NewWriter(t.Out, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, value)
		}
	}
	line("id", t.Palette().Bold(terminal.Printable(m.ID)))
	line("sender", terminal.Address(m.Sender))
	if m.Author != "" && !strings.EqualFold(m.Author, m.Sender) {
		line("from", terminal.Printable(m.Author))
	}
	line("account", terminal.Printable(m.Account))
	line("message-id", terminal.Printable(m.MessageID))
	line("subject", terminal.Printable(m.Subject))
	if m.Size > 0 {
		line("size", terminal.Size(m.Size))
	}
	line("client", queue.ClientText(m.Client))
	line("trace", terminal.Printable(m.TraceParent))
	line("bounce of", terminal.Printable(m.BounceOf))
	line("copy of", terminal.Printable(m.Client.CopyOf))
	for i, l := range m.LeftOut {
		name := ""
		if i == 0 {
			name = "left out"
		}
		fmt.Fprintf(w, "%s\t%s: %s\n", name, l.Kind, terminal.Printable(l.Detail))
	}
	return w.Flush()
}

// step is one thing that happened to a mail or to one of its recipients.
type step struct {
	at     time.Time
	to     string // the recipient; "" is the whole mail
	words  string
	tookMS int64
	coarse bool // at is in whole seconds, as in the provider's events
}

// order is the time by which steps are sorted. A time in whole seconds counts as
// the end of its second, so that no mail is delivered before it was received.
func (s step) order() time.Time {
	if s.coarse {
		return s.at.Add(time.Second - 1)
	}
	return s.at
}

// steps returns all of them, oldest first.
func steps(m history.Mail) []step {
	came := "received"
	if m.Client.CopyOf != "" {
		came = "copied for the archive"
	}
	if m.Client.KeptBy != "" {
		came = "taken over from sendmail, which had kept it"
	}
	if m.BounceOf != "" {
		came = "written by this relay"
	}
	list := []step{{at: m.Received, words: came}}
	for _, r := range m.Recipients {
		for _, s := range r.Steps {
			one := step{at: s.At, to: r.Addr, words: s.Words, coarse: s.Event != nil && s.At.Nanosecond() == 0}
			if s.Attempt != nil {
				one.tookMS = s.Attempt.TookMS
			}
			list = append(list, one)
		}
	}
	if m.Reply != "" {
		list = append(list, step{at: m.Answered, words: "the client was told " + m.Reply})
	}
	slices.SortStableFunc(list, func(a, b step) int { return a.order().Compare(b.order()) })
	return list
}

func (s step) text(m history.Mail) string {
	text := s.at.Local().Format("2006-01-02 15:04:05.000") + "  "
	if s.to != "" && len(m.Recipients) > 1 {
		text += terminal.Printable(s.to) + ": "
	}
	text += terminal.Printable(s.words)
	if s.tookMS > 0 {
		text += " (took " + queue.Millis(s.tookMS) + ")"
	}
	return text
}

// printStates prints the state of each recipient.
func printStates(t *terminal.Terminal, traced admin.Traced) error {
	p := t.Palette()
	for _, r := range traced.Mail.Recipients {
		who := terminal.Printable(r.Addr)
		if r.Named != "" {
			who += " (for " + terminal.Printable(r.Named) + ")"
		}
		if _, err := fmt.Fprintf(t.Out, "%s %s\n", p.Bold(who), stateText(r, traced.Queue)); err != nil {
			return err
		}
	}
	return nil
}

func stateText(r history.Recipient, queued *admin.Mail) string {
	switch r.State {
	case history.Unknown:
		return "unknown: the relay ended before it wrote down what became of it, and it is not in the queue; most likely it was sent"
	case history.Waiting:
	default:
		return string(r.State)
	}
	if queued != nil {
		for _, q := range queued.Recipients {
			if strings.EqualFold(q.Recipient, r.Addr) {
				return queue.ProgressText(q.Progress)
			}
		}
	}
	return "waiting, but not in the queue: its client still waits"
}

// followEvery is how often --follow asks for news.
const followEvery = 500 * time.Millisecond

// followMail prints what happens to a mail when it happens.
func followMail(ctx context.Context, t *terminal.Terminal, o reach.Operator, traced admin.Traced, asJSON bool) error {
	id, printed := traced.Mail.ID, map[string]bool{}
	if !asJSON {
		if err := printHead(t, *traced.Mail); err != nil {
			return err
		}
		fmt.Fprintln(t.Out)
	}
	again := time.NewTicker(followEvery)
	defer again.Stop()
	for {
		for _, s := range steps(*traced.Mail) {
			text := s.text(*traced.Mail)
			if printed[text] {
				continue
			}
			printed[text] = true
			if err := s.print(t, id, text, asJSON); err != nil {
				return err
			}
		}
		if traced.Settled() {
			if asJSON {
				return nil
			}
			fmt.Fprintln(t.Out)
			return printStates(t, traced)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
		next, err := o.Trace(ctx, history.Query{Name: id})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case next.Mail == nil:
			return fmt.Errorf("mail %s is not known any more", id)
		}
		traced = next
	}
}

func (s step) print(t *terminal.Terminal, id, text string, asJSON bool) error {
	if asJSON {
		return terminal.PrintJSON(t.Out, struct {
			ID        string    `json:"id"`
			At        time.Time `json:"at"`
			Recipient string    `json:"recipient,omitempty"`
			Words     string    `json:"words"`
		}{id, s.at, s.to, s.words})
	}
	_, err := fmt.Fprintln(t.Out, text)
	return err
}
