package nexuspromail

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/provider"
)

// Events reads the provider's events and signs like the provider.
type Events struct{}

var _ provider.Events = Events{}

// SignatureHeader is the header with the signature of the body.
const SignatureHeader = "X-NexusProMail-Signature"

// Sign returns the signature of a body: its HMAC-SHA256 in lower-case hex.
func Sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// Signed implements provider.Events.
func (Events) Signed(secrets []string, header http.Header, body []byte) bool {
	signature, ok := header.Get(SignatureHeader), false
	for _, secret := range secrets {
		if secret == "" { // everybody knows it
			continue
		}
		ok = hmac.Equal([]byte(Sign(secret, body)), []byte(signature)) || ok
	}
	return ok
}

// HasSignature implements provider.Events.
func (Events) HasSignature(header http.Header) bool { return header.Get(SignatureHeader) != "" }

// Sample implements provider.Events.
func (Events) Sample(secret string, now time.Time) (header http.Header, body []byte) {
	now = now.UTC()
	body = fmt.Appendf(nil, `{"id":"evt_test_%d","type":"test","created_at":%q,"data":{"email":"nobody@example.com","timestamp":%[2]q}}`, now.UnixNano(), now.Format(time.RFC3339))
	header = http.Header{"Content-Type": {"application/json"}}
	header.Set(SignatureHeader, Sign(secret, body))
	return header, body
}

// The length up to which fields are kept. No real one is longer.
const (
	maxID   = 200
	maxText = 1000
)

var errNoEvent = errors.New("it is no JSON object")

// object is a JSON object. Its fields are read one by one, so that one of a wrong
// type does not lose the others.
type object map[string]json.RawMessage

// Read implements provider.Events. It leaves out what it does not understand: that an
// address bounced is worth knowing even without the time.
func (Events) Read(body []byte, received time.Time) (relay.Event, error) {
	var o object
	if err := json.Unmarshal(body, &o); err != nil || o == nil {
		return relay.Event{}, errNoEvent
	}
	var data object
	_ = json.Unmarshal(o["data"], &data) // if it is no object, nothing is known
	e := relay.Event{
		ID:           o.text("id", maxID),
		Type:         o.text("type", maxText),
		Created:      o.time("created_at"),
		Occurred:     data.time("timestamp"),
		Email:        data.text("email", maxText),
		MessageID:    data.text("message_id", maxText),
		BounceCode:   data.text("bounce_code", maxText),
		BounceReason: data.text("bounce_reason", maxText),
		Received:     received.Round(0).UTC(),
	}
	if e.ID == "" {
		sum := sha256.Sum256(body)
		e.ID = "sha256:" + hex.EncodeToString(sum[:])
	}
	return e, nil
}

// text returns a field that is a string, or a number as it is written. A text that is
// too long is cut. An id or an address is left out instead, because a cut one would
// be another's.
func (o object) text(name string, most int) string {
	raw := bytes.TrimSpace(o[name])
	var s string
	if json.Unmarshal(raw, &s) != nil {
		if len(raw) == 0 || raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
			return ""
		}
		s = string(raw)
	}
	s = strings.TrimSpace(strings.ReplaceAll(s, "\x00", ""))
	if len(s) <= most {
		return s
	}
	if name == "id" || name == "email" || name == "message_id" {
		return ""
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// time returns a field that is a time in RFC 3339.
func (o object) time(name string) time.Time {
	text := o.text(name, maxText)
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil && at.Year() > 0 {
		return at.UTC()
	}
	return time.Time{}
}
