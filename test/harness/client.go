package harness

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// Client is a raw SMTP client.
type Client struct {
	Conn net.Conn
	t    *testing.T
	r    *bufio.Reader
}

// Dial connects to a server.
func Dial(t *testing.T, address string) *Client {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, Patience)
	if err != nil {
		t.Fatal(err)
	}
	return NewClient(t, conn)
}

// NewClient uses a connection, and closes it when the test ends.
func NewClient(t *testing.T, conn net.Conn) *Client {
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(Patience))
	return &Client{Conn: conn, t: t, r: bufio.NewReader(conn)}
}

// Do sends lines, each followed by the beginning of the reply to it. An empty line is not
// sent.
func (c *Client) Do(pairs ...string) {
	c.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] != "" {
			if _, err := io.WriteString(c.Conn, pairs[i]+"\r\n"); err != nil {
				c.t.Fatal(err)
			}
		}
		for {
			line, err := c.r.ReadString('\n')
			if err == nil && len(line) > 3 && line[3] == '-' {
				continue
			}
			if err != nil || !strings.HasPrefix(line, pairs[i+1]) {
				c.t.Fatalf("after %q comes %q (%v), want %q", pairs[i], line, err, pairs[i+1])
			}
			break
		}
	}
}

// Say sends one line and returns the first line of its reply.
func (c *Client) Say(line string) string {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, line+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
	reply, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(reply)
}

// Open sends everything before the content of a mail.
func (c *Client) Open(to string) {
	c.t.Helper()
	c.Do("", "220 ", "EHLO client.test", "250 ", "MAIL FROM:<shop@sandbox.example>", "250 ", "RCPT TO:<"+to+">", "250 ", "DATA", "354 ")
}
