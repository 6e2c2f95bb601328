// Package sendmail is this program when it is called as sendmail, mailq or
// newaliases. The rules of sendmail(1) are in internal/sendmail; this package reads,
// connects and prints.
package sendmail

import (
	"context"
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

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/sendmail"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/spool"
)

// sendmailConf is read if it is there.
const sendmailConf = "/etc/smtp2rest/sendmail.conf"

// maxSendmail bounds how much of a mail is read, so that a job that never ends does
// not fill the memory. The daemon has a limit of its own.
const maxSendmail = 256 << 20

// Command returns 'smtp2rest sendmail'. other runs another command of this program
// and returns its exit code.
func Command(t *terminal.Terminal, other func(ctx context.Context, args ...string) int) *cobra.Command {
	c := &cobra.Command{
		Use:   "sendmail [-t] [-i] [-f ADDRESS] [-F NAME] [RECIPIENT...]",
		Short: "Take mail as /usr/sbin/sendmail does.",
		Long: `Reads a mail from standard input and hands it to the daemon, as cron, PHP's mail(), git
send-email, mutt and others expect of /usr/sbin/sendmail. A link to this program with the
name sendmail, mailq or newaliases does the same:

  ln -s /usr/local/bin/smtp2rest /usr/sbin/sendmail

  -t          take recipients from To, Cc and Bcc, in addition to those named
  -i, -oi     a line with a dot alone does not end the mail
  -f ADDRESS  the sender of the envelope; -r is the same
  -F NAME     the sender's full name, when From is missing
  -bs         speak SMTP on standard input and output
  -bp         print the queue, as mailq
  -bi         check the aliases, as newaliases
  -q          try now what waits in the queue
  -v          show the dialogue
  -C FILE     settings, instead of ` + sendmailConf + `

Other options of sendmail are ignored. From, Date and Message-ID are added when they are
missing, and Bcc is removed. When one recipient is refused, nothing is sent to anybody.

The address of the daemon is in the environment variable SMTP2REST_SMTP, or else in the
settings, or else it is ` + sendmail.DefaultServer + `. The settings are lines such as:

  server = 127.0.0.1:2525       or the path of a socket
  domain = web1.example.com     for senders without a domain
  spool = /var/spool/smtp2rest  where mail is kept while the daemon is away; or none

When the daemon does not answer, or says "later", the mail is kept in the spool, and the
daemon takes it over when it is back; with -v the id is printed, for 'smtp2rest trace'. The
spool is ` + spool.DefaultDir + ` if that is there, for a daemon of this machine. The
environment variable SMTP2REST_SPOOL names another one; with SMTP2REST_SMTP only that is
used.

The exit code is one of sysexits(3): 0 when the daemon took the mail or it is kept, 75 when
the daemon does not answer or says "later" and the mail cannot be kept, 64 for a wrong
command line, 65 for a wrong mail, 67 for a recipient that does not exist, 77 for a
recipient that is not allowed or suppressed, and 69 for other refusals.`,
		Example: terminal.Examples(
			"smtp2rest sendmail -t < mail.eml",
			"smtp2rest sendmail -f app@mail.example.com bob@example.net < mail.eml",
		),
	}
	c.DisableFlagParsing = true // its options are those of sendmail
	c.Long += terminal.NoJSON("what sendmail prints and its exit codes are what programs have always expected")
	c.RunE = func(cmd *cobra.Command, args []string) error { return runSendmail(cmd, t, args, other) }
	return c
}

// CalledAs returns the arguments for a program that was called by one of those names.
func CalledAs(argv []string) []string {
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

func runSendmail(cmd *cobra.Command, t *terminal.Terminal, args []string, other func(context.Context, ...string) int) error {
	ctx := cmd.Context()
	c, err := sendmail.Parse(args)
	if err != nil {
		return err
	}
	switch c.Mode {
	case sendmail.Help:
		return cmd.Help()
	case sendmail.List:
		return asSendmail(other(ctx, "queue", "list"))
	case sendmail.Flush:
		return asSendmail(other(ctx, "queue", "flush"))
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
	raw, err := io.ReadAll(io.LimitReader(t.In, maxSendmail+1))
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
	return hand(ctx, t, settings, m, c.Verbose)
}

// asSendmail turns the exit code of one of our commands into one of sendmail's. That
// command has printed what is wrong.
func asSendmail(code int) error {
	switch code {
	case terminal.ExitOK:
		return nil
	case terminal.ExitConfig:
		return sendmail.Errorf(sendmail.Config, "")
	default:
		return sendmail.Errorf(sendmail.Unavailable, "")
	}
}

// sendmailSettings reads the settings. A file that was named with -C must exist.
func sendmailSettings(t *terminal.Terminal, path string) (sendmail.Settings, error) {
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
	server, _ := t.Env("SMTP2REST_SMTP")
	place, _ := t.Env("SMTP2REST_SPOOL")
	if server != "" {
		s.Server = server
	}
	s.Spool = s.SpoolOf(place, server != "", spool.DefaultDir)
	return s, nil
}

// local says who calls, where and when. The sender is the user of the process,
// whatever the environment says.
func local(s sendmail.Settings) sendmail.Local {
	now := time.Now()
	l := sendmail.Local{User: "uid" + strconv.Itoa(os.Getuid()), Domain: s.Domain, Now: now, ID: relay.NewID(now)}
	if u, err := user.Current(); err == nil {
		l.User = u.Username
		// passwd(5): an ampersand in the full name stands for the login name.
		l.FullName = strings.ReplaceAll(u.Name, "&", capital(u.Username))
	}
	if l.Domain == "" {
		name, _ := os.Hostname() // "" when it is not known
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

// Failed prints an error of sendmail on one line, and returns its exit code. An error
// without a text was printed before.
func Failed(t *terminal.Terminal, err error) (code int, failed bool) {
	failure, failed := errors.AsType[*sendmail.Error](err)
	if !failed {
		return 0, false
	}
	if failure.Text != "" {
		fmt.Fprintf(t.Err, "sendmail: %s\n", terminal.Printable(failure.Text))
	}
	return failure.Code, true
}

// checkAliases is newaliases. There is no database to build, because the daemon reads
// the file itself, but somebody who made a mistake should see it here.
func checkAliases(t *terminal.Terminal, c sendmail.Command) error {
	path := reach.ServiceConfig(t)
	cfg, err := reach.LoadDaemonConfig(t, config.Source{Path: path, FallbackSender: "default-sender@example.com"})
	if err != nil {
		return sendmail.Errorf(sendmail.Config, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	file := cfg.Addresses.AliasFile
	if c.AliasesFile != "" {
		file = c.AliasesFile
	}
	if file == "" && path == "" {
		return sendmail.Errorf(sendmail.Config, "there is no %s, so no aliases were checked; -oAFILE names a file", reach.DaemonConfig)
	}
	if file == "" {
		_, err := fmt.Fprintf(t.Out, "There is no alias_file in the configuration; the aliases in it are good: %d.\n", len(cfg.Addresses.Aliases))
		return err
	}
	text, err := config.ReadAliases(file, nil)
	if err != nil {
		return sendmail.Errorf(sendmail.Config, "%s: %s", file, err)
	}
	table, err := cfg.Addresses.Table(text)
	if err != nil {
		return sendmail.Errorf(sendmail.Config, "%s: %s", file, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	_, err = fmt.Fprintf(t.Out, "%s: all good; aliases: %d.\n", terminal.Printable(file), table.Len())
	return err
}
