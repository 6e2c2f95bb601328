package admin

import (
	"errors"
	"fmt"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// say puts every step of a story in words.
func say(m *history.Mail) {
	for i := range m.Recipients {
		for j := range m.Recipients[i].Steps {
			s := &m.Recipients[i].Steps[j]
			s.Words = stepText(*s)
		}
	}
}

func stepText(s history.Step) string {
	switch s.What {
	case history.StepAnswered:
		return "the client was told " + s.Text
	case history.StepTried:
		if s.Attempt != nil {
			return attemptText(*s.Attempt)
		}
	case history.StepGaveUp:
		return "given up: " + s.Text
	case history.StepTold:
		return "the sender is told, by mail " + s.Text
	case history.StepNotTold:
		return "failed, and nobody can be told"
	case history.StepDropped:
		return "dropped from the queue by an operator; nobody is told"
	case history.StepRetried:
		return "to be tried again, says an operator"
	case history.StepEvent:
		if s.Event != nil {
			return eventText(*s.Event)
		}
	}
	return string(s.What)
}

func attemptText(a history.Attempt) string {
	o := relay.Outcome{Kind: kindOf(a.Outcome), Status: a.Status, MessageID: a.MessageID, Detail: a.Detail}
	if a.Cause != "" {
		o.Cause = errors.New(a.Cause)
	}
	if a.Untried {
		if a.Cause != "" {
			return "not tried: " + a.Cause
		}
		return "not tried: " + kindText(o)
	}
	return fmt.Sprintf("attempt %d: %s", a.Number, outcomeText(queue.Attempt{Outcome: o, Unknown: a.Outcome == "unknown"}))
}

func kindOf(name string) relay.Kind {
	for _, k := range relay.Kinds() {
		if k.String() == name {
			return k
		}
	}
	return relay.Unavailable
}

// eventText says what the provider told.
func eventText(e history.Event) string {
	words := map[string]string{
		relay.EventHardBounce:  "bounced for good",
		relay.EventSoftBounce:  "bounced for now",
		relay.EventComplaint:   "the recipient complained of it as spam",
		relay.EventUnsubscribe: "the recipient unsubscribed",
	}[e.Type]
	if words == "" {
		words = e.Type // delivered, opened, clicked, sent, or one that is new
	}
	if why := strings.TrimSpace(e.Code + " " + e.Reason); why != "" {
		words += ": " + why
	}
	return "the provider tells: " + words
}
