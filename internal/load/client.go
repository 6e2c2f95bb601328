package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// replyTime bounds one exchange: a server that does not answer must not end the run.
const replyTime = 2 * time.Minute

// A refusal is a negative reply: the connection goes on.
type refusal struct{ line string }

func (r *refusal) Error() string { return r.line }

// client is one connection at a time. It writes and reads as little as possible, because
// it shares the machine with the server that it measures.
type client struct {
	*Options
	conn  net.Conn
	in    *bufio.Reader
	count int    // mails on this connection
	mail  []byte // a copy of its own, in which the number is written
	out   []byte
	rcpts []byte // the RCPT commands, one a line
}

func newClient(o *Options) *client {
	c := &client{Options: o, mail: bytes.Clone(o.Mail.text)}
	local, domain, _ := strings.Cut(o.To, "@")
	for i := range o.Recipients {
		to := o.To
		if i > 0 {
			to = fmt.Sprintf("%s%d@%s", local, i, domain)
		}
		c.rcpts = fmt.Appendf(c.rcpts, "RCPT TO:<%s>\r\n", to)
	}
	return c
}

// send sends one mail, on a new connection if there is none.
func (c *client) send(ctx context.Context, id uint64) (err error) {
	defer func() {
		if _, told := err.(*refusal); err != nil && !told {
			c.close()
		}
	}()
	if c.conn == nil {
		if err := c.connect(ctx); err != nil {
			return err
		}
	}
	_ = c.conn.SetDeadline(time.Now().Add(replyTime))
	c.Mail.setID(c.mail, id)
	if err := c.transaction(); err != nil {
		return err
	}
	if c.count++; c.count == c.PerConnection {
		c.quit()
	}
	return nil
}

func (c *client) transaction() error {
	envelope := fmt.Appendf(c.out[:0], "MAIL FROM:<%s>\r\n", c.From)
	envelope = append(append(envelope, c.rcpts...), "DATA\r\n"...)
	c.out = envelope
	if c.Pipeline {
		if _, err := c.conn.Write(envelope); err != nil {
			return err
		}
	}
	var refused error
	for len(envelope) > 0 {
		end := bytes.IndexByte(envelope, '\n') + 1
		line := envelope[:end]
		envelope = envelope[end:]
		if refused != nil && !c.Pipeline {
			break
		}
		want := byte('2')
		if len(envelope) == 0 {
			want = '3'
		}
		if !c.Pipeline {
			if _, err := c.conn.Write(line); err != nil {
				return err
			}
		}
		if err := c.expect(want); err != nil {
			if _, told := err.(*refusal); !told {
				return err
			}
			refused = err
		} else if want == '3' && refused != nil {
			return fmt.Errorf("DATA was taken after %w", refused) // some of the recipients would get it
		}
	}
	if refused != nil {
		if err := c.say("RSET", '2'); err != nil {
			return fmt.Errorf("%s, and then RSET: %s", refused, err)
		}
		return refused
	}
	if _, err := c.conn.Write(c.mail); err != nil {
		return err
	}
	return c.expect('2')
}

// connect says hello, and starts TLS.
func (c *client) connect(ctx context.Context) (err error) {
	dialer := net.Dialer{Timeout: replyTime}
	// The end of the run must not cut off a mail that has begun.
	if c.conn, err = dialer.DialContext(context.WithoutCancel(ctx), "tcp", c.Address); err != nil {
		return err
	}
	_ = c.conn.SetDeadline(time.Now().Add(replyTime))
	c.count = 0
	if c.Security == TLS {
		c.conn = c.secured()
	}
	c.in = bufio.NewReader(c.conn)
	if err := c.expect('2'); err != nil {
		return fatal(err)
	}
	if err := c.say("EHLO bench.invalid", '2'); err != nil {
		return fatal(err)
	}
	if c.Security != StartTLS {
		return nil
	}
	if err := c.say("STARTTLS", '2'); err != nil {
		return fatal(err)
	}
	c.conn = c.secured()
	c.in = bufio.NewReader(c.conn)
	return fatal(c.say("EHLO bench.invalid", '2'))
}

// fatal makes an error of a refusal that leaves no way to go on.
func fatal(err error) error {
	if r, told := err.(*refusal); told {
		return fmt.Errorf("connecting: %s", r.line)
	}
	return err
}

func (c *client) secured() net.Conn {
	config := &tls.Config{}
	if c.Certificates != nil {
		config = c.Certificates.Clone()
	}
	if host, _, err := net.SplitHostPort(c.Address); err == nil && config.ServerName == "" {
		config.ServerName = host
	}
	return tls.Client(c.conn, config)
}

func (c *client) say(command string, want byte) error {
	if _, err := io.WriteString(c.conn, command+"\r\n"); err != nil {
		return err
	}
	return c.expect(want)
}

// expect reads one reply, of which the last line counts.
func (c *client) expect(want byte) error {
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		if line[0] != want {
			return &refusal{strings.TrimRight(string(line), "\r\n")}
		}
		return nil
	}
}

// quit ends the connection as the protocol wants it.
func (c *client) quit() {
	if c.conn != nil {
		_ = c.say("QUIT", '2') // the mail was answered; nothing depends on this
		c.close()
	}
}

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}
