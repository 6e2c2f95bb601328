package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/sendmail"
	"github.com/smtp2rest/smtp2rest/relay"
)

// sendmailConf is read if it is there.
const sendmailConf = "/etc/smtp2rest/sendmail.conf"

// maxSendmail bounds what is read of a mail. What the daemon takes is the
// daemon's to say; this keeps a runaway job from filling the memory.
const maxSendmail = 256 << 20

func sendmailCommand(t *terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "sendmail [-t] [-i] [-f ADDRESS] [-F NAME] [RECIPIENT...]",
		Short: "Take mail as /usr/sbin/sendmail does.",
		Long: `What cron, PHP's mail(), git send-email, mutt and others expect of
/usr/sbin/sendmail: reads a mail from standard input and hands it to the daemon.
A link to this program called sendmail, mailq or newaliases does the same:

  ln -s /usr/local/bin/smtp2rest /usr/sbin/sendmail

  -t          take recipients from To, Cc and Bcc, besides those named
  -i, -oi     a line with a dot alone does not end the mail
  -f ADDRESS  the sender of the envelope; -r is the same
  -F NAME     the sender's full name, where From is missing
  -bs         speak SMTP on standard input and output
  -bp         print the queue, as mailq
  -bi         check the aliases, as newaliases
  -q          try now what waits in the queue
  -v          show the dialogue
  -C FILE     settings, instead of ` + sendmailConf + `

Options of sendmail that make no difference here are ignored. From, Date and
Message-ID are added where they are missing; Bcc is taken out. Either all
recipients are accepted or nothing is sent.

The daemon is looked for at the address in the environment variable
SMTP2REST_SMTP, else in the settings ("server = 127.0.0.1:2525" or the path of a
socket; "domain = web1.example.com" for senders without one), else at
` + sendmail.DefaultServer + `.

The exit code is one of sysexits(3): 0 when the daemon took the mail, 75 when it
is away or says "later" and nothing was taken, 64 for a wrong command line, 65
for a wrong mail, 67 for a recipient that does not exist, 77 for one that is not
allowed or wants no mail, 69 for other refusals.`,
		Example: examples(
			"smtp2rest sendmail -t < mail.eml",
			"smtp2rest sendmail -f app@mail.example.com bob@example.net < mail.eml",
		),
	}
	c.DisableFlagParsing = true // its options are those of sendmail
	c.Long += noJSON("what sendmail prints and its exit codes are what programs have always expected")
	c.RunE = func(cmd *cobra.Command, args []string) error { return runSendmail(cmd, t, args) }
	return c
}

// calledAs are the arguments of a program that was called by another name.
func calledAs(argv []string) []string {
	if len(argv) == 0 {
		return nil
	}
	switch filepath.Base(argv[0]) {
	case "sendmail":
		return append([]string{"sendmail"}, argv[1:]...)
	case "mailq":
		return append([]string{"sendmail", "-bp"}, argv[1:]...)
	case "newaliases":
		return append([]string{"sendmail", "-bi"}, argv[1:]...)
	}
	return argv[1:]
}

func runSendmail(cmd *cobra.Command, t *terminal, args []string) error {
	ctx := cmd.Context()
	c, err := sendmail.Parse(args)
	if err != nil {
		return err
	}
	switch c.Mode {
	case sendmail.Help:
		return cmd.Help()
	case sendmail.List:
		return asSendmail(run(ctx, t, []string{"queue", "list"}))
	case sendmail.Flush:
		return asSendmail(run(ctx, t, []string{"queue", "flush"}))
	case sendmail.Aliases:
		return checkAliases(t, c)
	}
	settings, err := sendmailSettings(t, c.Settings)
	if err != nil {
		return err
	}
	if c.Mode == sendmail.Speak {
		return speak(ctx, t, settings.Server)
	}
	raw, err := io.ReadAll(io.LimitReader(t.in, maxSendmail+1))
	switch {
	case err != nil:
		return sendmail.Errorf(sendmail.IOErr, "cannot read the mail: %s", err)
	case len(raw) > maxSendmail:
		return sendmail.Errorf(sendmail.DataErr, "the mail is larger than 256 MiB")
	}
	m, err := sendmail.Compose(c, raw, local(settings))
	if err != nil {
		return err
	}
	return submit(ctx, t, settings.Server, m, c.Verbose)
}

// asSendmail turns the exit code of a command of ours into sendmail's. It has
// said already what is wrong.
func asSendmail(code int) error {
	switch code {
	case exitOK:
		return nil
	case exitConfig:
		return sendmail.Errorf(sendmail.Config, "")
	default:
		return sendmail.Errorf(sendmail.Unavailable, "")
	}
}

// sendmailSettings are in a file that must be there if it was named.
func sendmailSettings(t *terminal, path string) (sendmail.Settings, error) {
	named := path != ""
	if !named {
		path = sendmailConf
	}
	text, err := os.ReadFile(path)
	if err != nil && (named || !errors.Is(err, fs.ErrNotExist)) {
		return sendmail.Settings{}, sendmail.Errorf(sendmail.Config, "%s", err)
	}
	s, err := sendmail.ParseSettings(string(text))
	if err != nil {
		return s, sendmail.Errorf(sendmail.Config, "%s: %s", path, err)
	}
	if server, _ := t.env("SMTP2REST_SMTP"); server != "" {
		s.Server = server
	}
	return s, nil
}

// local is who calls, where and when. The environment is not asked for the
// name: the user behind the process is who sends.
func local(s sendmail.Settings) sendmail.Local {
	now := time.Now()
	l := sendmail.Local{User: "uid" + strconv.Itoa(os.Getuid()), Domain: s.Domain, Now: now, ID: relay.NewID(now)}
	if u, err := user.Current(); err == nil {
		l.User = u.Username
		// passwd(5): an ampersand in the full name stands for the login name.
		l.Name = strings.ReplaceAll(u.Name, "&", capital(u.Username))
	}
	if l.Domain == "" {
		name, _ := os.Hostname() // none is no domain
		l.Domain = sendmail.Domain(name)
	}
	return l
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// sendmailFailed says on one line what went wrong; "" was said before.
func sendmailFailed(t *terminal, err *sendmail.Error) int {
	if err.Text != "" {
		fmt.Fprintf(t.err, "sendmail: %s\n", printable(err.Text))
	}
	return err.Code
}
