package queue

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// filterFlags select recipients.
type filterFlags struct {
	states, sender, recipient, id string
	older, newer                  terminal.AgeValue
}

func (f *filterFlags) declare(fs *pflag.FlagSet) {
	fs.StringVar(&f.states, "state", "", "only these `states`, with commas: waiting, sending, held, sent, failed, open or all")
	fs.StringVar(&f.sender, "sender", "", "only mail of this envelope `address`")
	fs.StringVar(&f.recipient, "recipient", "", "only mail to this `address`")
	fs.Var(&f.older, "older", "only mail that came longer `ago` than this, such as 90m or 2d")
	fs.Var(&f.newer, "newer", "only mail that came less long `ago`")
	fs.StringVar(&f.id, "id", "", "only mail whose id has this `beginning`")
}

// filter is what the flags select. The second result is false when they
// select nothing in particular.
func (f *filterFlags) filter() (admin.Filter, bool, error) {
	if f.sender == "<>" {
		// relay/queue's filter has no word for it: "" leaves the sender open.
		return admin.Filter{}, false, terminal.Usagef("the null sender cannot be selected; the list shows it as <>, and its mail can be named by id")
	}
	out := admin.Filter{Sender: f.sender, Recipient: f.recipient, ID: f.id}
	now := time.Now()
	if f.older > 0 {
		out.Until = now.Add(-time.Duration(f.older))
	}
	if f.newer > 0 {
		out.From = now.Add(-time.Duration(f.newer))
	}
	for _, word := range terminal.SplitList(f.states) {
		states, err := statesOf(word)
		if err != nil {
			return out, false, err
		}
		out.States = append(out.States, states...)
	}
	return out, out.Selects(), nil
}

// statesOf is the states that one word on the command line stands for.
func statesOf(word string) ([]string, error) {
	names := []string{"open", "all"}
	var open, all []string
	for _, s := range queue.States() {
		if s.String() == word {
			return []string{word}, nil
		}
		names, all = append(names, s.String()), append(all, s.String())
		if s.Open() {
			open = append(open, s.String())
		}
	}
	switch word {
	case "open":
		return open, nil
	case "all":
		return all, nil
	}
	return nil, terminal.NoState(word, names)
}
