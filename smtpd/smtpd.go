// Package smtpd takes mail in by SMTP: listeners, sessions, limits and the
// orderly end of them. It knows nothing of what becomes of the mail; that is
// the Backend's business, which relay/intake implements. It is built on
// emersion/go-smtp and guards against what that library does not do.
//
// smtpd never imports anything under relay.
package smtpd

import (
	"cmp"
	"context"
	"io/fs"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/budget"
	"github.com/smtp2rest/smtp2rest/smtpd/policy"
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
	// came, with CRLF line ends and dots unstuffed; the backend must not keep it,
	// because its memory counts for no longer than this. What else it takes is
	// to be reserved with env.Reserve. env is a copy that no later command changes.
	Message(ctx context.Context, env *Envelope, data []byte) *reply.Reply
}

// EachBackend is an add-on for a Backend that can answer for each recipient by
// itself. LMTP asks for it in place of Message; without it every recipient
// gets Message's reply.
type EachBackend interface {
	// MessageEach is Message with one reply for each of env.Recipients, in
	// their order. A negative one leaves the recipient to the client.
	MessageEach(ctx context.Context, env *Envelope, data []byte) []*reply.Reply
}

// Users are who may log in; *auth.Checker is.
type Users interface {
	// Check looks at one attempt of a client. The error is the context's.
	Check(ctx context.Context, addr netip.Addr, said auth.Credentials) (auth.Result, error)
	// Current is a user who logged in before as they are now, nil for one who
	// has to log in again.
	Current(*auth.User) *auth.User
}

// Envelope is one SMTP transaction as far as it has come.
type Envelope struct {
	From       string // "" is the null sender
	Recipients []string
	Client     Client

	// Rules bind the mail. smtpd has held sender and recipients to them; the
	// author that the mail itself names is the Backend's to find, and to hold
	// with Author.
	Rules policy.Chain

	receipt *receipt                                        // of a message
	reserve func(ctx context.Context, n int64) *reply.Reply // see Reserve
	author  func(address string) bool                       // see Author
}

// Client is the other side of a session.
type Client struct {
	Session  string         // a short random id, the same for all of a connection's log lines
	Addr     netip.AddrPort // zero for a unix socket, and for what a proxy does not tell
	Helo     string         // printable ASCII
	User     string         // who it logged in as, "" for nobody
	Listener string         // the address of ours it connected to
}

// Listener is one address the server listens on.
type Listener struct {
	// Address is host:port, where port 0 takes a free one; "unix:" and a path;
	// or "systemd:" and the name of sockets that systemd opened.
	Address    string
	SocketMode fs.FileMode    // of a unix socket; 0660. Who may open it may send.
	Networks   []netip.Prefix // whose clients may send without authenticating
	ProxyFrom  []netip.Prefix // whose connections begin with a header of the PROXY protocol
	TLS        TLS

	LMTP           bool // RFC 2033 instead of SMTP: a reply for each recipient after DATA
	RequireAuth    bool // of clients in Networks too
	AuthWithoutTLS bool // passwords may travel in the clear

	Rules policy.Rules // that bind its clients
}

// Limits bound what clients can use. Zero fields take the default.
type Limits struct {
	MessageBytes          int64         // of one message, with CRLF line ends; 25 MiB
	Recipients            int           // of one message; 100
	LineBytes             int           // of one line of content; 1 MiB
	CommandBytes          int           // of one command line; 4 KiB, which is also the least
	HeaderBytes           int64         // of a message's header; 256 KiB
	WrongCommands         int           // since the last message taken; 20
	WrongRecipients       int           // in a row; 50
	IdleCommands          int           // NOOP, RSET and the like, since the last message taken; 1000
	MessagesPerConnection int           // 10,000
	Connections           int           // in all; 500. A quarter is for clients that may send without a login.
	ConnectionsPerAddress int           // of one IPv4 address or IPv6 /64 at one listener; 100
	StrangerCommands      int           // of a client that may not send, before it logs in; 20
	StrangerTime          time.Duration // IdleTime of such a client; 30 s
	IdleTime              time.Duration // between two reads from a client; 5 min
	WriteTime             time.Duration // for a client to take a reply; 1 min
	HandshakeTime         time.Duration // for a client to begin TLS; 30 s
	MessageTime           time.Duration // for all of a DATA, or all the chunks of a BDAT; 10 min
	MinRate               int           // octets a second at which a message comes; negative is none; 100
	RateTime              time.Duration // by how much a client may fall behind that; 2 min
	MemoryWait            time.Duration // for memory, before a message is told to come again; 5 s

	AddressRate, UserRate, SenderRate Rate // of recipients; none
}

func (l Limits) withDefaults() Limits {
	return Limits{
		MessageBytes:          cmp.Or(l.MessageBytes, 25<<20),
		Recipients:            cmp.Or(l.Recipients, 100),  // the least that RFC 5321 section 4.5.3.1.8 allows
		LineBytes:             cmp.Or(l.LineBytes, 1<<20), // HTML in one line is common
		CommandBytes:          max(l.CommandBytes, 4<<10),
		HeaderBytes:           cmp.Or(l.HeaderBytes, 256<<10),
		WrongCommands:         cmp.Or(l.WrongCommands, 20),
		WrongRecipients:       cmp.Or(l.WrongRecipients, 50),
		IdleCommands:          cmp.Or(l.IdleCommands, 1000),
		MessagesPerConnection: cmp.Or(l.MessagesPerConnection, 10_000),
		Connections:           cmp.Or(l.Connections, 500),
		ConnectionsPerAddress: cmp.Or(l.ConnectionsPerAddress, 100),
		StrangerCommands:      cmp.Or(l.StrangerCommands, 20),
		StrangerTime:          cmp.Or(l.StrangerTime, 30*time.Second),
		IdleTime:              cmp.Or(l.IdleTime, 5*time.Minute), // RFC 5321 section 4.5.3.2.7
		WriteTime:             cmp.Or(l.WriteTime, time.Minute),
		HandshakeTime:         cmp.Or(l.HandshakeTime, 30*time.Second),
		MessageTime:           cmp.Or(l.MessageTime, 10*time.Minute),
		MinRate:               cmp.Or(l.MinRate, 100),
		RateTime:              cmp.Or(l.RateTime, 2*time.Minute),
		MemoryWait:            cmp.Or(l.MemoryWait, 5*time.Second),
		AddressRate:           l.AddressRate,
		UserRate:              l.UserRate,
		SenderRate:            l.SenderRate,
	}
}

// Options are what a Server is made from.
type Options struct {
	Backend   Backend
	Users     Users  // nil: nobody can log in
	Hostname  string // in the greeting
	Listeners []Listener
	Limits    Limits
	Memory    *budget.Budget        // nil: one of 128 MiB
	Metrics   prometheus.Registerer // nil: none
	Log       *slog.Logger

	Rules policy.Rules // that bind everybody

	// QualifyDomain completes addresses without a domain in MAIL and RCPT, as in
	// RCPT TO:<root>. "" refuses them.
	QualifyDomain string

	// Panicked, if set, is told of each panic of the Backend. It was caught and
	// logged, and cost no more than one connection.
	Panicked func(value any)
}
