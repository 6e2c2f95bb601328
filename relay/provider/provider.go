// Package provider is the contract between the relay and a provider of mail.
// Everything that knows a vendor is in one package below this one: how a mail is
// written for its API, where calls go, what answers mean, and how events are signed
// and read. Other packages speak of Mail, Outcome and Event. providertest tests an
// implementation of this contract.
package provider

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
)

// Format writes mails as the API takes them. It is pure and safe for concurrent use.
type Format interface {
	// Encode writes a mail for all its recipients. It takes no more memory than
	// mail.Cost counts: each text once, escaped, and each file in base64.
	Encode(m *mail.Mail) (Body, error)
}

// Body is a mail as the API takes it, without the recipient. It is made once and
// may be read by many at the same time.
type Body interface {
	Len(to string) int64      // length in bytes of the document for one recipient
	Open(to string) io.Reader // that document
	// Redirected reports whether the document has another recipient, whoever is asked for.
	Redirected() bool
}

// Mapping says how a mail becomes an API request: by the account's rules, and in the
// provider's format.
type Mapping struct {
	mail.Options
	Format Format
}

// Request is one API call: one mail to one recipient.
type Request struct {
	IdempotencyKey string // the same for every attempt at this mail and recipient
	To             string
	Body           Body
}

// Client calls the API. It is safe for concurrent use.
type Client interface {
	// Send makes one call and never repeats it. Every error is an outcome. If the
	// mail may have been taken, the outcome is Ambiguous. If it certainly was not,
	// for a reason that says nothing about the mail, it is Unavailable. ctx cancels
	// the call, and the client's own time-out bounds it. The API key is never in an
	// outcome.
	Send(ctx context.Context, r Request) relay.Outcome
}

// Events reads what the provider reports about mail after it took it. It is pure and
// safe for concurrent use.
type Events interface {
	// Signed reports whether the provider signed a request with one of the
	// secrets. Its time depends on neither the secrets nor the signature. An empty
	// secret signs nothing. It is called before the body is read in any other way.
	Signed(secrets []string, header http.Header, body []byte) bool
	// HasSignature reports whether there is a signature, right or wrong.
	HasSignature(header http.Header) bool
	// Read reads a signed body. It leaves out what it does not understand, and
	// returns an error if the body is no event at all. received is the time by our
	// clock. The same body always gets the same ID. Type is one of
	// relay.EventTypes if there is one for it.
	Read(body []byte, received time.Time) (relay.Event, error)
	// Sample returns a signed event that changes nothing, to test an endpoint.
	Sample(secret string, now time.Time) (header http.Header, body []byte)
}

// Registration asks the provider to send events to an endpoint.
type Registration struct {
	URL    string
	Events []string // of relay.EventTypes
}

// Registrar registers endpoints for events.
type Registrar interface {
	// Register returns the secret with which the events will be signed. Its error
	// can be shown on a terminal.
	Register(ctx context.Context, r Registration) (secret string, err error)
}
