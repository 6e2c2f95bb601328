// Package attempt makes one attempt to send one mail to one recipient: through
// relay/pace, by relay/provider, with its line in the log and what it teaches
// relay/suppress. relay/intake uses it while the client waits and the queue's
// workers use it later, so that both behave the same.
package attempt

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Options are what a Sender is made from.
type Options struct {
	API          provider.Client
	Pace         *pace.Pacer
	Suppressions *suppress.List
	History      history.Noter // nil: history.Nothing
	Log          *slog.Logger
	Metrics      prometheus.Registerer // nil: none

	// LeaveProbes reports whether a queue's workers test an API that is down:
	// whoever waits for Try must then not wait for such a test. nil: they do not.
	LeaveProbes func() bool
}

// Sender makes attempts; it is safe for concurrent use.
type Sender struct {
	opt     Options
	metrics *metrics
}

// New returns a Sender.
func New(o Options) *Sender {
	if o.History == nil {
		o.History = history.Nothing{}
	}
	if o.LeaveProbes == nil {
		o.LeaveProbes = func() bool { return false }
	}
	return &Sender{opt: o, metrics: newMetrics(o.Metrics)}
}

// Attempt is what is to be tried.
type Attempt struct {
	MessageID string // the queue id
	From      string // envelope sender, for the log
	To        string
	Number    int // 1 for the first
	Body      provider.Body

	// For the log, where they are known.
	Session  string // of the SMTP client
	BounceOf string // the mail that this one is a bounce of
	Trace    string // the mail's W3C traceparent
}

// Try makes one attempt. It waits for its turn no longer than turn allows. A 429
// is no attempt: while turn allows, it is waited out and tried again, each time
// through a gate that stays closed for at least a second.
func (s *Sender) Try(turn context.Context, a Attempt) relay.Outcome {
	for {
		pass, err := s.enter(turn)
		if err != nil {
			out := s.notMade(err)
			s.record(a, out)
			return out
		}
		if out := s.Make(pass, a); out.Kind != relay.RateLimited {
			return out
		}
	}
}

func (s *Sender) enter(turn context.Context) (*pace.Pass, error) {
	if down := s.opt.Pace.Down(); down != nil && s.opt.LeaveProbes() {
		return nil, down
	}
	return s.opt.Pace.Enter(turn)
}

// Make makes one attempt with a pass, which it ends. It makes none if the
// recipient was suppressed while the mail waited for the pass.
//
// Nothing but the API's time-out ends a call that has begun: the API may send a
// mail whose call was cut off, and it would be sent again.
func (s *Sender) Make(pass *pace.Pass, a Attempt) relay.Outcome {
	if out, ok := s.Suppressed(a); ok {
		pass.Return()
		return out
	}
	pass.For(a.MessageID, a.From)
	out := s.opt.API.Send(context.Background(), provider.Request{
		IdempotencyKey: IdempotencyKey(a.MessageID, a.To),
		To:             a.To,
		Body:           a.Body,
	})
	pass.Leave(out)
	s.record(a, out)
	if out.Kind == relay.Suppressed {
		s.opt.Suppressions.Learn(a.To, suppress.Provider, out.Detail, time.Now())
	}
	return out
}

// Suppressed is the outcome for a recipient who is known to be suppressed, whom
// no call is worth; false for any other.
func (s *Sender) Suppressed(a Attempt) (relay.Outcome, bool) {
	if _, known := s.opt.Suppressions.Lookup(a.To, time.Now()); !known {
		return relay.Outcome{}, false
	}
	out := relay.Outcome{Kind: relay.Suppressed, Untried: true}
	s.record(a, out)
	return out, true
}

// notMade is the outcome of an attempt whose turn did not come.
func (s *Sender) notMade(err error) relay.Outcome {
	out := relay.Outcome{Kind: relay.RateLimited, Untried: true, Cause: err, RetryAfter: time.Second}
	var busy *pace.Busy
	if !errors.As(err, &busy) {
		return out
	}
	out.RetryAfter = busy.Wait
	s.metrics.postponed.WithLabelValues(whyLabel(busy.Why)).Inc()
	switch busy.Why {
	case pace.Down:
		out.Kind = relay.Unavailable
	case pace.KeyBad, pace.Forbidden:
		out.Kind = relay.Unauthorized
	}
	return out
}

// record writes an attempt down: the log and the history tell the same.
func (s *Sender) record(a Attempt, out relay.Outcome) {
	s.log(a, out)
	s.opt.History.Note(history.Tried{ID: a.MessageID, From: a.From, To: a.To, Number: a.Number, Outcome: out, At: time.Now()})
}

// log writes the one line an attempt has. It names the envelope and never the
// content.
func (s *Sender) log(a Attempt, out relay.Outcome) {
	level := slog.LevelInfo
	switch {
	case out.Untried: // whatever stood in the way has a line of its own
	case out.Kind == relay.Unauthorized:
		level = slog.LevelError
	case !out.Kind.Settled():
		level = slog.LevelWarn
	}
	attrs := append(a.ids(),
		slog.String("outcome", out.Kind.String()),
		slog.Int("status", out.Status),
		slog.String("message_id", out.MessageID),
		slog.Int("attempt", a.Number),
		slog.Duration("duration", out.Took),
	)
	if out.Untried {
		attrs = append(attrs, slog.Bool("untried", true))
	}
	if out.Detail != "" {
		attrs = append(attrs, slog.String("api_says", out.Detail))
	}
	if out.Kind == relay.RateLimited {
		attrs = append(attrs, slog.Duration("retry_after", out.RetryAfter))
	}
	if out.Cause != nil {
		attrs = append(attrs, slog.String("cause", out.Cause.Error()))
	}
	s.opt.Log.LogAttrs(context.Background(), level, "recipient", attrs...)
}

// ids are what a line about a recipient can be found by.
func (a Attempt) ids() []slog.Attr {
	attrs := []slog.Attr{slog.String("id", a.MessageID), slog.String("from", a.From), slog.String("to", a.To)}
	for _, more := range []slog.Attr{slog.String("session", a.Session), slog.String("bounce_of", a.BounceOf), slog.String("trace", a.Trace)} {
		if more.Value.String() != "" {
			attrs = append(attrs, more)
		}
	}
	return attrs
}
