package kill

import (
	"bufio"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"net/textproto"
	"regexp"
	"strings"
	"time"
)

// killMail is one mail of the kill tests. Every address in it is its own, so
// that whatever turns up at the provider can be told to belong to it.
type killMail struct {
	id   string
	to   []string
	text string // its id, the sum of the rest, the rest

	sent  bool   // the last byte was written: it may have been taken
	reply string // the final one, "" when none came
}

func (m *killMail) from() string { return killSender(m.id) }

func (m *killMail) kept() bool { return strings.HasPrefix(m.reply, "250 ") }

func killSender(id string) string { return "s-" + id + "@" + killAccountOf(id).domain() }

func killDomain(id string) string { return id + ".example" }

// owed are the addresses that must get something once the mail was taken: its
// recipients, and its sender when a recipient is refused.
func (m *killMail) owed() []string {
	var all []string
	for _, to := range m.to {
		if strings.HasPrefix(to, "suppressed") {
			to = m.from()
		}
		all = append(all, to)
	}
	return all
}

// newKillMail draws a mail: mostly small and to one recipient, some large
// enough for a file of their own, some to many, some to recipients that are
// trouble the first time.
func newKillMail(r *rand.Rand, id string) *killMail {
	m := &killMail{id: id}
	size := 1<<10 + r.IntN(7<<10)
	switch x := r.IntN(100); {
	case x < 4:
		size = 100<<10 + r.IntN(200<<10)
	case x < 12:
		size = 10<<10 + r.IntN(50<<10)
	}
	filler := make([]byte, size*5/8)
	for i := range filler {
		filler[i] = byte(r.Uint32())
	}
	rest := killLines(base32.StdEncoding.EncodeToString(filler))
	m.text = id + " " + killSum(rest) + "\r\n" + rest
	m.to = []string{"plain@" + killDomain(id)}
	switch x := r.IntN(1000); {
	case x < 60:
		m.to[0] = "down+1@" + killDomain(id)
	case x < 120:
		m.to[0] = "slow+200ms@" + killDomain(id)
	case x < 180:
		m.to[0] = "lost+1@" + killDomain(id)
	case x < 181:
		m.to[0] = "ratelimited+1x1@" + killDomain(id)
	case x < 231:
		m.to = append(m.to, "suppressed@"+killDomain(id))
	case x < 400:
		for n := range 1 + r.IntN(6) {
			m.to = append(m.to, fmt.Sprintf("plain%d@%s", n, killDomain(id)))
		}
	}
	return m
}

func killLines(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		n := min(len(s), 76)
		b.WriteString(s[:n] + "\r\n")
		s = s[n:]
	}
	return b.String()
}

// killSum is the same whatever became of line ends.
func killSum(s string) string {
	sum := sha256.Sum256([]byte(strings.Join(strings.Fields(s), "")))
	return hex.EncodeToString(sum[:])
}

func (m *killMail) raw() []byte {
	return []byte("From: <" + m.from() + ">\r\nTo: <" + m.to[0] + ">\r\nSubject: " + m.id +
		"\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n" + m.text)
}

// killQueueID finds the relay's id of a mail in its reply.
func killQueueID(reply string) string {
	found := regexp.MustCompile(`(?:accepted|queued) ([0-9a-z]{20}(?:\.[0-9a-z]{8})?)`).FindStringSubmatch(reply)
	if found == nil {
		return ""
	}
	return found[1]
}

// killSession is one connection of a client to the relay.
type killSession struct {
	conn net.Conn
	text *textproto.Conn
}

func dialKill(address string) (*killSession, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	s := &killSession{conn: conn, text: textproto.NewConn(conn)}
	if _, _, err = s.text.ReadResponse(220); err == nil {
		err = s.do(250, "EHLO client.example")
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

func (s *killSession) do(want int, line string) error {
	// A relay that hangs must fail the test and not hang it.
	if err := s.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if err := s.text.PrintfLine("%s", line); err != nil {
		return err
	}
	_, _, err := s.text.ReadResponse(want)
	return err
}

// send hands a mail over. An error is that of the connection, or a refusal
// before the mail itself; the mail knows how far it came.
func (s *killSession) send(m *killMail) error {
	if err := s.do(250, "MAIL FROM:<"+m.from()+">"); err != nil {
		return err
	}
	for _, to := range m.to {
		if err := s.do(250, "RCPT TO:<"+to+">"); err != nil {
			return err
		}
	}
	if err := s.do(354, "DATA"); err != nil {
		return err
	}
	w := bufio.NewWriterSize(s.conn, 64<<10)
	_, _ = w.Write(m.raw()) // the writer remembers the error
	m.sent = true
	_, _ = w.WriteString(".\r\n")
	if err := w.Flush(); err != nil {
		return err
	}
	code, text, err := s.text.ReadResponse(0)
	if err != nil {
		return err
	}
	m.reply = fmt.Sprintf("%d %s", code, text)
	return nil
}

func (s *killSession) quit() {
	_ = s.do(221, "QUIT") // the relay may be gone
	_ = s.conn.Close()
}
