package webhook

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/smtp2rest/smtp2rest/relay"
)

// How much of a field is kept. Nothing real is longer.
const (
	maxID   = 200
	maxText = 1000
)

var errNoEvent = errors.New("it is no JSON object")

// object is a JSON object whose fields are looked at one by one, so that one
// of a wrong type does not lose the others.
type object map[string]json.RawMessage

// parse reads an event. It is signed, so that whoever wrote it is not an
// attacker; but what it does not understand, it leaves out: that an address
// bounced is worth knowing without the time when it did. received is by our
// clock.
func parse(body []byte, received time.Time) (relay.Event, error) {
	var o object
	if err := json.Unmarshal(body, &o); err != nil || o == nil {
		return relay.Event{}, errNoEvent
	}
	var data object
	_ = json.Unmarshal(o["data"], &data) // of another type: nothing is known
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

// text is a field that is a string, or a number as it is written. One that is
// too long is cut, and an id or address made of it would be another's: it is
// left out by whoever needs it whole.
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

// time is a field that is a time in RFC 3339.
func (o object) time(name string) time.Time {
	text := o.text(name, maxText)
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil && at.Year() > 0 {
		return at.UTC()
	}
	return time.Time{}
}
