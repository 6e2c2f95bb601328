// Package probe asks a listener to relay, as a stranger would: without a login, from an
// address that is not loopback, to a recipient elsewhere. 'smtp2rest check --probe'
// decides which listeners to ask, and from which addresses.
package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"strings"
	"time"
)

// patience bounds one conversation. A relay answers a stranger at once.
const patience = 10 * time.Second

// A Question says what to ask, and how.
type Question struct {
	Address string     // of the listener, host:port or unix:/path
	Source  netip.Addr // if valid, the address of this machine to connect from
	Claim   netip.Addr // if valid, the client's address in a PROXY header
	TLS     bool       // from the first octet on
	LMTP    bool
	Sender  string // "" is the null sender
	To      string // a recipient elsewhere
}

// An Answer is the result of a conversation.
type Answer struct {
	Taken bool   // the recipient was taken: a message would be relayed
	Said  string // the reply that decided it
}

// Ask speaks SMTP as far as RCPT and sends no message. It returns an error if the
// connection fails.
func Ask(ctx context.Context, q Question) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	socket, err := q.dial(ctx)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = socket.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if q.Claim.IsValid() {
		if _, err := io.WriteString(socket, q.header()); err != nil {
			return Answer{}, err
		}
	}
	stream := socket
	if q.TLS {
		// The question is not whether the certificate is valid.
		stream = tls.Client(socket, &tls.Config{InsecureSkipVerify: true})
	}
	return q.converse(textproto.NewConn(stream))
}

func (q Question) dial(ctx context.Context) (net.Conn, error) {
	var dialer net.Dialer
	if path, ok := strings.CutPrefix(q.Address, "unix:"); ok {
		return dialer.DialContext(ctx, "unix", path)
	}
	if q.Source.IsValid() {
		dialer.LocalAddr = &net.TCPAddr{IP: q.Source.AsSlice()}
	}
	return dialer.DialContext(ctx, "tcp", q.Address)
}

// header returns a PROXY header of version 1. Listeners use only the client's address.
func (q Question) header() string {
	family := "TCP4"
	if q.Claim.Is6() {
		family = "TCP6"
	}
	return fmt.Sprintf("PROXY %s %s %s 1024 25\r\n", family, q.Claim, q.Claim)
}

func (q Question) converse(c *textproto.Conn) (Answer, error) {
	hello := "EHLO"
	if q.LMTP {
		hello = "LHLO"
	}
	steps := []string{"", hello + " probe.invalid", "MAIL FROM:<" + q.Sender + ">", "RCPT TO:<" + q.To + ">"}
	var said string
	for _, command := range steps {
		if command != "" {
			if err := c.PrintfLine("%s", command); err != nil {
				return Answer{}, err
			}
		}
		code, text, err := c.ReadResponse(0)
		if err != nil {
			return Answer{}, err
		}
		said = fmt.Sprintf("%d %s", code, text)
		if code/100 != 2 {
			_ = c.PrintfLine("QUIT") // nothing more is of interest
			return Answer{Said: said}, nil
		}
	}
	_ = c.PrintfLine("RSET\r\nQUIT")
	_, _, _ = c.ReadResponse(0)
	return Answer{Taken: true, Said: said}, nil
}
