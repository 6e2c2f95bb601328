package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// dialogue is one SMTP transaction as it went over the wire.
type dialogue struct {
	lines []spoken
	took  time.Duration
	final *smtp.SMTPError   // the last refusal; nil when all was taken
	rcpts map[string]string // recipients that were refused at RCPT, and how
}

// spoken is one line of either side.
type spoken struct {
	client bool
	text   string
}

// envelope is what a dialogue hands over.
type envelope struct {
	from string
	to   []string
	data []byte
}

// converse connects to an SMTP server and hands one mail over. An error means
// that the two could not talk; a refusal is part of the dialogue. Recipients
// that are refused are left out, as any client does, and the rest goes on.
func converse(ctx context.Context, address string, e envelope) (*dialogue, error) {
	start := time.Now()
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("no SMTP server answers at %s; is 'smtp2rest serve' running? (%w)", address, err)
	}
	defer func() { _ = conn.Close() }() // after QUIT there is nothing left to lose
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	wire := &recorder{Conn: conn}
	client := smtp.NewClient(wire)
	d := &dialogue{rcpts: map[string]string{}}
	err = d.transact(client, e)
	_ = client.Quit() // all was said before it
	d.lines, d.took = wire.spoken(), time.Since(start)
	return d, err
}

func (d *dialogue) transact(client *smtp.Client, e envelope) error {
	if err := client.Hello("smtp2rest.test"); err != nil {
		return d.refused(err)
	}
	if err := client.Mail(e.from, nil); err != nil {
		return d.refused(err)
	}
	taken := 0
	for _, to := range e.to {
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
	if _, err := w.Write(e.data); err != nil {
		return err
	}
	return d.refused(w.Close())
}

// refused keeps a refusal and returns any other error.
func (d *dialogue) refused(err error) error {
	if errors.As(err, &d.final) {
		return nil
	}
	return err
}

// takenForAll reports whether every recipient gets the mail, as far as the
// server said.
func (d *dialogue) takenForAll() bool {
	return d.final == nil && !strings.Contains(d.reply(), " except <")
}

// reply is the last thing the server said before QUIT.
func (d *dialogue) reply() string {
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

// withoutGreeting is the dialogue without what is always the same: it begins
// at MAIL and ends before QUIT.
func (d *dialogue) withoutGreeting() *dialogue {
	short := &dialogue{took: d.took, final: d.final}
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

// print writes the dialogue the way protocol people read it.
func (d *dialogue) print(w io.Writer, p palette) {
	for _, l := range d.lines {
		if l.client {
			fmt.Fprintf(w, "  %s %s\n", p.dim("C:"), l.text)
			continue
		}
		text := l.text
		if strings.HasPrefix(text, "4") || strings.HasPrefix(text, "5") {
			text = p.red(text)
		}
		fmt.Fprintf(w, "  %s %s\n", p.dim("S:"), text)
	}
}

// palette colours text, or leaves it as it is.
type palette struct{ on bool }

func (p palette) paint(code, s string) string {
	if !p.on {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p palette) bold(s string) string  { return p.paint("1", s) }
func (p palette) dim(s string) string   { return p.paint("2", s) }
func (p palette) red(s string) string   { return p.paint("31", s) }
func (p palette) green(s string) string { return p.paint("32", s) }
