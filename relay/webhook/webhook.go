// Package webhook takes the provider's signed events: it checks the signature
// over the raw body before it looks at anything, has the event kept, and only
// then answers 200. What an event teaches is relay/suppress's business, and
// what became of a mail relay/history's; both read what is kept here.
package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay"
)

// SignatureHeader carries the signature of the body.
const SignatureHeader = "X-NexusProMail-Signature"

// MaxBody is the largest body that is taken. An event has some 400 bytes.
const MaxBody = 256 << 10

// Sign returns the signature of a body: the HMAC-SHA256 in hex, lower case.
func Sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// signed reports whether a signature is that of a body by one of the secrets,
// in a time that depends on neither, nor on which of them it was.
func signed(secrets []string, body []byte, signature string) bool {
	ok := false
	for _, secret := range secrets {
		if secret == "" { // anybody has that one
			continue
		}
		ok = hmac.Equal([]byte(Sign(secret, body)), []byte(signature)) || ok
	}
	return ok
}

// Taker keeps events. *suppress.List does.
type Taker interface {
	// Take returns when the event is durable. It is not fresh if it was taken
	// before, and then changes nothing.
	Take(ctx context.Context, e relay.Event) (fresh bool, err error)
}

// Options are what a Handler is made from.
type Options struct {
	Settings
	Taker   Taker
	Log     *slog.Logger          // nil: none
	Metrics prometheus.Registerer // may be nil
}
