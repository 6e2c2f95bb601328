package records

import (
	"slices"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// eventsShown bounds how many events of one recipient are shown: somebody may
// open a mail very often.
const eventsShown = 200

// addEvents joins what the provider told of a recipient to its story. The API
// gives each recipient a message_id of its own.
func addEvents(c *db.Conn, r *history.Recipient) error {
	if r.APIID == "" {
		return nil
	}
	taken := takenAt(*r)
	err := c.Each(func(row db.Row) error {
		e := readEvent(row)
		at := e.Occurred
		if at.IsZero() {
			at = e.Created
		}
		if at.IsZero() || at.Before(taken) { // then by our own clock
			at = later(e.Received, taken)
		}
		r.Steps = append(r.Steps, history.Step{At: at, What: history.StepEvent, Event: &history.Event{
			ID: e.ID, Type: e.Type, Email: e.Email, MessageID: e.MessageID, Code: e.BounceCode, Reason: e.BounceReason, Received: e.Received,
		}})
		r.State = r.State.After(e.Type)
		return nil
	}, "SELECT "+eventColumns+" FROM events WHERE message_id = ? AND message_id <> '' ORDER BY seq LIMIT ?", r.APIID, eventsShown)
	slices.SortStableFunc(r.Steps, func(a, b history.Step) int { return a.At.Compare(b.At) })
	return err
}

// takenAt is when the API took the mail. Nothing that the provider tells of it
// happened before; but its times are whole seconds, and its clock is not ours.
func takenAt(r history.Recipient) time.Time {
	for _, s := range r.Steps {
		if s.Attempt != nil && s.Attempt.MessageID == r.APIID {
			return s.At
		}
	}
	return time.Time{}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
