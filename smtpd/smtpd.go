// Package smtpd takes mail in by SMTP: listeners, sessions, limits and the
// orderly end of them. It knows nothing of what becomes of the mail; that is
// the Backend's business, which relay/intake implements. It is built on
// emersion/go-smtp and guards against what that library does not do.
//
// smtpd never imports anything under relay.
package smtpd

import (
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

// Listener is one address the server listens on. internal/settings explains the
// tags, here and below.
type Listener struct {
	// Address is host:port, where port 0 takes a free one; "unix:" and a path;
	// or "systemd:" and the name of sockets that systemd opened.
	Address string `toml:"address" default:"127.0.0.1:2525" check:"listen" doc:"Address and port, where \":2525\" is every address of this machine; \"unix:/run/…\"; or \"systemd:NAME\" for what a .socket unit with FileDescriptorName=NAME opened."`
	// Protocol decides whether DATA has one reply or one for each recipient.
	Protocol   Protocol    `toml:"protocol" default:"smtp" words:"smtp lmtp" doc:"\"smtp\", or \"lmtp\" for a mail server that hands over: each recipient has a reply."`
	SocketMode fs.FileMode `toml:"socket_mode" default:"0660" doc:"The mode of a unix socket: who may open it may send."`
	// Clients in Networks may send without a login.
	Networks       []netip.Prefix `toml:"networks" default:"127.0.0.0/8 ::1/128" doc:"Whose clients may send through it. On an address that others can reach, public networks wider than /16 (IPv6: /32) are refused: that would be an open relay."`
	ProxyFrom      []netip.Prefix `toml:"proxy_from" doc:"Proxies, whose connections begin with a PROXY header, version 1 or 2: they are believed who the client is."`
	TLS            TLS
	RequireAuth    bool         `toml:"require_auth" doc:"Everybody has to log in, in networks as well."`
	AuthWithoutTLS bool         `toml:"auth_without_tls" usual:"true on an address of this machine alone, else false" example:"true" doc:"Clients may log in outside TLS, where their passwords can be read on the way."`
	Rules          policy.Rules // that bind its clients
}

// Protocol is what a listener speaks.
type Protocol string

// SMTP is RFC 5321, LMTP is RFC 2033.
const (
	SMTP Protocol = "smtp"
	LMTP Protocol = "lmtp"
)

// Limits bound what clients can use. settings.Defaults has those that smtpd was
// made for; a limit of zero lets nothing pass. Those without a name are the same
// for everybody.
type Limits struct {
	MessageBytes int64 `toml:"message_size" default:"25MiB" range:"64KiB..1GiB" doc:"The largest mail that is taken."`
	HeaderBytes  int64 `toml:"header_size" default:"256KiB" range:"4KiB..1MiB" doc:"The largest header of a mail that is taken."`
	// HTML in one line is common.
	LineBytes    int64 `toml:"line_length" default:"1MiB" range:"1KiB..64MiB" doc:"The longest line of a mail that is taken."`
	CommandBytes int64 `toml:"command_length" default:"4KiB" range:"4KiB..64KiB" doc:"The longest command line that is taken."`
	// RFC 5321 section 4.5.3.1.8 allows no fewer by default.
	Recipients  int `toml:"recipients" default:"100" range:"1..10000" doc:"The most recipients of one mail."`
	Connections int `toml:"connections" default:"200" range:"1..100000" doc:"The most connections at once. A quarter is kept for clients that may send without a login, where there can be any."`
	// Of an IPv4 address or an IPv6 /64.
	ConnectionsPerAddress int `toml:"connections_per_address" default:"50" range:"1..100000" doc:"The most connections at once from one address at one listener."`
	MessagesPerConnection int `toml:"messages_per_connection" default:"10000" range:"1..1000000" doc:"The most mails on one connection. A client may then connect again."`
	// RFC 5321 section 4.5.3.2.7 asks for five minutes.
	IdleTime        time.Duration `toml:"idle_time" default:"5m" range:"1s..1d" doc:"How long a client may be silent, or take for one command."`
	MessageTime     time.Duration `toml:"message_time" default:"30m" range:"1s..1d" doc:"How long a client may take to hand over one mail."`
	MinRate         int           `toml:"min_rate" default:"100" range:"0..1000000" doc:"How many bytes of a mail a client must send each second. It may be two minutes behind. 0 is no bound."`
	WrongCommands   int           `toml:"wrong_commands" default:"20" range:"1..10000" doc:"How often a client may be wrong before it is disconnected; a mail that is taken forgives all."`
	WrongRecipients int           `toml:"wrong_recipients" default:"50" range:"1..10000" doc:"How many recipients in a row may be refused before the client is disconnected."`
	IdleCommands    int           `toml:"idle_commands" default:"1000" range:"10..1000000" doc:"How often a client may say NOOP, RSET or EHLO, or be told to come later, without sending a mail before it is disconnected."`
	AddressRate     auth.Rate     `toml:"rate_per_address" doc:"The most recipients from one address, as in \"600/hour\"; minute and day will do as well. More are told when to come again. \"\" is no bound."`
	UserRate        auth.Rate     `toml:"rate_per_user" doc:"The same for each user who logged in."`
	SenderRate      auth.Rate     `toml:"rate_per_sender" doc:"The same for each sender of an envelope."`

	StrangerCommands int           `default:"20"`  // of a client that may not send, before it logs in
	StrangerTime     time.Duration `default:"30s"` // IdleTime of such a client
	WriteTime        time.Duration `default:"1m"`  // for a client to take a reply
	HandshakeTime    time.Duration `default:"30s"` // for a client to begin TLS
	RateTime         time.Duration `default:"2m"`  // by how much a client may fall behind MinRate
	MemoryWait       time.Duration `default:"5s"`  // for memory, before a message is told to come again
}

// Options are what a Server is made from.
type Options struct {
	Backend   Backend
	Users     Users  // nil: nobody can log in
	Hostname  string // in the greeting
	Listeners []Listener
	Limits    Limits
	Memory    *budget.Budget
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
