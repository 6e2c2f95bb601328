package deliver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/retry"
)

// try makes the attempt that was claimed and settles it. If claiming ends before
// the call has begun, the call does not begin, so that the shutdown need not wait.
func (e *Engine) try(claiming, ctx context.Context, pass *pace.Pass, c queue.Claim) {
	if !e.redirects(c.Mail.Message.Client) {
		if out, ok := e.opt.Attempts.Suppressed(attemptAt(c)); ok { // learnt after the mail came
			pass.Return()
			e.settle(ctx, c, e.decide(c, out, e.opt.Now()))
			return
		}
	}
	mail, err := e.bodies.get(claiming, c.Mail)
	if err != nil {
		pass.Return()
		e.settle(ctx, c, e.unreadable(claiming, c, err))
		return
	}
	defer e.bodies.put(mail)
	domain, begun := c.Mail.Domain, e.opt.Now()
	if !e.opt.Warming.Take(domain, c.Mail.Urgent, begun) {
		pass.Return() // fresh mail used up the day's limit in the meantime
		e.settle(ctx, c, queue.Settlement{Result: queue.Later, NotAnAttempt: true, At: begun, Due: begun, Outcome: relay.Outcome{
			Kind: relay.RateLimited, Untried: true, Cause: errors.New("the sender's domain is being warmed"),
		}})
		return
	}
	select {
	case <-c.Lost: // it took long to come here
		pass.Return()
		e.opt.Warming.Return(domain, begun)
		e.settle(ctx, c, queue.Settlement{Result: queue.Later, NotAnAttempt: true, At: begun, Due: begun, Outcome: relay.Outcome{
			Kind: relay.Unavailable, Untried: true, Cause: errors.New("the lease of this relay ended before the call"),
		}})
		return
	default:
	}
	a := attemptAt(c)
	a.Body, a.Trace, a.Lost = mail.body, mail.trace, c.Lost
	a.Redirected = func() bool { return e.redirects(c.Mail.Message.Client) }
	out := e.opt.Attempts.Make(pass, a)
	now := e.opt.Now()
	s := e.decide(c, out, now)
	if s.Result == queue.Done {
		s.Count = e.opt.Warming.Mark(domain, begun) // of the day on which it was reserved
		e.opt.Warming.Sent(domain, begun)
	} else {
		e.opt.Warming.Return(domain, begun)
	}
	e.settle(ctx, c, s)
}

// redirects reports whether the mail of a client goes to another address than its
// recipients'.
func (e *Engine) redirects(c relay.Client) bool {
	return e.set.Load().Mapping.ForClient(c).Redirect != ""
}

// attemptAt returns the attempt that was claimed, without its body.
func attemptAt(c queue.Claim) attempt.Attempt {
	m := c.Mail.Message
	return attempt.Attempt{MessageID: m.ID, From: m.From, To: c.Addr, Number: c.Attempt, Session: m.Client.Session, BounceOf: c.Mail.BounceOf, CopyOf: m.Client.CopyOf}
}

// decide returns how to settle a recipient after an attempt that ended now.
func (e *Engine) decide(c queue.Claim, out relay.Outcome, now time.Time) queue.Settlement {
	t := tried{claim: c, out: out, at: now, alone: e.opt.Pace.FailsAlone(c.Mail.Message.ID)}
	return decide(e.set.Load().Schedule, t, jitter())
}

// tried is an attempt that ended.
type tried struct {
	claim queue.Claim
	out   relay.Outcome
	at    time.Time
	alone bool // the mail failed while others were accepted
}

// decide returns how to settle a recipient after an attempt. It is pure.
//
// A 429 and a refused key do not count as attempts and never age a mail, because
// they say nothing about the mail. The recipient is due again at once. The gate or
// the breaker decides when that is, so that the order among mails is kept.
//
// If the key is refused for this mail alone, that is about the mail. The mail is
// kept, however old, but tried later and later. Otherwise it would be the first of
// its lane again at once.
func decide(schedule retry.Schedule, t tried, jitter float64) queue.Settlement {
	c, out, now := t.claim, t.out, t.at
	s := queue.Settlement{Outcome: out, At: now}
	switch {
	case out.Kind == relay.Accepted:
		s.Result = queue.Done
	case out.Kind.Permanent():
		s.Result = queue.GaveUp
	case out.Kind == relay.Unauthorized && t.alone:
		s.Result, s.Due = queue.Later, now.Add(schedule.Delay(c.Attempt, jitter))
	case out.Kind == relay.RateLimited || out.Kind == relay.Unauthorized || out.Kind == relay.Unavailable && out.Untried:
		s.Result, s.Due, s.NotAnAttempt = queue.Later, now, true
	default:
		next, again := schedule.Next(c.Since, now, c.Attempt, jitter)
		s.Result, s.Due = queue.Later, next
		if !again {
			s.Result = queue.GaveUp
		}
	}
	return s
}

// readPause is how long a mail is left alone that the storage could not read.
const readPause = time.Minute

// unreadable returns how to settle a mail that cannot be turned into a call.
//
//   - If the mapping refuses it, that is final. The mapping accepted it when it
//     came, so the settings have changed since.
//   - If the mapping panics, the next version may be better. The mail is tried
//     later and later.
//   - If the storage fails or memory is short, that is not about the mail. It is
//     tried again after a pause.
func (e *Engine) unreadable(ctx context.Context, c queue.Claim, err error) queue.Settlement {
	now := e.opt.Now()
	if ctx.Err() != nil || errors.Is(err, errMemory) {
		due := now.Add(memoryPause)
		if ctx.Err() != nil { // the engine stops; the next one need not wait
			due = now
		}
		e.opt.Log.Info("a queued mail is tried later", "id", c.Mail.Message.ID, "to", c.Addr, "cause", err)
		return queue.Settlement{Result: queue.Later, At: now, Due: due, NotAnAttempt: true,
			Outcome: relay.Outcome{Kind: relay.Unavailable, Untried: true, Cause: err}}
	}
	e.opt.Log.Error("a queued mail cannot be sent", "id", c.Mail.Message.ID, "to", c.Addr, "cause", err)
	out := relay.Outcome{Kind: relay.Refused, Detail: publicCause(err), Cause: err}
	var refusal *mail.Refusal
	switch {
	case errors.As(err, &refusal), errors.Is(err, queue.ErrDamaged):
		return queue.Settlement{Result: queue.GaveUp, At: now, Outcome: out}
	case errors.Is(err, errMapping):
		s := e.decide(c, relay.Outcome{Kind: relay.Unavailable}, now)
		s.Outcome = out
		return s
	default:
		return queue.Settlement{Result: queue.Later, At: now, Outcome: out, Due: now.Add(readPause), NotAnAttempt: true}
	}
}

func publicCause(err error) string {
	var refusal *mail.Refusal
	switch {
	case errors.As(err, &refusal):
		return refusal.Detail
	case errors.Is(err, queue.ErrDamaged):
		return "the relay's stored copy of the mail is damaged"
	default:
		return "the relay cannot read the mail"
	}
}

// settle stores the outcome of an attempt and does not give up: an attempt that is
// not settled is made again after a restart, and the recipient would get a second
// copy. Until it succeeds nothing is claimed. Once ctx ends, during the shutdown,
// it tries once more.
func (e *Engine) settle(ctx context.Context, c queue.Claim, s queue.Settlement) {
	s.Token = e.flight.end(c.Token)
	err := e.settleOnce(c, s)
	if err == nil {
		return
	}
	e.unsettled.Add(1)
	defer func() {
		if e.unsettled.Add(-1) == 0 {
			e.settling.set(nil)
		}
	}()
	e.settling.set(err)
	for err != nil && ctx.Err() == nil && !errors.Is(err, queue.ErrClosed) {
		pause(ctx, storagePause)
		err = e.settleOnce(c, s)
	}
}

// settleOnce logs the error that it returns.
func (e *Engine) settleOnce(c queue.Claim, s queue.Settlement) error {
	ctx, cancel := context.WithTimeout(context.Background(), stepTime)
	defer cancel()
	err := e.opt.Queue.Settle(ctx, s)
	log := e.opt.Log.With("id", c.Mail.Message.ID, "to", c.Addr)
	if err == nil && s.Result != queue.Later {
		e.opt.Attempts.Ended(attempt.Queued, attemptAt(c), s.Outcome, c.Mail.Message.ReceivedAt)
	}
	switch {
	case err == nil && s.Result == queue.GaveUp:
		e.pendingBounces.gaveUp(c.Mail.Message.ID)
	case err == nil && s.Result == queue.Done:
		e.pendingBounces.sent(c.Mail.Message.ID)
	case err == nil && s.Result == queue.Later:
		e.later()
	case err == nil:
	case errors.Is(err, queue.ErrStale):
		log.Info("another claim has settled it")
		return nil
	default:
		log.Error("an attempt cannot be recorded", "outcome", s.Outcome.Kind.String(), "cause", err)
	}
	return err
}

// signal sends a signal on c, unless one is waiting there.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// reason says why a recipient failed, for the bounce.
func reason(r queue.Recipient) string {
	last, tried := r.Last()
	switch {
	case !tried:
		return "it could not be sent"
	case last.Outcome.Kind.Permanent():
		return bounce.Reason(last.Outcome)
	default:
		return fmt.Sprintf("it was tried %d times and given up; at the last attempt %s", r.Attempts, bounce.Reason(last.Outcome))
	}
}

// flight has the recipients that are being tried, each with the token of its
// latest claim. The queue promises not to hand out a recipient twice. If it does
// nevertheless, the engine must not call the API twice.
type flight struct {
	mu     sync.Mutex
	tokens map[recipient]queue.Token
}

// recipient is a recipient of a mail, by its number in the envelope.
type recipient struct {
	mail   string
	number int
}

func newFlight() *flight { return &flight{tokens: map[recipient]queue.Token{}} }

func recipientOf(t queue.Token) recipient { return recipient{t.Mail, t.Recipient} }

// begin returns false if the recipient is being tried already. The attempt under
// way is then settled with t, because the new claim made its own token stale.
func (f *flight) begin(t queue.Token) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, twice := f.tokens[recipientOf(t)]
	f.tokens[recipientOf(t)] = t
	return !twice
}

// end returns the token with which the attempt must be settled.
func (f *flight) end(t queue.Token) queue.Token {
	f.mu.Lock()
	defer f.mu.Unlock()
	latest := f.tokens[recipientOf(t)]
	delete(f.tokens, recipientOf(t))
	return latest
}
