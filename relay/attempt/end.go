package attempt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/mail"
)

// Way is how a recipient came to its end.
type Way string

// The ways: while the client waited, or by the queue.
const (
	Direct Way = "direct"
	Queued Way = "queue"
)

// End is what a recipient came to for good. The set is closed.
type End string

// The ends. All but Sent are failures.
const (
	Sent       End = "sent"
	Suppressed End = "suppressed"
	Refused    End = "refused"
	TooLarge   End = "too_large"
	Expired    End = "expired"    // given up after delivery.max_age
	Unreadable End = "unreadable" // no call could be made of the stored mail
)

func ends() []End { return []End{Sent, Suppressed, Refused, TooLarge, Expired, Unreadable} }

// EndOf is the end of a recipient that is settled by an outcome, or was given
// up after it.
func EndOf(out relay.Outcome) End {
	switch {
	case out.Kind == relay.Accepted:
		return Sent
	case out.Kind == relay.Suppressed:
		return Suppressed
	case out.Kind == relay.TooLarge:
		return TooLarge
	case out.Kind == relay.Refused && out.Status != 0:
		return Refused
	case out.Kind == relay.Refused:
		return Unreadable
	default:
		return Expired
	}
}

// Ended counts a recipient that came to its end. The attempt's own line in the
// log said so already, and its fact in the history, unless it is the age that
// ended it.
func (s *Sender) Ended(way Way, a Attempt, out relay.Outcome, received time.Time) {
	end, now := EndOf(out), time.Now()
	s.metrics.ended(way, end, now.Sub(received))
	if end != Expired && end != Unreadable {
		return
	}
	attrs := append(a.ids(), slog.String("outcome", "given_up"), slog.String("why", string(end)),
		slog.Int("attempts", a.Number), slog.Duration("age", now.Sub(received)))
	s.opt.Log.LogAttrs(context.Background(), slog.LevelWarn, "recipient", attrs...)
	why := out.Detail
	if refusal, ok := errors.AsType[*mail.Refusal](out.Cause); ok {
		why = refusal.Logged()
	}
	if end == Expired {
		why = fmt.Sprintf("tried %d times in %s", a.Number, now.Sub(received).Round(time.Second))
	}
	s.opt.History.Note(history.GaveUp{ID: a.MessageID, From: a.From, To: a.To, Why: why, At: now})
}
