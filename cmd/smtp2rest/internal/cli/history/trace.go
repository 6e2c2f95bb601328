package history

import (
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
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/history"
)

// TraceCommand is 'smtp2rest trace'.
func TraceCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "trace NAME",
		Short: "Tell what became of a mail.",
		Long: `Tells the whole story of one mail, oldest first: from whom it came and when, what
its client was told, each attempt with the API's answer, and what the provider
told afterwards: delivered, opened, bounced with its code and reason, complained.

NAME is the queue id or its beginning (four characters or more), the Message-ID of
the mail's header, the message_id of the API, the address of its sender or of a
recipient, or a name without a domain, such as root: the alias that the client
named, or the part before the @, at any domain. Where that leads to several mails
they are listed, the newest first; their ids tell more, or 'smtp2rest history'
searches among them.

It asks the running daemon, or opens the data directory of one that is stopped,
as 'smtp2rest queue' does. How long the history is kept is history.keep in the
configuration.`,
		Example: terminal.Examples(
			"smtp2rest trace 06h0kq3n2a", "smtp2rest trace bob@example.net",
			"smtp2rest trace '<20261125.1@app.example.com>' --json", "smtp2rest trace msg_01hx --follow",
		),
	}
	fs := c.Flags()
	var q reach.Flags
	q.Declare(fs)
	follow := fs.Bool("follow", false, "go on until nothing is left to do, or Ctrl-C")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) != 1 {
			return terminal.Usagef("name one mail, by an id or an address")
		}
		return q.With(ctx, t, func(o reach.Operator) error {
			story, err := o.Trace(ctx, args[0])
			if err != nil {
				return err
			}
			if _, halted := o.(reach.Stopped); *follow && halted {
				// Nothing would happen, and the relay could not start meanwhile.
				return errors.New("no daemon runs, so nothing more happens to the mail; start it, or leave --follow out")
			}
			if *follow && story.Mail != nil {
				return followStory(ctx, t, o, story, q.JSON)
			}
			if q.JSON {
				return terminal.PrintJSON(t.Out, story)
			}
			return showTraced(t, args[0], story)
		})
	}
	return c
}

func showTraced(t *terminal.Terminal, name string, story admin.Traced) error {
	if story.Mail == nil {
		return showMatches(t, name, story)
	}
	if err := showStoryHead(t, *story.Mail); err != nil {
		return err
	}
	fmt.Fprintln(t.Out)
	for _, l := range storyLines(*story.Mail) {
		fmt.Fprintln(t.Out, l.text(*story.Mail))
	}
	fmt.Fprintln(t.Out)
	return showEnds(t, story)
}

func showMatches(t *terminal.Terminal, name string, story admin.Traced) error {
	table := terminal.NewTable(t, "RECEIVED", "ID", "STATE", "SENDER", "RECIPIENT")
	for _, m := range story.Matches {
		if err := addMatch(t, table, m); err != nil {
			return err
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	more := ""
	if story.More {
		more = ", and there are more"
	}
	_, err := fmt.Fprintf(t.Out, "\n%s leads to these mails%s. 'smtp2rest trace ID' tells of one;\n"+
		"'smtp2rest history' searches by sender, recipient, state and time.\n", terminal.Printable(name), more)
	return err
}

func addMatch(t *terminal.Terminal, table *terminal.Table, m history.Mail) error {
	r := m.Recipients[0]
	short := terminal.AddressWidth(t)
	return table.Add(terminal.Clock(m.Received), m.ID, string(r.State), terminal.Cut(terminal.Address(m.Sender), short), terminal.Printable(r.Addr))
}

// showStoryHead says which mail it is.
func showStoryHead(t *terminal.Terminal, m history.Mail) error {
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
	line("message-id", terminal.Printable(m.MessageID))
	line("subject", terminal.Printable(m.Subject))
	if m.Size > 0 {
		line("size", terminal.Size(m.Size))
	}
	line("client", queue.ClientText(m.Client))
	line("trace", terminal.Printable(m.TraceParent))
	line("bounce of", terminal.Printable(m.BounceOf))
	for i, l := range m.LeftOut {
		name := ""
		if i == 0 {
			name = "left out"
		}
		fmt.Fprintf(w, "%s\t%s: %s\n", name, l.Kind, terminal.Printable(l.Detail))
	}
	return w.Flush()
}

// storyLine is one thing that happened, to a recipient or to the mail.
type storyLine struct {
	at    time.Time
	to    string // "": to the mail
	words string
	took  int64

	coarse bool // the time is in whole seconds, as the provider's events have it
}

// order is when it stands in the story: within its second, what has the second
// only comes last, so that nothing is delivered before it was received.
func (l storyLine) order() time.Time {
	if l.coarse {
		return l.at.Add(time.Second - 1)
	}
	return l.at
}

// storyLines are all of them, oldest first.
func storyLines(m history.Mail) []storyLine {
	came := "received"
	if m.BounceOf != "" {
		came = "written by this relay"
	}
	lines := []storyLine{{at: m.Received, words: came}}
	for _, r := range m.Recipients {
		for _, s := range r.Steps {
			l := storyLine{at: s.At, to: r.Addr, words: s.Words, coarse: s.Event != nil && s.At.Nanosecond() == 0}
			if s.Attempt != nil {
				l.took = s.Attempt.TookMS
			}
			lines = append(lines, l)
		}
	}
	if m.Reply != "" {
		lines = append(lines, storyLine{at: m.Answered, words: "the client was told " + m.Reply})
	}
	slices.SortStableFunc(lines, func(a, b storyLine) int { return a.order().Compare(b.order()) })
	return lines
}

func (l storyLine) text(m history.Mail) string {
	b := l.at.Local().Format("2006-01-02 15:04:05.000") + "  "
	if l.to != "" && len(m.Recipients) > 1 {
		b += terminal.Printable(l.to) + ": "
	}
	b += terminal.Printable(l.words)
	if l.took > 0 {
		b += " (took " + queue.Millis(l.took) + ")"
	}
	return b
}

// showEnds says where each recipient stands.
func showEnds(t *terminal.Terminal, story admin.Traced) error {
	p := t.Palette()
	for _, r := range story.Mail.Recipients {
		who := terminal.Printable(r.Addr)
		if r.Named != "" {
			who += " (for " + terminal.Printable(r.Named) + ")"
		}
		if _, err := fmt.Fprintf(t.Out, "%s %s\n", p.Bold(who), standText(r, story.Queue)); err != nil {
			return err
		}
	}
	return nil
}

func standText(r history.Recipient, queued *admin.Mail) string {
	if r.State == history.Unknown {
		return "unknown: the relay ended before it wrote down what became of it, and it is not in the queue; most likely it was sent"
	}
	if r.State != history.Waiting {
		return string(r.State)
	}
	if queued != nil {
		for _, q := range queued.Recipients {
			if strings.EqualFold(q.Recipient, r.Addr) {
				return queue.ProgressText(q.Progress)
			}
		}
	}
	return "waiting, and not in the queue: its client still waits"
}

// followEvery is how often a story is asked for again.
const followEvery = 500 * time.Millisecond

// followStory prints what happens as it happens.
func followStory(ctx context.Context, t *terminal.Terminal, o reach.Operator, story admin.Traced, asJSON bool) error {
	id, told := story.Mail.ID, map[string]bool{}
	if !asJSON {
		if err := showStoryHead(t, *story.Mail); err != nil {
			return err
		}
		fmt.Fprintln(t.Out)
	}
	again := time.NewTicker(followEvery)
	defer again.Stop()
	for {
		for _, l := range storyLines(*story.Mail) {
			text := l.text(*story.Mail)
			if told[text] {
				continue
			}
			told[text] = true
			if err := l.print(t, id, text, asJSON); err != nil {
				return err
			}
		}
		if story.Settled() {
			if asJSON {
				return nil
			}
			fmt.Fprintln(t.Out)
			return showEnds(t, story)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
		next, err := o.Trace(ctx, id)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case next.Mail == nil:
			return fmt.Errorf("mail %s is not known any more", id)
		}
		story = next
	}
}

func (l storyLine) print(t *terminal.Terminal, id, text string, asJSON bool) error {
	if asJSON {
		return terminal.PrintJSON(t.Out, struct {
			ID        string    `json:"id"`
			At        time.Time `json:"at"`
			Recipient string    `json:"recipient,omitempty"`
			Words     string    `json:"words"`
		}{id, l.at, l.to, l.words})
	}
	_, err := fmt.Fprintln(t.Out, text)
	return err
}
