// Package dialogue is a small SMTP client that records what both sides say, for the
// commands that print it: send, demo and sendmail -v.
package dialogue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
)

// A Dialogue is one SMTP transaction as it went over the wire.
type Dialogue struct {
	lines []line
	Took  time.Duration
	final *smtp.SMTPError   // the last refusal; nil if there was none
	rcpts map[string]string // the replies to recipients that were refused at RCPT
}

// A line is one line of the client or of the server.
type line struct {
	From string `json:"from"` // client or server
	Text string `json:"text"`
}

const client, server = "client", "server"

// An Envelope is the mail that a dialogue hands over.
type Envelope struct {
	From string
	To   []string
	Data []byte
}

// Converse connects to an SMTP server and hands over one mail. It returns an error if
// the two could not talk; a refusal is part of the dialogue. If the server refuses a
// recipient, the others still get the mail, as with any client.
func Converse(ctx context.Context, address string, e Envelope) (*Dialogue, error) {
	start := time.Now()
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("no SMTP server answers at %s; is 'smtp2rest serve' running? (%w)", address, err)
	}
	defer func() { _ = conn.Close() }() // after QUIT there is nothing left to lose
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	wire := Record(conn)
	c := smtp.NewClient(wire)
	d := &Dialogue{rcpts: map[string]string{}}
	err = d.transact(c, e)
	_ = c.Quit() // all was said before it
	d.lines, d.Took = wire.all(), time.Since(start)
	return d, err
}

func (d *Dialogue) transact(c *smtp.Client, e Envelope) error {
	if err := c.Hello("smtp2rest.test"); err != nil {
		return d.refused(err)
	}
	if err := c.Mail(e.From, nil); err != nil {
		return d.refused(err)
	}
	taken := 0
	for _, to := range e.To {
		if err := c.Rcpt(to, nil); err == nil {
			taken++
		} else if err := d.refused(err); err != nil {
			return err
		} else {
			d.rcpts[to] = refusalText(d.final)
		}
	}
	if taken == 0 {
		return nil
	}
	w, err := c.Data()
	if err != nil {
		return d.refused(err)
	}
	if _, err := w.Write(e.Data); err != nil {
		return err
	}
	return d.refused(w.Close())
}

// refused keeps a refusal and returns any other error.
func (d *Dialogue) refused(err error) error {
	if errors.As(err, &d.final) {
		return nil
	}
	return err
}

// TakenForAll reports whether the server has taken the mail for every recipient.
func (d *Dialogue) TakenForAll() bool {
	return d.final == nil && !strings.Contains(d.Reply(), " except <")
}

// Reply is the last thing the server said before QUIT.
func (d *Dialogue) Reply() string {
	last := ""
	for _, l := range d.lines {
		if l == (line{client, "QUIT"}) {
			break
		}
		if l.From == server {
			last = l.Text
		}
	}
	return last
}

// A Recorder is a connection that records what is said on it.
type Recorder struct {
	net.Conn
	mu     sync.Mutex
	lines  []line
	client bytes.Buffer // the client's unfinished line
	server bytes.Buffer // the server's
	data   bool         // the client is sending content
	bytes  int
}

// Record returns conn as a connection that records from now on.
func Record(conn net.Conn) *Recorder { return &Recorder{Conn: conn} }

// Dialogue returns what was said so far.
func (r *Recorder) Dialogue() *Dialogue { return &Dialogue{lines: r.all()} }

func (r *Recorder) all() []line {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lines
}

// Read records what the server says.
func (r *Recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.record(server, &r.server, p[:n])
	return n, err
}

// Write records what the client says.
func (r *Recorder) Write(p []byte) (int, error) {
	r.record(client, &r.client, p)
	return r.Conn.Write(p)
}

func (r *Recorder) record(from string, unfinished *bytes.Buffer, p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	unfinished.Write(p)
	for {
		text, err := unfinished.ReadString('\n')
		if err != nil {
			unfinished.WriteString(text)
			return
		}
		r.add(line{from, strings.TrimRight(text, "\r\n")})
	}
}

// add keeps a line, and only the size of the content.
func (r *Recorder) add(l line) {
	switch {
	case r.data && l == (line{client, "."}):
		l.Text = fmt.Sprintf("(%d bytes of mail) .", r.bytes)
		r.data = false
	case r.data && l.From == client:
		r.bytes += len(l.Text) + 2
		return
	case l.From == server && strings.HasPrefix(l.Text, "354"):
		r.data, r.bytes = true, 0
	}
	r.lines = append(r.lines, l)
}

// WithoutGreeting returns the dialogue from MAIL to before QUIT: the rest is always the
// same.
func (d *Dialogue) WithoutGreeting() *Dialogue {
	short := &Dialogue{Took: d.Took, final: d.final}
	for _, l := range d.lines {
		if l == (line{client, "QUIT"}) {
			break
		}
		if len(short.lines) > 0 || l.From == client && strings.HasPrefix(l.Text, "MAIL") {
			short.lines = append(short.lines, l)
		}
	}
	return short
}

// Print writes the dialogue with C: and S: before the lines.
func (d *Dialogue) Print(w io.Writer, p terminal.Palette) {
	for _, l := range d.lines {
		if l.From == client {
			fmt.Fprintf(w, "  %s %s\n", p.Dim("C:"), l.Text)
			continue
		}
		text := l.Text
		if strings.HasPrefix(text, "4") || strings.HasPrefix(text, "5") {
			text = p.Red(text)
		}
		fmt.Fprintf(w, "  %s %s\n", p.Dim("S:"), text)
	}
}

// Sent is the result of a mail, for scripts.
type Sent struct {
	Taken      bool            `json:"taken"`        // for every recipient
	ID         string          `json:"id,omitempty"` // by which the relay knows the mail
	Reply      string          `json:"reply"`        // the server's last
	Recipients []SentRecipient `json:"recipients"`
	Dialogue   []line          `json:"dialogue"`
	TookMS     int64           `json:"took_ms"`
}

// SentRecipient is the result for one recipient.
type SentRecipient struct {
	Recipient string `json:"recipient"`
	Taken     bool   `json:"taken"`
	Reply     string `json:"reply"`
}

// Sent returns the result for a mail to these recipients.
func (d *Dialogue) Sent(recipients []string) Sent {
	reply := d.Reply()
	s := Sent{
		Taken: d.TakenForAll(), Reply: reply, TookMS: d.Took.Milliseconds(),
		Recipients: []SentRecipient{}, Dialogue: append([]line{}, d.lines...),
	}
	if m := regexp.MustCompile(`^250 2\.0\.0 (?:accepted|queued) (\S+)`).FindStringSubmatch(reply); m != nil {
		s.ID = m[1]
	}
	_, except, _ := strings.Cut(reply, " except ")
	for _, to := range recipients {
		r := SentRecipient{to, strings.HasPrefix(reply, "2") && !strings.Contains(except, "<"+to+">"), reply}
		if refused, ok := d.rcpts[to]; ok {
			r.Taken, r.Reply = false, refused
		}
		s.Recipients = append(s.Recipients, r)
	}
	return s
}

// refusalText returns a refusal as it went over the wire.
func refusalText(r *smtp.SMTPError) string {
	if r.EnhancedCode == smtp.NoEnhancedCode || r.EnhancedCode == smtp.EnhancedCodeNotSet {
		return fmt.Sprintf("%d %s", r.Code, r.Message)
	}
	return fmt.Sprintf("%d %d.%d.%d %s", r.Code, r.EnhancedCode[0], r.EnhancedCode[1], r.EnhancedCode[2], r.Message)
}
