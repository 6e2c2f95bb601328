// Package provider is the contract between the relay and whoever sends its mail.
// Everything that knows a vendor is in one package below it: how a mail is written
// for its API, where calls go, what its answers mean, and how it signs and words
// what it tells of mail later. The rest of the house speaks Mail, Outcome and
// Event. providertest holds an implementation to this contract.
package provider

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
)

// Format writes mails as the API takes them. It is pure, and safe for concurrent
// use.
type Format interface {
	// Encode writes a mail for all its recipients. It takes no more memory than
	// mail.Cost counts for that: each text once, escaped, and each file in base64.
	Encode(m *mail.Mail) (Body, error)
}

// Body is a mail as the API takes it, but for its recipient. It is made once and
// read by many at once.
type Body interface {
	Len(to string) int64      // of the document for one recipient, in bytes
	Open(to string) io.Reader // that document, from its start
}

// Mapping is how mail becomes what the API takes: by the account's rules, and in
// the provider's format.
type Mapping struct {
	mail.Options
	Format Format
}

// Request is one call: one mail to one recipient.
type Request struct {
	IdempotencyKey string // the same for every attempt at this recipient
	To             string
	Body           Body
}

// Client calls the API. It is safe for concurrent use.
type Client interface {
	// Send makes one call, and never a second one: what happened is in the
	// outcome, and an error always is an outcome too. What may have been taken is
	// Ambiguous; what certainly was not, and says nothing of the mail, is
	// Unavailable. ctx cancels the call; the client's own time-out bounds it. No
	// outcome holds the key.
	Send(ctx context.Context, r Request) relay.Outcome
}

// Events reads what the provider tells of mail after it took it. It is pure, and
// safe for concurrent use.
type Events interface {
	// Signed reports whether a request is the provider's, by one of the secrets,
	// in a time that depends on neither. An empty secret signs nothing. A header
	// is seen before the body is looked at in any other way.
	Signed(secrets []string, header http.Header, body []byte) bool
	// HasSignature reports whether there is one at all, right or wrong.
	HasSignature(header http.Header) bool
	// Read reads a signed body. What it does not understand it leaves out; an error
	// is what is no event at all. received is by our clock. The same body has the
	// same ID each time, and Type is one of relay.EventTypes where there is one for it.
	Read(body []byte, received time.Time) (relay.Event, error)
	// Sample is a signed event that changes nothing, to try an endpoint with.
	Sample(secret string, now time.Time) (header http.Header, body []byte)
}

// Registration is an endpoint that the provider is to tell of events.
type Registration struct {
	URL    string
	Events []string // types; of relay.EventTypes
}

// Registrar registers endpoints for events.
type Registrar interface {
	// Register returns the secret that the events will be signed with. An error is
	// fit for a terminal.
	Register(ctx context.Context, r Registration) (secret string, err error)
}
