package history

import (
	"slices"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/history"
)

// The provider's events have whole seconds, and still come after what they are about.
func TestStepsAreSorted(t *testing.T) {
	second := time.Date(2026, 11, 25, 21, 1, 51, 0, time.UTC)
	at := func(ms int) time.Time { return second.Add(time.Duration(ms) * time.Millisecond) }
	event := &history.Event{}
	m := history.Mail{Received: at(924), Answered: at(926)}
	m.Reply = "250"
	m.Recipients = []history.Recipient{{Addr: "bob@example.net", Steps: []history.Step{
		{At: at(0), Words: "delivered", Event: event}, {At: at(925), Words: "attempt"},
		{At: at(930), Words: "a precise event", Event: event}, {At: at(1000), Words: "opened", Event: event}, {At: at(1500), Words: "a step later"},
	}}}
	var got []string
	for _, l := range steps(m) {
		got = append(got, l.words)
	}
	want := []string{"received", "attempt", "the client was told 250", "a precise event", "delivered", "a step later", "opened"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
