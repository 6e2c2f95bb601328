package sendmail

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-smtp"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/dialogue"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/sendmail"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/spool"
)

// connectTime is how long a connection to the daemon may take.
const connectTime = 30 * time.Second

// dialDaemon connects to the daemon. The connection is closed when ctx ends; done must
// be called.
func dialDaemon(ctx context.Context, server string) (conn net.Conn, done func(), err error) {
	network, address, err := sendmail.ServerAddress(server)
	if err != nil {
		return nil, nil, err
	}
	conn, err = (&net.Dialer{Timeout: connectTime}).DialContext(ctx, network, address)
	if err != nil {
		return nil, nil, sendmail.Errorf(sendmail.TempFail, "smtp2rest does not answer at %s; nothing was sent, try again later: %s", server, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return conn, func() { stop(); _ = conn.Close() }, nil
}

// greetTime is how long the daemon may take to greet when the mail can be kept instead. A
// daemon that is being started by systemd's socket has that long.
const greetTime = 30 * time.Second

// hand hands a mail over, or keeps it until the daemon is back.
func hand(ctx context.Context, t *terminal.Terminal, settings sendmail.Settings, m sendmail.Mail, verbose bool) error {
	left, err := submit(ctx, t, settings, m, verbose)
	later, ok := errors.AsType[*sendmail.Error](err)
	// A mail whose sender was interrupted is not sent.
	if !ok || later.Code != sendmail.TempFail || settings.Spool == "" || ctx.Err() != nil {
		return err
	}
	id, kept := spool.Keep(settings.Spool, spool.Mail{Host: m.Host, From: m.From, Recipients: left, Data: m.Data}, time.Now())
	switch {
	case errors.Is(kept, fs.ErrNotExist) && settings.Spool == spool.DefaultDir, errors.Is(kept, errors.ErrUnsupported):
		return err // it is not made here
	case kept != nil:
		return sendmail.Errorf(sendmail.TempFail, "%s; it cannot be kept either: %s", later.Text, kept)
	}
	if verbose {
		_, err = fmt.Fprintf(t.Out, "%s\nThe mail is kept in %s with the id %s.\n", terminal.Printable(later.Text), terminal.Printable(settings.Spool), id)
		return err
	}
	return nil
}

// submit hands a mail over for all recipients, and returns those who did not get it. When
// one of them is refused, nobody gets it, because the caller learns no more than one exit
// code.
func submit(ctx context.Context, t *terminal.Terminal, settings sendmail.Settings, m sendmail.Mail, verbose bool) (left []string, err error) {
	conn, done, err := dialDaemon(ctx, settings.Server)
	if err != nil {
		return m.Recipients, err
	}
	defer done()
	wire := dialogue.Record(conn)
	s := submission{client: smtp.NewClient(wire), mail: m, hasSpool: settings.Spool != ""}
	err = s.run()
	if verbose {
		wire.Dialogue().Print(t.Out, t.Palette())
	}
	return m.Recipients[len(s.sent):], s.exitError(err)
}

// submission is one mail on its way, in one or more transactions.
type submission struct {
	client *smtp.Client
	mail   sendmail.Mail
	sent   []string // recipients that have it
	doing  string   // for the error

	hasSpool bool // the daemon need not be waited for
}

func (s *submission) run() error {
	s.doing = "greeting"
	usual := s.client.CommandTimeout
	if s.hasSpool {
		s.client.CommandTimeout = greetTime
	}
	err := s.client.Hello(s.mail.Host)
	s.client.CommandTimeout = usual
	if err != nil {
		return err
	}
	for rest := s.mail.Recipients; len(rest) > 0; {
		n, err := s.transact(rest)
		if err != nil {
			return err
		}
		s.sent = append(s.sent, rest[:n]...)
		rest = rest[n:]
	}
	_ = s.client.Quit() // the mail is taken
	return nil
}

// transact sends the mail to as many recipients as the daemon takes at once, and
// returns their number.
func (s *submission) transact(rest []string) (int, error) {
	s.doing = "sender <" + s.mail.From + ">"
	ascii := isASCII(s.mail.From + strings.Join(rest, ""))
	if extended, _ := s.client.Extension("SMTPUTF8"); !ascii && !extended {
		return 0, sendmail.Errorf(sendmail.Unavailable, "an address is not ASCII, and the server takes only that")
	}
	if err := s.client.Mail(s.mail.From, &smtp.MailOptions{Size: int64(len(s.mail.Data)), UTF8: !ascii}); err != nil {
		return 0, err
	}
	n := 0
	for _, to := range rest {
		s.doing = "recipient <" + to + ">"
		err := s.client.Rcpt(to, nil)
		if n > 0 && isFull(err) {
			break // RFC 5321 section 4.5.3.1.10: the rest is for the next transaction
		}
		if err != nil {
			return 0, err
		}
		n++
	}
	s.doing = "mail"
	w, err := s.client.Data()
	if err != nil {
		return 0, err
	}
	if _, err := w.Write(s.mail.Data); err != nil {
		return 0, err
	}
	return n, w.Close()
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// isFull recognises "too many recipients". Some servers still say 552 for it.
func isFull(err error) bool {
	var r *smtp.SMTPError
	return errors.As(err, &r) && (r.Code == 452 || r.Code == 552) && r.EnhancedCode != smtp.EnhancedCode{4, 3, 1}
}

// exitError returns err with the exit code for it.
func (s *submission) exitError(err error) error {
	var r *smtp.SMTPError
	var ours *sendmail.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ours):
		return ours
	case errors.As(err, &r):
		code := sendmail.ExitCode(r.Code, [3]int(r.EnhancedCode))
		return sendmail.Errorf(code, "%s: %s%s", s.doing, replyText(r), s.already())
	default:
		return sendmail.Errorf(sendmail.TempFail, "%s: the daemon does not go on, try again later: %s%s", s.doing, err, s.already())
	}
}

// already names the recipients of earlier transactions, which cannot be undone.
func (s *submission) already() string {
	if len(s.sent) == 0 {
		return ""
	}
	return " (it was sent to " + strings.Join(s.sent, ", ") + ")"
}

func replyText(r *smtp.SMTPError) string {
	text := strings.Join(strings.Fields(r.Message), " ")
	if e := r.EnhancedCode; e[0] > 0 {
		text = fmt.Sprintf("%d.%d.%d %s", e[0], e[1], e[2], text)
	}
	return fmt.Sprintf("%d %s", r.Code, text)
}

// speak connects standard input and output to the daemon, and ends when the daemon
// closes the connection. The goroutine that reads standard input may still wait then;
// it ends with the process.
func speak(ctx context.Context, t *terminal.Terminal, server string) error {
	conn, done, err := dialDaemon(ctx, server)
	if err != nil {
		var failed *sendmail.Error
		if errors.As(err, &failed) && failed.Code == sendmail.TempFail {
			fmt.Fprint(t.Out, "421 4.3.2 smtp2rest is not running, try again later\r\n")
		}
		return err
	}
	defer done()
	daemon, said := bufio.NewReader(conn), bufio.NewReader(t.In)
	if err := copyReply(t.Out, daemon); err != nil {
		return sendmail.Errorf(sendmail.TempFail, "the connection to smtp2rest broke: %s", err)
	}
	greeted := make(chan struct{})
	go func() {
		// Programs write all their commands into the pipe at once. The daemon hangs up
		// on a client that does not wait for the greeting and for the reply to EHLO.
		if first, err := said.ReadString('\n'); err == nil || first != "" {
			_, _ = io.WriteString(conn, first)
			<-greeted
		}
		_, _ = io.Copy(conn, said) // a broken connection also ends the other direction
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	err = copyReply(t.Out, daemon)
	close(greeted)
	if err == nil {
		_, err = io.Copy(t.Out, daemon)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return sendmail.Errorf(sendmail.TempFail, "the connection to smtp2rest broke: %s", err)
	}
	return nil
}

// copyReply copies one reply of one or more lines.
func copyReply(to io.Writer, from *bufio.Reader) error {
	for {
		line, err := from.ReadString('\n')
		if _, wrote := io.WriteString(to, line); err == nil {
			err = wrote
		}
		if err != nil || len(line) < 4 || line[3] != '-' {
			return err
		}
	}
}
