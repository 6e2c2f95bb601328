package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/app"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/intake"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

func explainCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "explain mail.eml",
		Short: "Print what the API would be sent for a mail, without sending it.",
		Long: `Maps a mail as the relay would and prints the JSON of each call, and what was
left out, changed or repaired on the way. A mail that would be refused is
answered as its SMTP client would be, with what was read of it and exit code 1.
"-" reads standard input.

Who gets a mail is for the envelope to say, so To and Cc in the file do not
matter: name recipients with --to. They are taken as they are written. Not looked at
are the rules of who may send what, aliases, whether an address is one, suppressions
and limits: for those, 'smtp2rest send' asks the relay itself.`,
		Example: terminal.Examples("smtp2rest explain mail.eml --to bob@example.net", "smtp2rest explain - < mail.eml", "smtp2rest explain mail.eml --json | jq .calls[0].body"),
	}
	fs := c.Flags()
	path := fs.String("config", "", "TOML `file` with settings")
	from := fs.String("from", "", "envelope `sender`")
	to := fs.String("to", "recipient@example.net", "`recipients`, separated by commas")
	var asJSON bool
	terminal.DeclareJSON(fs, &asJSON)
	c.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return terminal.Usagef("name one file, or - for standard input")
		}
		raw, err := readMail(t, args[0])
		if err != nil {
			return err
		}
		cfg, err := reach.LoadForeign(t, config.Source{Path: *path, FallbackSender: "default-sender@example.com"})
		if err != nil {
			return err
		}
		assumed := ""
		if reach.Setting(cfg, "sender.email").Origin == "default" {
			assumed = cfg.Sender.Email
			if !asJSON {
				fmt.Fprintf(t.Err, "note: no sender is set, so %s stands for it; set FROM_EMAIL or name --config, as for 'serve'\n", assumed)
			}
		}
		if asJSON {
			return explainJSON(t, raw, *from, assumed, terminal.SplitList(*to), app.Mapping(cfg))
		}
		return explain(t, raw, *from, terminal.SplitList(*to), app.Mapping(cfg))
	}
	return c
}

// errRefused is why explaining a mail that would be refused fails.
var errRefused = errors.New("this mail would be refused")

func explain(t *terminal.Terminal, raw []byte, from string, to []string, m provider.Mapping) error {
	var told explanations
	m.Explain = told.add
	parsed, err := mail.Map(raw, from, m.Options)
	if err != nil {
		fmt.Fprintf(t.Out, "refused: %s\n", reply.From(intake.Refusal(err)))
		explainRefused(t, err)
		told.print(t)
		return errRefused
	}
	body, err := m.Format.Encode(parsed)
	if err != nil {
		return err
	}
	p := t.Palette()
	for _, rcpt := range to {
		fmt.Fprintln(t.Out, p.Bold("to <"+rcpt+">"))
		text, err := terminal.PrettyJSON(body.Open(rcpt))
		if err != nil {
			return err
		}
		fmt.Fprintln(t.Out, text)
	}
	told.print(t)
	return nil
}

// explainRefused prints what was read of a mail that is not taken: whoever
// asks why wants to see which mail it is, and everything that is in the way.
func explainRefused(t *terminal.Terminal, err error) {
	var r *mail.Refusal
	if !errors.As(err, &r) || r.Read == nil {
		return
	}
	fmt.Fprintf(t.Out, "from: %s\nsubject: %s\n", strings.TrimSpace(r.Read.From.Name+" <"+r.Read.From.Email+">"), r.Read.Subject)
	for i := range r.Read.Attachments {
		fmt.Fprintf(t.Out, "file: %s\n", r.Read.Attachments[i].Describe())
	}
}

// explanations are what was left out of a mail, changed or repaired, each once.
type explanations []explained

type explained struct {
	kind  mail.OmissionKind
	words string
}

func (l *explanations) add(kind mail.OmissionKind, words string) {
	if e := (explained{kind, words}); !slices.Contains(*l, e) {
		*l = append(*l, e)
	}
}

func (l explanations) print(t *terminal.Terminal) {
	p := t.Palette()
	for _, e := range l {
		fmt.Fprintf(t.Out, "%s %s: %s\n", p.Red("note:"), e.kind, e.words)
	}
}

func readMail(t *terminal.Terminal, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(t.In)
	}
	return os.ReadFile(name)
}

// explanation is what would become of a mail.
type explanation struct {
	Assumed string          `json:"assumed_sender,omitempty"` // where no sender is set
	Refused string          `json:"refused,omitempty"`        // what the client would be told
	Read    *explainedRead  `json:"read,omitempty"`           // of a mail that would be refused
	Calls   []explainedCall `json:"calls"`
	Notes   []explainedNote `json:"notes"`
}

type explainedRead struct {
	From    string   `json:"from"`
	Subject string   `json:"subject"`
	Files   []string `json:"files"`
}

type explainedCall struct {
	To   string          `json:"to"`
	Body json.RawMessage `json:"body"` // what the API would be sent
}

type explainedNote struct {
	Kind    string `json:"kind"`
	Detail  string `json:"detail"`
	LeftOut bool   `json:"left_out"` // the API does not get it; else it was read or changed so
}

func explainJSON(t *terminal.Terminal, raw []byte, from, assumed string, to []string, m provider.Mapping) error {
	e := explanation{Assumed: assumed, Calls: []explainedCall{}, Notes: []explainedNote{}}
	var told explanations
	m.Explain = told.add
	parsed, err := mail.Map(raw, from, m.Options)
	if err != nil {
		e.Refused = reply.From(intake.Refusal(err)).String()
		if r, ok := errors.AsType[*mail.Refusal](err); ok && r.Read != nil {
			e.Read = &explainedRead{From: r.Read.From.Email, Subject: r.Read.Subject, Files: []string{}}
			for i := range r.Read.Attachments {
				e.Read.Files = append(e.Read.Files, r.Read.Attachments[i].Describe())
			}
			e.note(told)
		}
		return errors.Join(terminal.PrintJSON(t.Out, e), &terminal.ExitError{Code: terminal.ExitFailed, Err: errRefused})
	}
	body, err := m.Format.Encode(parsed)
	if err != nil {
		return err
	}
	for _, rcpt := range to {
		text, err := io.ReadAll(body.Open(rcpt))
		if err != nil {
			return err
		}
		e.Calls = append(e.Calls, explainedCall{rcpt, text})
	}
	e.note(told)
	return terminal.PrintJSON(t.Out, e)
}

func (e *explanation) note(list explanations) {
	for _, n := range list {
		e.Notes = append(e.Notes, explainedNote{n.kind.String(), n.words, n.kind.LeftOut()})
	}
}
