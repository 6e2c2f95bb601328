package serve

import (
	"errors"
	"fmt"
	"mime"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/dialogue"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
)

// SendCommand returns 'smtp2rest send'.
func SendCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "send",
		Short: "Send one test mail to a running relay and print the dialogue.",
		Long: `Connects to an SMTP server, sends one mail and prints the dialogue. It exits 0 if the
server accepted the mail for every recipient, and 1 otherwise.`,
		Example: terminal.Examples(
			"smtp2rest send --to bob@example.net",
			"smtp2rest send --to bob@example.net --json | jq -r .id",
			"smtp2rest send --server relay.internal:25 --from app@example.com --to bob@example.net,eve@example.net",
		),
		Args: terminal.NoArgs("name the recipients with --to"),
	}
	fs := c.Flags()
	server := fs.String("server", "127.0.0.1:2525", "`address` of the relay")
	from := fs.String("from", "smtp2rest@localhost", "envelope `sender` and From")
	to := fs.String("to", "", "`recipients`, separated by commas")
	subject := fs.String("subject", "A test from smtp2rest", "`subject` of the mail")
	text := fs.String("text", "This mail was sent by 'smtp2rest send'.", "`text` of the mail")
	asJSON := terminal.DeclareJSON(fs)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		recipients := terminal.SplitList(*to)
		if len(recipients) == 0 {
			return terminal.Usagef("name the recipients with --to")
		}
		d, err := dialogue.Converse(cmd.Context(), withPort(*server), dialogue.Envelope{
			From: *from, To: recipients, Data: testMail(*from, recipients, *subject, *text),
		})
		if d != nil && *asJSON {
			err = errors.Join(err, terminal.PrintJSON(t.Out, d.Sent(recipients)))
		} else if d != nil {
			d.Print(t.Out, t.Palette())
		}
		if err == nil && !d.TakenForAll() { // d is not nil, because err is nil
			err = errors.New("not every recipient was accepted: " + d.Reply())
		}
		return err
	}
	return c
}

// withPort adds the relay's default port to an address without one.
func withPort(server string) string {
	if _, _, err := net.SplitHostPort(server); err == nil {
		return server
	}
	return net.JoinHostPort(strings.Trim(server, "[]"), "2525")
}

// testMail writes a small plain-text mail.
func testMail(from string, to []string, subject, text string) []byte {
	lines := []string{
		"From: <" + from + ">",
		"To: <" + strings.Join(to, ">, <") + ">",
		"Subject: " + mime.QEncoding.Encode("utf-8", subject),
		"Date: " + time.Now().Format(time.RFC1123Z),
		fmt.Sprintf("Message-ID: <%d@smtp2rest.test>", time.Now().UnixNano()),
		"MIME-Version: 1.0",
		"Content-Type: text/plain; charset=utf-8",
		"Content-Transfer-Encoding: 8bit",
		"",
		text,
		"",
	}
	return []byte(strings.Join(lines, "\r\n"))
}
