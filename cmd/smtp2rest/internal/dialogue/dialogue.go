// Package dialogue is a small SMTP client that remembers what was said, for the
// commands that show it: send, demo and sendmail -v.
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

// Dialogue is one SMTP transaction as it went over the wire.
type Dialogue struct {
	lines []spoken
	Took  time.Duration
	final *smtp.SMTPError   // the last refusal; nil when all was taken
	rcpts map[string]string // recipients that were refused at RCPT, and how
}

// spoken is one line of either side.
type spoken struct {
	client bool
	text   string
}

// Envelope is what a dialogue hands over.
type Envelope struct {
	From string
	To   []string
	Data []byte
}

// Converse connects to an SMTP server and hands one mail over. An error means
// that the two could not talk; a refusal is part of the dialogue. Recipients
// that are refused are left out, as any client does, and the rest goes on.
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
	client := smtp.NewClient(wire)
	d := &Dialogue{rcpts: map[string]string{}}
	err = d.transact(client, e)
	_ = client.Quit() // all was said before it
	d.lines, d.Took = wire.spoken(), time.Since(start)
	return d, err
}

func (d *Dialogue) transact(client *smtp.Client, e Envelope) error {
	if err := client.Hello("smtp2rest.test"); err != nil {
		return d.refused(err)
	}
	if err := client.Mail(e.From, nil); err != nil {
		return d.refused(err)
	}
	taken := 0
	for _, to := range e.To {
		if err := client.Rcpt(to, nil); err == nil {
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
	w, err := client.Data()
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

// TakenForAll reports whether every recipient gets the mail, as far as the
// server said.
func (d *Dialogue) TakenForAll() bool {
	return d.final == nil && !strings.Contains(d.Reply(), " except <")
}

// Reply is the last thing the server said before QUIT.
func (d *Dialogue) Reply() string {
	last := ""
	for _, l := range d.lines {
		if l.client && l.text == "QUIT" {
			break
		}
		if !l.client {
			last = l.text
		}
	}
	return last
}

// Record returns conn, and remembers what is said on it from now on.
func Record(conn net.Conn) *recorder { return &recorder{Conn: conn} }

// Dialogue is what was said so far.
func (r *recorder) Dialogue() *Dialogue { return &Dialogue{lines: r.spoken()} }

// recorder is a connection that remembers what was said on it.
type recorder struct {
	net.Conn
	mu    sync.Mutex
	said  []spoken
	part  [2]bytes.Buffer // unfinished lines: of the server, of the client
	data  bool            // the client is sending content
	bytes int
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.hear(false, p[:n])
	return n, err
}

func (r *recorder) Write(p []byte) (int, error) {
	r.hear(true, p)
	return r.Conn.Write(p)
}

func (r *recorder) hear(client bool, p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	buf := &r.part[0]
	if client {
		buf = &r.part[1]
	}
	buf.Write(p)
	for {
		line, err := buf.ReadString('\n')
		if err != nil {
			buf.WriteString(line)
			return
		}
		r.line(client, strings.TrimRight(line, "\r\n"))
	}
}

// line keeps a line, of the content only its size.
func (r *recorder) line(client bool, text string) {
	switch {
	case client && r.data && text == ".":
		r.said = append(r.said, spoken{true, fmt.Sprintf("(%d bytes of mail) .", r.bytes)})
		r.data = false
		return
	case client && r.data:
		r.bytes += len(text) + 2
		return
	case !client && strings.HasPrefix(text, "354"):
		r.data, r.bytes = true, 0
	}
	r.said = append(r.said, spoken{client, text})
}

func (r *recorder) spoken() []spoken {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said
}

// WithoutGreeting is the dialogue without what is always the same: it begins
// at MAIL and ends before QUIT.
func (d *Dialogue) WithoutGreeting() *Dialogue {
	short := &Dialogue{Took: d.Took, final: d.final}
	for _, l := range d.lines {
		if l.client && l.text == "QUIT" {
			break
		}
		if len(short.lines) > 0 || l.client && strings.HasPrefix(l.text, "MAIL") {
			short.lines = append(short.lines, l)
		}
	}
	return short
}

// Print writes the dialogue the way protocol people read it.
func (d *Dialogue) Print(w io.Writer, p terminal.Palette) {
	for _, l := range d.lines {
		if l.client {
			fmt.Fprintf(w, "  %s %s\n", p.Dim("C:"), l.text)
			continue
		}
		text := l.text
		if strings.HasPrefix(text, "4") || strings.HasPrefix(text, "5") {
			text = p.Red(text)
		}
		fmt.Fprintf(w, "  %s %s\n", p.Dim("S:"), text)
	}
}

// sent is what came of a mail, for scripts.
type sent struct {
	Taken      bool            `json:"taken"`        // for every recipient
	ID         string          `json:"id,omitempty"` // by which the relay knows the mail
	Reply      string          `json:"reply"`        // the server's last
	Recipients []sentRecipient `json:"recipients"`
	Dialogue   []sentLine      `json:"dialogue"`
	TookMS     int64           `json:"took_ms"`
}

// sentRecipient is what one recipient's mail was answered.
type sentRecipient struct {
	Recipient string `json:"recipient"`
	Taken     bool   `json:"taken"`
	Reply     string `json:"reply"`
}

type sentLine struct {
	From string `json:"from"` // client or server
	Text string `json:"text"`
}

func (d *Dialogue) Sent(recipients []string) sent {
	reply := d.Reply()
	s := sent{Taken: d.TakenForAll(), Reply: reply, TookMS: d.Took.Milliseconds(), Recipients: []sentRecipient{}, Dialogue: []sentLine{}}
	if m := regexp.MustCompile(`^250 2\.0\.0 (?:accepted|queued) (\S+)`).FindStringSubmatch(reply); m != nil {
		s.ID = m[1]
	}
	_, except, _ := strings.Cut(reply, " except ")
	for _, to := range recipients {
		r := sentRecipient{to, strings.HasPrefix(reply, "2") && !strings.Contains(except, "<"+to+">"), reply}
		if refused, ok := d.rcpts[to]; ok {
			r.Taken, r.Reply = false, refused
		}
		s.Recipients = append(s.Recipients, r)
	}
	for _, l := range d.lines {
		from := "server"
		if l.client {
			from = "client"
		}
		s.Dialogue = append(s.Dialogue, sentLine{from, l.text})
	}
	return s
}

// refusalText is a refusal as it went over the wire.
func refusalText(r *smtp.SMTPError) string {
	if r.EnhancedCode == smtp.NoEnhancedCode || r.EnhancedCode == smtp.EnhancedCodeNotSet {
		return fmt.Sprintf("%d %s", r.Code, r.Message)
	}
	return fmt.Sprintf("%d %d.%d.%d %s", r.Code, r.EnhancedCode[0], r.EnhancedCode[1], r.EnhancedCode[2], r.Message)
}
