package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/relay/app"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/intake"
	"github.com/smtp2rest/smtp2rest/relay/payload"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

func explainCommand(t *terminal) *cobra.Command {
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
		Example: examples("smtp2rest explain mail.eml --to bob@example.net", "smtp2rest explain - < mail.eml", "smtp2rest explain mail.eml --json | jq .calls[0].body"),
	}
	fs := c.Flags()
	path := fs.String("config", "", "TOML `file` with settings")
	from := fs.String("from", "", "envelope `sender`")
	to := fs.String("to", "recipient@example.net", "`recipients`, separated by commas")
	var asJSON bool
	declareJSON(fs, &asJSON)
	c.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usagef("name one file, or - for standard input")
		}
		raw, err := readMail(t, args[0])
		if err != nil {
			return err
		}
		cfg, err := loadForeign(t, config.Source{Path: *path, FallbackSender: "default-sender@example.com"})
		if err != nil {
			return err
		}
		assumed := ""
		if setting(cfg, "sender.email").Origin == "default" {
			assumed = cfg.Sender.Email
			if !asJSON {
				fmt.Fprintf(t.err, "note: no sender is set, so %s stands for it; set FROM_EMAIL or name --config, as for 'serve'\n", assumed)
			}
		}
		if asJSON {
			return explainJSON(t, raw, *from, assumed, splitList(*to), app.Mapping(cfg))
		}
		return explain(t, raw, *from, splitList(*to), app.Mapping(cfg))
	}
	return c
}

// errRefused is why explaining a mail that would be refused fails.
var errRefused = errors.New("this mail would be refused")

func explain(t *terminal, raw []byte, from string, to []string, o payload.Options) error {
	var told explanations
	o.Explain = told.add
	mail, err := payload.Map(raw, from, o)
	if err != nil {
		fmt.Fprintf(t.out, "refused: %s\n", reply.From(intake.Refusal(err)))
		explainRefused(t, err)
		told.print(t)
		return errRefused
	}
	body, err := mail.Encode()
	if err != nil {
		return err
	}
	p := palette{t.color}
	for _, rcpt := range to {
		fmt.Fprintln(t.out, p.bold("to <"+rcpt+">"))
		text, err := prettyJSON(body.Open(rcpt))
		if err != nil {
			return err
		}
		fmt.Fprintln(t.out, text)
	}
	told.print(t)
	return nil
}

// explainRefused prints what was read of a mail that is not taken: whoever
// asks why wants to see which mail it is, and everything that is in the way.
func explainRefused(t *terminal, err error) {
	var r *payload.Refusal
	if !errors.As(err, &r) || r.Read == nil {
		return
	}
	fmt.Fprintf(t.out, "from: %s\nsubject: %s\n", strings.TrimSpace(r.Read.From.Name+" <"+r.Read.From.Email+">"), r.Read.Subject)
	for i := range r.Read.Attachments {
		fmt.Fprintf(t.out, "file: %s\n", r.Read.Attachments[i].Describe())
	}
}

// explanations are what was left out of a mail, changed or repaired, each once.
type explanations []explained

type explained struct {
	kind  payload.OmissionKind
	words string
}

func (l *explanations) add(kind payload.OmissionKind, words string) {
	if e := (explained{kind, words}); !slices.Contains(*l, e) {
		*l = append(*l, e)
	}
}

func (l explanations) print(t *terminal) {
	p := palette{t.color}
	for _, e := range l {
		fmt.Fprintf(t.out, "%s %s: %s\n", p.red("note:"), e.kind, e.words)
	}
}

func readMail(t *terminal, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(t.in)
	}
	return os.ReadFile(name)
}
