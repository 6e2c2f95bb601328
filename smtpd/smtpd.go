// Package smtpd takes mail in by SMTP: listeners, sessions, limits and the
// orderly end of them. It knows nothing of what becomes of the mail; that is
// the Backend's business, which relay/intake implements. It is built on
// emersion/go-smtp and guards against what that library does not do.
//
// smtpd never imports anything under relay.
package smtpd

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// Backend decides about senders, recipients and messages. Its methods are
// called from many sessions at once. A context that ends means that the daemon
// is being stopped the hard way.
type Backend interface {
	// Recipient is asked at RCPT. Nil takes the recipient; any error becomes a
	// reply by reply.From.
	Recipient(ctx context.Context, env *Envelope, rcpt string) error

	// Message takes a whole mail and answers it; the reply is never nil, and a
	// positive one takes responsibility for the mail. data is the message as it
	// came, with CRLF line ends and dots unstuffed; the backend may keep it.
	// env is a copy that no later command changes.
	Message(ctx context.Context, env *Envelope, data []byte) *reply.Reply
}

// Envelope is one SMTP transaction as far as it has come.
type Envelope struct {
	From       string // "" is the null sender
	Recipients []string
	Client     Client
}

// Client is the other side of a session.
type Client struct {
	Session  string         // a short random id, the same for all of a connection's log lines
	Addr     netip.AddrPort // zero for a unix socket
	Helo     string         // printable ASCII
	Listener string         // the address of ours it connected to
}

// Listener is one address the server listens on.
type Listener struct {
	Address  string         // host:port; port 0 takes a free one
	Networks []netip.Prefix // whose clients may send without authenticating
}

// Limits bound what clients can use. Zero fields take the default.
type Limits struct {
	MessageBytes          int64         // of one message
	Recipients            int           // of one message
	LineBytes             int           // of one line, in commands and in content
	Connections           int           // in all
	ConnectionsPerAddress int           // of one client address
	IdleTime              time.Duration // between two reads from a client
	WriteTime             time.Duration // for a client to take a reply
	MessageTime           time.Duration // for all of a DATA
}

// Options are what a Server is made from.
type Options struct {
	Backend   Backend
	Hostname  string // in the greeting
	Listeners []Listener
	Limits    Limits
	Log       *slog.Logger
}
