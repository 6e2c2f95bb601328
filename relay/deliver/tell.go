package deliver

import (
	"context"
	"errors"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

const (
	bouncesAtOnce = 50
	headerRead    = 64 << 10
	// graceCheck is how often mails are looked for whose grace has passed,
	// while there are any with untold failures.
	graceCheck = time.Minute
)

// tellSenders writes the bounces that are due: after a failure, and while some
// are still waiting for the rest of their mail, once a minute.
func (e *Engine) tellSenders(ctx context.Context) {
	for ctx.Err() == nil {
		if err := e.tellDue(ctx); err != nil && ctx.Err() == nil {
			e.opt.Log.Error("bounces cannot be written", "cause", err)
		}
		again := time.Duration(-1)
		if stats, err := e.opt.Queue.Stats(ctx); err != nil || stats.Unbounced > 0 {
			again = graceCheck
		}
		await(ctx, again, e.failed, nil, nil)
	}
}

func (e *Engine) tellDue(ctx context.Context) error {
	last := ""
	for {
		due, err := e.opt.Queue.BouncesDue(ctx, time.Now(), e.set.Load().BounceGrace, bouncesAtOnce)
		if err != nil || len(due) == 0 {
			return err
		}
		first := due[0].Mail.Message.ID
		if first == last { // a store that does not keep its word must not make a hot loop
			return errors.New("mail " + first + " is not marked as bounced")
		}
		last = first
		for _, b := range due {
			if err := e.tell(ctx, b); err != nil {
				return err
			}
		}
	}
}

// tell enqueues the bounce of one mail, or decides that there must be none.
func (e *Engine) tell(ctx context.Context, b queue.Bounce) error {
	numbers := make([]int, len(b.Failed))
	for i, r := range b.Failed {
		numbers[i] = r.Number
	}
	mail, came, err := e.bounceFor(ctx, b, numbers)
	if err != nil {
		return err
	}
	err = e.opt.Queue.Bounced(ctx, b.Mail.Message.ID, numbers, mail)
	if errors.Is(err, queue.ErrNotFound) {
		return nil // dropped meanwhile
	}
	if err == nil {
		if mail != nil {
			e.told.count(suppress.Normalise(mail.Recipients[0].Addr), time.Now())
		}
		e.metrics.bounced(came)
		e.noteTold(b, mail)
	}
	return err
}

// noteTold notes the bounce, and in the story of its mail that it was written.
func (e *Engine) noteTold(b queue.Bounce, mail *queue.Mail) {
	told := history.Told{ID: b.Mail.Message.ID, At: time.Now()}
	for _, r := range b.Failed {
		told.Recipients = append(told.Recipients, r.Addr)
	}
	if mail != nil {
		told.Bounce = mail.Message.ID
		e.opt.History.Note(history.NewCame(&mail.Message, history.Head{BounceOf: told.ID}))
	}
	e.opt.History.Note(told)
}

// bounceFor writes the bounce; nil is that nobody is to be told.
func (e *Engine) bounceFor(ctx context.Context, b queue.Bounce, numbers []int) (*queue.Mail, telling, error) {
	now := time.Now()
	m := b.Mail.Message
	raw, err := readHead(ctx, e.opt.Queue, m.ID, headerRead)
	if err != nil && !errors.Is(err, queue.ErrDamaged) && !errors.Is(err, queue.ErrNotFound) {
		return nil, "", err
	}
	m.Raw = raw // damaged or gone: the bounce quotes no header
	failed := make([]bounce.Failure, len(b.Failed))
	for i, r := range b.Failed {
		failed[i] = bounce.Failure{Recipient: r.Addr, Reason: reason(r)}
	}
	text, to, ok := bounce.Compose(e.set.Load().Bounce, &m, failed, now)
	log := e.opt.Log.With("id", m.ID, "from", m.From, "recipients", len(failed))
	switch {
	case !ok:
		log.Warn("given up; nobody can be told")
		return nil, nobody, nil
	case e.told.full(suppress.Normalise(to), now, e.set.Load().BouncesPerHour):
		log.Warn("given up; the sender was told of too many failures in the last hour to be told of this one", "to", to)
		return nil, tooMany, nil
	}
	mail := queue.NewMail(relay.Message{
		ID: queue.BounceID(m.ID, numbers), Recipients: []string{to}, Raw: text, ReceivedAt: now,
	})
	mail.BounceOf = m.ID
	mail.Urgent = true // bounces are few and a sender waits for them
	log.Info("given up; the sender is told", "bounce", mail.Message.ID, "to", to)
	return &mail, told, nil
}

// hourly counts how often something happened to each of many names in an hour.
// It forgets everything each hour, so it cannot grow for longer. It is for one
// goroutine.
type hourly struct {
	hour  time.Time
	times map[string]int
}

func (h *hourly) count(name string, now time.Time) {
	h.begin(now)
	h.times[name]++
}

// full reports whether it happened as often as may be; a limit of 0 is none.
func (h *hourly) full(name string, now time.Time, limit int) bool {
	h.begin(now)
	return limit > 0 && h.times[name] >= limit
}

func (h *hourly) begin(now time.Time) {
	if hour := now.Truncate(time.Hour); !hour.Equal(h.hour) {
		h.hour, h.times = hour, map[string]int{}
	}
}
