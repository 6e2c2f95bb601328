// Package config turns a TOML file and the environment into one Config with
// every default filled in, or into a list of all that is wrong with them, in
// words that say what to write instead.
//
// The settings are one table (settings.go): names, defaults, ranges, variables
// and explanations are there and nowhere else. relay/app hands the values on
// to the packages' own Options; no other package of relay imports this one.
package config

import (
	"io/fs"
	"log/slog"
	"net/netip"
	"time"
)

// Config is the configuration in force. Everything in it is valid: lists are
// not empty where they must not be, durations and sizes are within their
// ranges, addresses are well formed.
type Config struct {
	Hostname    string // how the relay calls itself; a domain name or an address literal
	API         API
	Sender      Sender
	Addresses   Addresses
	Mail        Mail
	Delivery    Delivery
	Queue       Queue
	Bounce      Bounce
	History     History
	Warming     []Warming  // one for each domain; often none
	Listeners   []Listener // at least one
	Rules       Rules      // that bind everybody
	Users       []User     // who may log in; often none
	UsersFile   string     // who is in it is in Users, at the end
	Limits      Limits
	Log         Log
	Admin       Admin
	Webhook     Webhook
	Suppression Suppression

	// Warnings are what works but is probably not meant, one line each.
	Warnings []string

	settings   []setting         // as loaded, for Describe
	files      map[string]string // what the files had that were read besides the configuration, as digests
	tableUsers int               // how many of Users are not of UsersFile
}

// API is where mail goes.
type API struct {
	URL           string // without a slash at its end
	AllowInsecure bool   // http:// to other than this machine is allowed
	Path          string // begins with a slash
	Key           Secret // empty only when the Source needs none
	KeyFile       string // as written; what is in it is in Key

	Timeout        time.Duration // of one call, whole
	ConnectTimeout time.Duration // of connecting, as part of Timeout
	CAFile         string        // PEM, in addition to the system's; "" is none

	Concurrency   int           // calls at once
	Rate          float64       // calls a second; 0 is not known
	Burst         int           // calls at once after a rest; at least 1
	MaxRetryAfter time.Duration // ceiling of a pause that the API asks for
}

// Sender is who mail comes from, as the API knows it.
type Sender struct {
	Email   string   // "" only when Source.NeedAPI is false
	Name    string   // may be ""
	Domains []string // verified with the provider, in lower case; empty only when Email is ""
	Foreign Foreign
}

// Foreign is what becomes of mail whose From is in no verified domain.
type Foreign string

// Rewrite sends it as Sender.Email with the author in Reply-To; Refuse refuses it.
const (
	Rewrite       Foreign = "rewrite"
	RefuseForeign Foreign = "refuse"
)

// Mail is what becomes of what the API's documented payload has no place for.
type Mail struct {
	HeaderField string // JSON field for further headers; "" is none
	Attachments Attachments
	Fields      AttachmentFields
}

// Attachments is what becomes of attachments.
type Attachments string

// Refuse the mail, strip them with a notice, or send them in Mail.Fields.
const (
	RefuseAttachments Attachments = "refuse"
	StripAttachments  Attachments = "strip"
	SendAttachments   Attachments = "send"
)

// AttachmentFields names the JSON fields of attachments. An empty name leaves
// that piece out.
type AttachmentFields struct {
	Array       string // never empty
	Filename    string
	Content     string // never empty
	ContentType string
	ContentID   string
}

// Delivery is how the relay tries.
type Delivery struct {
	Wait  time.Duration // how long a client is made to wait; 0 is not at all
	Retry Retry
}

// Listener is one address that clients connect to.
type Listener struct {
	Address    string // host:port, "unix:" and a path, or "systemd:" and a name
	Protocol   Protocol
	SocketMode fs.FileMode    // of a unix socket
	Networks   []netip.Prefix // whose clients may send; masked
	ProxyFrom  []netip.Prefix // whose connections begin with a PROXY header; masked

	TLS        TLSMode
	MinTLS     uint16 // as crypto/tls has it
	CertFile   string // PEM; "" without TLS and with SelfSigned
	KeyFile    string
	SelfSigned bool

	RequireAuth    bool // of clients in Networks too
	AuthWithoutTLS bool // passwords may travel in the clear

	Rules Rules // that bind its clients
}

// Protocol is what a listener speaks.
type Protocol string

// SMTP is RFC 5321, LMTP is RFC 2033.
const (
	SMTP Protocol = "smtp"
	LMTP Protocol = "lmtp"
)

// TLSMode is when a listener speaks TLS.
type TLSMode string

// The modes: never, when the client says STARTTLS, from the first octet on.
const (
	NoTLS       TLSMode = "none"
	StartTLS    TLSMode = "starttls"
	ImplicitTLS TLSMode = "implicit"
)

// Log is how the program log is written.
type Log struct {
	Level  slog.Level
	Format string // "auto", "text" or "json"
}

// Setting is one setting as it is in force, for people.
type Setting struct {
	Path    string // "api.timeout"; "listener#2.address" when there are several
	Value   string // as in TOML; of a secret only whether it is set, and from where
	Origin  string // "default", "file", "environment NAME", "file of …", "credential NAME"
	Doc     string // one or two sentences
	Default string // as in TOML, or in words where it is worked out; "" is none
	Example string // as in TOML, where the default says too little
	Env     string // the variable of the environment that comes before the file, if any
	Secret  bool
	Restart string // why a change takes a restart; "" is that a reload changes it
}
