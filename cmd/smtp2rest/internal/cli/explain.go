package cli

import (
	"bytes"
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
	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/app"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/intake"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/smtpd"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

func explainCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "explain mail.eml",
		Short: "Print what the API would be sent for a mail, without sending it.",
		Long: `Maps a mail as the relay would and prints the JSON of each call, and what was left out,
changed or repaired. For a mail that would be refused, it prints the reply to the SMTP
client and what it could read of the mail, and exits 1. "-" reads standard input.

The envelope decides who gets a mail, so To and Cc in the file do not matter: name the
recipients with --to. They are taken as they are written. --user, --listener and
--account say whose mail it is, where they have settings of their own; without --account
the account is the one that the relay would choose. It does not look at the rules
for who may send what, nor at aliases, suppressions and limits. To test those, use
'smtp2rest send', which asks the relay itself.`,
		Example: terminal.Examples("smtp2rest explain mail.eml --to bob@example.net", "smtp2rest explain - < mail.eml", "smtp2rest explain mail.eml --config smtp2rest.toml --user app", "smtp2rest explain mail.eml --json | jq .calls[0].body"),
		Args:    terminal.Args(1, 1, "name one file, or - for standard input"),
	}
	fs := c.Flags()
	path := fs.String("config", "", "TOML `file` with settings")
	from := fs.String("from", "", "envelope `sender`")
	to := fs.String("to", "recipient@example.net", "`recipients`, separated by commas")
	var whose mailOwner
	fs.StringVar(&whose.user, "user", "", "`name` of the user who sends it")
	fs.StringVar(&whose.listener, "listener", "", "`address` of the listener at which it comes in, as it is configured")
	fs.StringVar(&whose.account, "account", "", "`name` of the account that sends it")
	asJSON := terminal.DeclareJSON(fs)
	c.RunE = func(_ *cobra.Command, args []string) error {
		raw, err := readMail(t, args[0])
		if err != nil {
			return err
		}
		cfg, err := reach.LoadDaemonConfig(t, config.Source{Path: *path, FallbackSender: "default-sender@example.com"})
		if err != nil {
			return err
		}
		mapping, account, err := whose.mapping(cfg, *from, raw)
		if err != nil {
			return err
		}
		e, err := explain(raw, *from, terminal.SplitList(*to), mapping)
		if err != nil {
			return err
		}
		if len(cfg.Accounts) > 0 {
			e.Account = relay.AccountName(account)
		}
		if reach.Origin(cfg, "sender.email") == "default" {
			e.Assumed = cfg.Sender.Email
		}
		if *asJSON {
			err = terminal.PrintJSON(t.Out, e)
		} else {
			err = e.print(t)
		}
		if err == nil && e.Refused != "" {
			err = errors.New("this mail would be refused")
		}
		return err
	}
	return c
}

// mailOwner says whose mail it is.
type mailOwner struct{ user, listener, account string }

// mapping returns how the relay maps the owner's mail, and the account that sends it.
func (o mailOwner) mapping(cfg *config.Config, from string, raw []byte) (m provider.Mapping, account string, err error) {
	client := relay.Client{User: o.user}
	smtp := smtpd.Client{User: o.user}
	if o.user != "" && !slices.ContainsFunc(cfg.Users, func(u config.User) bool { return u.Name == o.user }) {
		return m, "", fmt.Errorf("there is no user %s in the configuration", settings.Show(o.user))
	}
	if o.listener != "" {
		i := slices.IndexFunc(cfg.Listeners, func(l smtpd.Listener) bool { return l.Address == o.listener })
		if i < 0 {
			return m, "", fmt.Errorf("there is no listener at %s in the configuration", settings.Show(o.listener))
		}
		l := cfg.Listeners[i]
		client.Redirect, client.Fields = l.RedirectAll, mail.FormatValues(mail.Values(l.Fields))
		smtp.Account = l.Account
	}
	if account, err = knownAccount(cfg, o.account); err != nil {
		return m, "", err
	}
	if o.account == "" {
		account = app.AccountFor(cfg, smtp, from, raw)
	}
	m = app.Mapping(cfg, account)
	m.Options = m.ForClient(client)
	return m, account, nil
}

func readMail(t *terminal.Terminal, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(t.In)
	}
	return os.ReadFile(name)
}

// explanation is what the relay would do with a mail.
type explanation struct {
	Assumed   string              `json:"assumed_sender,omitempty"` // when no sender is set
	Account   string              `json:"account,omitempty"`        // which sends it, where there are several
	Refused   string              `json:"refused,omitempty"`        // the reply to the client
	Read      *explainedRead      `json:"read,omitempty"`           // of a mail that would be refused
	Calls     []explainedCall     `json:"calls"`
	Omissions []explainedOmission `json:"omissions"`
}

// explainedRead says which mail it is.
type explainedRead struct {
	From    relay.Address `json:"-"`
	Email   string        `json:"from"`
	Subject string        `json:"subject"`
	Files   []string      `json:"files"`
}

type explainedCall struct {
	To   string          `json:"to"`
	Body json.RawMessage `json:"body"` // what the API would be sent
}

type explainedOmission struct {
	Kind    string `json:"kind"`
	Detail  string `json:"detail"`
	LeftOut bool   `json:"left_out"` // false: it was changed or repaired
}

func explain(raw []byte, from string, to []string, m provider.Mapping) (explanation, error) {
	e := explanation{Calls: []explainedCall{}, Omissions: []explainedOmission{}}
	m.Explain = func(kind mail.OmissionKind, detail string) {
		if o := (explainedOmission{kind.String(), detail, kind.LeftOut()}); !slices.Contains(e.Omissions, o) {
			e.Omissions = append(e.Omissions, o)
		}
	}
	parsed, err := mail.Map(raw, from, m.Options)
	if err != nil {
		e.Refused = reply.From(intake.Refusal(err)).String()
		if r, ok := errors.AsType[*mail.Refusal](err); ok && r.Read != nil {
			e.Read = &explainedRead{From: r.Read.From, Email: r.Read.From.Email, Subject: r.Read.Subject, Files: []string{}}
			for i := range r.Read.Attachments {
				e.Read.Files = append(e.Read.Files, r.Read.Attachments[i].Describe())
			}
		}
		return e, nil
	}
	body, err := m.Format.Encode(parsed)
	if err != nil {
		return e, err
	}
	for _, rcpt := range to {
		text, err := io.ReadAll(body.Open(rcpt))
		if err != nil {
			return e, err
		}
		e.Calls = append(e.Calls, explainedCall{rcpt, text})
	}
	return e, nil
}

func (e explanation) print(t *terminal.Terminal) error {
	p := t.Palette()
	if e.Assumed != "" {
		fmt.Fprintf(t.Err, "No sender is set, so %s stands for it; set FROM_EMAIL or name --config, as for 'serve'.\n", e.Assumed)
	}
	if e.Account != "" {
		fmt.Fprintf(t.Out, "account: %s\n", e.Account)
	}
	if e.Refused != "" {
		fmt.Fprintf(t.Out, "refused: %s\n", e.Refused)
	}
	if e.Read != nil {
		fmt.Fprintf(t.Out, "from: %s\nsubject: %s\n", strings.TrimSpace(e.Read.From.Name+" <"+e.Read.From.Email+">"), e.Read.Subject)
		for _, file := range e.Read.Files {
			fmt.Fprintf(t.Out, "file: %s\n", file)
		}
	}
	for _, c := range e.Calls {
		text, err := terminal.PrettyJSON(bytes.NewReader(c.Body))
		if err != nil {
			return err
		}
		fmt.Fprintf(t.Out, "%s\n%s\n", p.Bold("to <"+c.To+">"), text)
	}
	for _, o := range e.Omissions {
		what := "changed:"
		if o.LeftOut {
			what = "left out:"
		}
		fmt.Fprintf(t.Out, "%s %s: %s\n", p.Red(what), o.Kind, o.Detail)
	}
	return nil
}
