// Package smtpd receives mail by SMTP and LMTP. It is built on emersion/go-smtp and
// adds what that library leaves to its user: listeners that a reload can change,
// TLS, logins, limits, and an orderly stop.
//
// What becomes of a mail is decided by a Backend, which relay/intake implements.
// smtpd never imports anything under relay.
//
// A client passes through these layers:
//
//	port      accepts the connection (listener.go)
//	listener  has the configuration in force when the client came
//	conn      the socket: deadlines, TLS, the PROXY header, a lingering close
//	filter    decides what go-smtp must not decide, such as addresses and limits
//	go-smtp   reads the commands that the filter passes on
//	session   the transactions, for which it asks the Backend
package smtpd

import (
	"context"
	"io/fs"
	"log/slog"
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/budget"
	"github.com/smtp2rest/smtp2rest/smtpd/policy"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// A Backend decides about recipients and messages. Its methods are called from many
// sessions at once. Their context ends when the daemon must stop without waiting
// for them.
type Backend interface {
	// Recipient is called at RCPT. It returns nil to accept the recipient; an
	// error becomes a reply by reply.From.
	Recipient(ctx context.Context, env *Envelope, rcpt string) error

	// Message receives a whole mail and returns the reply, which is never nil. A
	// positive reply takes responsibility for the mail.
	//
	// data is the message with CRLF line ends and dots unstuffed. The backend must
	// not keep it, because its memory is only counted until Message returns. It
	// reserves other memory with env.Reserve. env is a copy that no later command
	// changes.
	Message(ctx context.Context, env *Envelope, data []byte) *reply.Reply
}

// An EachBackend is a Backend that can answer for each recipient by itself. Over
// LMTP, MessageEach is called instead of Message. Without it every recipient gets
// Message's reply.
type EachBackend interface {
	// MessageEach is Message with one reply for each of env.Recipients, in
	// their order. A negative one leaves the recipient to the client.
	MessageEach(ctx context.Context, env *Envelope, data []byte) []*reply.Reply
}

// Users checks logins. *auth.Checker implements it.
type Users interface {
	// Check checks one login of a client. Its error is the context's.
	Check(ctx context.Context, addr netip.Addr, said auth.Credentials) (auth.Result, error)
	// Current returns the present settings of a user who has logged in before. It
	// returns nil if the user has to log in again.
	Current(*auth.User) *auth.User
}

// An Envelope is one SMTP transaction, as far as it has come.
type Envelope struct {
	From       string // "" is the null sender
	Recipients []string
	Client     Client

	// Rules bind the mail. smtpd has checked the sender and the recipients. The
	// Backend finds the author in the mail's header and checks it with Author.
	Rules policy.Chain

	receipt *receipt                                        // of a message
	reserve func(ctx context.Context, n int64) *reply.Reply // see Reserve
	most    int64                                           // see Most
	author  func(address string) bool                       // see Author
}

// Author reports whether the rules permit an address as the author that the mail
// itself names.
func (e *Envelope) Author(address string) bool {
	if e.author == nil { // no server made it
		return e.Rules.Permits(policy.Author, address)
	}
	return e.author(address)
}

// Reserve reserves memory for dealing with the message, beyond that of its data: n
// bytes in all, which a later call changes. It waits a short time if there is too
// little; its error is then the reply to the message. The memory is given back when
// Message returns. For an Envelope that no server made it does nothing.
func (e *Envelope) Reserve(ctx context.Context, n int64) error {
	if e.reserve == nil {
		return nil
	}
	if r := e.reserve(ctx, n); r != nil {
		return r
	}
	return nil
}

// Most returns the most that Reserve ever gives for the message.
func (e *Envelope) Most() int64 {
	if e.reserve == nil {
		return math.MaxInt64
	}
	return e.most
}

// OnLost has f called when it turns out that the client did not get the reply to
// this message, and will therefore send the message again. f is called once, on any
// goroutine: at once if that is known already, during Message, or shortly after it.
// For an Envelope that no server made it is never called.
func (e *Envelope) OnLost(f func()) {
	if e.receipt == nil {
		return
	}
	e.receipt.mu.Lock()
	known := e.receipt.isLost
	e.receipt.tell = f
	e.receipt.mu.Unlock()
	if known {
		f()
	}
}

// A receipt knows whether a client got the reply to its message.
type receipt struct {
	mu     sync.Mutex
	isLost bool
	tell   func()
}

func (r *receipt) lost() {
	r.mu.Lock()
	first := !r.isLost
	r.isLost = true
	tell := r.tell
	r.mu.Unlock()
	if first && tell != nil {
		tell()
	}
}

// A Client is the other side of a session.
type Client struct {
	Session  string         // a short random id, the same in all log lines of a connection
	Addr     netip.AddrPort // zero for a unix socket, and behind a proxy that does not say
	Helo     string         // printable ASCII
	User     string         // who logged in, "" for nobody
	Listener string         // our address, to which the client connected
	Account  string         // the listener's
	Redirect string         // the listener's RedirectAll
	Fields   settings.Pairs // the listener's
	Kept     Kept           // of a message: zero, unless it comes by a Local
}

// Listener is one address the server listens on. internal/settings explains the
// tags, here and below.
type Listener struct {
	// Address is host:port, where port 0 takes a free one; "unix:" and a path;
	// or "systemd:" and the name of sockets that systemd opened.
	Address string `toml:"address" default:"127.0.0.1:2525" check:"listen" doc:"Address and port, where \":2525\" is every address of this machine; \"unix:/run/…\"; or \"systemd:NAME\" for the socket of a .socket unit with FileDescriptorName=NAME."`
	// Protocol decides whether DATA has one reply or one for each recipient.
	Protocol   Protocol    `toml:"protocol" default:"smtp" words:"smtp lmtp" doc:"\"smtp\", or \"lmtp\" for a mail server that hands mail over: each recipient gets a reply of its own."`
	SocketMode fs.FileMode `toml:"socket_mode" default:"0660" doc:"The mode of a unix socket. Whoever may open it may send."`
	// Clients in Networks may send without a login.
	Networks       []netip.Prefix `toml:"networks" default:"127.0.0.0/8 ::1/128" doc:"Clients in these networks may send. On an address that others can reach, public networks wider than /16 (IPv6: /32) are refused: that would be an open relay."`
	ProxyFrom      []netip.Prefix `toml:"proxy_from" doc:"Proxies, whose connections begin with a PROXY header, version 1 or 2. The relay believes what they say about the client."`
	TLS            TLS
	RequireAuth    bool `toml:"require_auth" doc:"Everybody has to log in, even clients in networks."`
	AuthWithoutTLS bool `toml:"auth_without_tls" usual:"true on an address of this machine alone, else false" example:"true" doc:"Clients may log in without TLS, although their passwords can then be read on the way."`
	// RedirectAll is nothing to the server, which tells it to the backend.
	RedirectAll string `toml:"redirect_all" check:"email" doc:"The mail that comes in here goes to this address in place of its recipients (docs/staging.md). \"\": to them."`
	// Fields are nothing to the server, which tells them to the backend.
	Fields settings.Pairs `toml:"fields" check:"fixed fields" doc:"Values that the JSON of what comes in here has in fields as in mail.fields, whatever the mail says. A user's own come before them."`
	// Account is nothing to the server, which tells it to the backend.
	Account string       `toml:"account" check:"optional account" doc:"The account that sends what comes in here, by its name; \"default\" is that of [api]. \"\" is the one whose domains the mail is from. A user's own comes before it."`
	Rules   policy.Rules // that bind its clients
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
	MessageBytes int64 `toml:"message_size" default:"25MiB" range:"64KiB..1GiB" doc:"The largest mail that is accepted."`
	HeaderBytes  int64 `toml:"header_size" default:"256KiB" range:"4KiB..1MiB" doc:"The largest header of a mail that is accepted."`
	// HTML in one line is common.
	LineBytes    int64 `toml:"line_length" default:"1MiB" range:"1KiB..64MiB" doc:"The longest line of a mail that is accepted."`
	CommandBytes int64 `toml:"command_length" default:"4KiB" range:"4KiB..64KiB" doc:"The longest command line that is accepted."`
	// RFC 5321 section 4.5.3.1.8 allows no fewer by default.
	Recipients  int `toml:"recipients" default:"100" range:"1..10000" doc:"The most recipients of one mail."`
	Connections int `toml:"connections" default:"200" range:"1..100000" doc:"The most connections at the same time. A quarter is reserved for clients that may send without a login, if there can be any."`
	// Of an IPv4 address or an IPv6 /64.
	ConnectionsPerAddress int `toml:"connections_per_address" default:"50" range:"1..100000" doc:"The most connections at the same time from one address at one listener."`
	MessagesPerConnection int `toml:"messages_per_connection" default:"10000" range:"1..1000000" doc:"The most mails on one connection. A client may then connect again."`
	// RFC 5321 section 4.5.3.2.7 asks for five minutes.
	IdleTime        time.Duration `toml:"idle_time" default:"5m" range:"1s..1d" doc:"How long a client may be silent, or take for one command."`
	MessageTime     time.Duration `toml:"message_time" default:"30m" range:"1s..1d" doc:"How long a client may take to send one mail."`
	MinRate         int           `toml:"min_rate" default:"100" range:"0..1000000" doc:"How many bytes of a mail a client must send per second. It may fall two minutes behind. 0: no limit."`
	WrongCommands   int           `toml:"wrong_commands" default:"20" range:"1..10000" doc:"How many errors a client may make before it is disconnected. A mail that is accepted resets the count."`
	WrongRecipients int           `toml:"wrong_recipients" default:"50" range:"1..10000" doc:"How many recipients in a row may be refused before the client is disconnected."`
	IdleCommands    int           `toml:"idle_commands" default:"1000" range:"10..1000000" doc:"How often a client may send NOOP, RSET or EHLO, or be told to try later, without sending a mail before it is disconnected."`
	AddressRate     auth.Rate     `toml:"rate_per_address" doc:"The most recipients from one address, as in \"600/hour\"; minute and day can be written too. Clients are told when to try again. \"\": no limit."`
	UserRate        auth.Rate     `toml:"rate_per_user" doc:"The same for each user who logged in."`
	SenderRate      auth.Rate     `toml:"rate_per_sender" doc:"The same for each sender of an envelope."`

	StrangerCommands int           `default:"20"`  // of a client that may not send, before it logs in
	StrangerTime     time.Duration `default:"30s"` // IdleTime of such a client
	WriteTime        time.Duration `default:"1m"`  // for a client to take a reply
	HandshakeTime    time.Duration `default:"30s"` // for a client to begin TLS
	RateTime         time.Duration `default:"2m"`  // by how much a client may fall behind MinRate
	MemoryWait       time.Duration `default:"5s"`  // for memory, before a message is told to come again
}

// Options are what New makes a Server from.
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

	// Panicked, if set, is called for each panic that was caught and logged. It cost
	// no more than one connection.
	Panicked func(value any)
}
