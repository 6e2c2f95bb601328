package deliver

import (
	"context"
	"errors"
	"fmt"
	"sync"
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
	// graceCheck is how often all mail is looked at, for what became due with
	// time and for failures that the engine was not told of.
	graceCheck = time.Minute
	// headerPatience is how long a bounce waits for a mail that cannot be read,
	// to quote its header.
	headerPatience = 5 * time.Minute
	// mostUnreadable bounds the mails that are remembered as such. For any
	// others the header is not waited for.
	mostUnreadable = 1000
	// mostLearnt bounds the mails that are read at a start to learn which have a
	// failure of which the sender is to be told.
	mostLearnt = 1000
)

// tellSenders writes the bounces that are due: of a mail when one of its
// recipients came to its end, and of all mail once a minute.
func (e *Engine) tellSenders(ctx context.Context) {
	e.learnUntold(ctx)
	var next time.Time
	for ctx.Err() == nil {
		mails, all := e.untold.take()
		var err error
		if all || !time.Now().Before(next) {
			err = e.tellAll(ctx)
			next = time.Now().Add(graceCheck)
		} else {
			err = e.tellSome(ctx, mails)
		}
		if err != nil && ctx.Err() == nil {
			e.opt.Log.Error("bounces cannot be written", "cause", err)
		}
		await(ctx, max(time.Until(next), 0), e.untold.wake, nil, nil)
	}
}

// learnUntold takes up which mails have a failure from before a restart that is
// not told of: some of them, the oldest. The others are found once a minute.
func (e *Engine) learnUntold(ctx context.Context) {
	mails, err := e.opt.Queue.BouncesDue(ctx, e.opt.Now(), 0, mostLearnt)
	if err != nil {
		return // tellAll meets the same error, and says so
	}
	for _, b := range mails {
		e.untold.gaveUp(b.Mail.Message.ID)
	}
}

// unwritten are mails whose bounce could not be written, and why.
type unwritten struct {
	mails map[string]bool
	first error
}

func (u *unwritten) add(id string, err error) {
	if u.mails == nil {
		u.mails, u.first = map[string]bool{}, fmt.Errorf("mail %s: %w", id, err)
	}
	u.mails[id] = true
}

// err is nil when there are none.
func (u *unwritten) err() error {
	if len(u.mails) < 2 {
		return u.first
	}
	return fmt.Errorf("%w (and %d more mails)", u.first, len(u.mails)-1)
}

// tellSome writes the bounces of these mails for which nothing else is waited.
func (e *Engine) tellSome(ctx context.Context, mails map[string]bool) error {
	var errs unwritten
	for id := range mails {
		m, err := e.opt.Queue.Get(ctx, id)
		switch {
		case errors.Is(err, queue.ErrNotFound): // dropped, or sent after all
			e.untold.done(id)
			continue
		case err != nil:
			errs.add(id, err)
			continue
		}
		b, open := queue.Bounce{Mail: m}, false
		for _, r := range m.Recipients {
			open = open || r.State.Open()
			if r.State == queue.Failed && !r.Bounced {
				b.Failed = append(b.Failed, r)
			}
		}
		switch {
		case len(b.Failed) == 0:
			e.untold.done(id)
		case !open:
			if err := e.tell(ctx, b); err != nil {
				errs.add(id, err)
			}
		}
	}
	return errs.err()
}

// tellAll writes all bounces that are due. One that cannot be written holds up
// no other: it is passed over until the next time.
func (e *Engine) tellAll(ctx context.Context) error {
	var errs unwritten
	told := map[string]bool{} // in the step before
	for len(errs.mails) < mostUnreadable && ctx.Err() == nil {
		due, err := e.opt.Queue.BouncesDue(ctx, e.opt.Now(), e.set.Load().BounceGrace, bouncesAtOnce+len(errs.mails))
		if err != nil {
			return err
		}
		before := told
		told = map[string]bool{}
		for _, b := range due {
			id := b.Mail.Message.ID
			switch {
			case errs.mails[id]:
			case before[id]: // a store that does not keep its word must not make a hot loop
				errs.add(id, errors.New("it is not marked as bounced"))
			default:
				if err := e.tell(ctx, b); err != nil {
					errs.add(id, err)
				} else {
					told[id] = true
				}
			}
		}
		if len(told) == 0 {
			break
		}
	}
	return errs.err()
}

// tell enqueues the bounce of one mail, or decides that there must be none.
func (e *Engine) tell(ctx context.Context, b queue.Bounce) error {
	header, err := e.header(ctx, b.Mail.Message.ID)
	if err != nil {
		return err
	}
	mail, came := e.bounceFor(b, header)
	err = e.opt.Queue.Bounced(ctx, b.Mail.Message.ID, numbersOf(b), mail)
	if errors.Is(err, queue.ErrNotFound) { // dropped meanwhile
		e.forget(b.Mail.Message.ID)
		return nil
	}
	if err == nil {
		e.forget(b.Mail.Message.ID)
		e.noteTold(b, mail, came)
	}
	return err
}

// forget forgets what was known of a mail whose sender is told.
func (e *Engine) forget(id string) {
	e.untold.done(id)
	delete(e.unread, id)
}

// header reads the header of a mail. A mail that is damaged or gone has none,
// and neither has one that cannot be read for too long.
func (e *Engine) header(ctx context.Context, id string) ([]byte, error) {
	raw, err := readHead(ctx, e.opt.Queue, id, headerRead)
	switch {
	case err == nil:
		return raw, nil
	case errors.Is(err, queue.ErrDamaged), errors.Is(err, queue.ErrNotFound):
		return raw, nil
	case ctx.Err() != nil:
		return nil, err
	}
	since, known := e.unread[id]
	if !known && len(e.unread) < mostUnreadable {
		since = time.Now()
		e.unread[id] = since
	}
	if time.Since(since) < headerPatience {
		return nil, err
	}
	e.opt.Log.Warn("the bounce of a mail that cannot be read does not quote its header", "id", id, "cause", err)
	return nil, nil
}

func numbersOf(b queue.Bounce) []int {
	numbers := make([]int, len(b.Failed))
	for i, r := range b.Failed {
		numbers[i] = r.Number
	}
	return numbers
}

// noteTold counts and notes what came of a bounce, and in the history of its
// mail that it was written.
func (e *Engine) noteTold(b queue.Bounce, mail *queue.Mail, came bounce.Telling) {
	now := e.opt.Now()
	e.opt.Tally.Count(came, len(b.Failed), now)
	told := history.Told{ID: b.Mail.Message.ID, At: now}
	for _, r := range b.Failed {
		told.Recipients = append(told.Recipients, r.Addr)
	}
	if mail != nil {
		e.told.count(suppress.Normalise(mail.Recipients[0].Addr), now)
		told.Bounce = mail.Message.ID
		e.opt.History.Note(history.NewCame(&mail.Message, history.Head{BounceOf: told.ID}))
	}
	e.opt.History.Note(told)
}

// bounceFor writes the bounce; nil is that nobody is to be told.
func (e *Engine) bounceFor(b queue.Bounce, header []byte) (*queue.Mail, bounce.Telling) {
	now := e.opt.Now()
	m := b.Mail.Message
	m.Raw = header
	failed := make([]bounce.Failure, len(b.Failed))
	for i, r := range b.Failed {
		failed[i] = bounce.Failure{Recipient: r.Addr, Reason: reason(r)}
	}
	set := e.set.Load()
	text, to, ok := bounce.Compose(set.Bounce, &m, failed, now)
	log := e.opt.Log.With("id", m.ID, "from", m.From, "recipients", len(failed))
	switch {
	case !ok:
		log.Warn("given up; nobody can be told")
		return nil, bounce.Nobody
	case e.told.full(suppress.Normalise(to), now, set.BouncesPerHour):
		log.Warn("given up; the sender was told of too many failures in the last hour to be told of this one", "to", to)
		return nil, bounce.TooMany
	}
	mail := queue.NewMail(relay.Message{
		ID: queue.BounceID(m.ID, numbersOf(b)), Recipients: []string{to}, Raw: text, ReceivedAt: now,
	})
	mail.BounceOf = m.ID
	mail.Urgent = true // bounces are few and a sender waits for them
	log.Info("given up; the sender is told", "bounce", mail.Message.ID, "to", to)
	return &mail, bounce.Told
}

// hourly counts how often something happened to each of many names in an hour.
// It forgets everything each hour, so it cannot grow for longer.
type hourly struct {
	mu    sync.Mutex
	hour  time.Time
	times map[string]int
}

func (h *hourly) count(name string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.begin(now)
	h.times[name]++
}

// full reports whether it happened as often as may be; a limit of 0 is none.
func (h *hourly) full(name string, now time.Time, limit int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.begin(now)
	return limit > 0 && h.times[name] >= limit
}

func (h *hourly) begin(now time.Time) {
	if hour := now.Truncate(time.Hour); !hour.Equal(h.hour) {
		h.hour, h.times = hour, map[string]int{}
	}
}
