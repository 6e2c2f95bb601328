package deliver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/archive"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

const (
	bouncesAtOnce = 50
	headerRead    = 64 << 10
	// graceCheck is how often all mail is checked, for bounces that became due
	// with time and for failures that the engine was not told of.
	graceCheck = time.Minute
	// headerPatience is how long a bounce waits for a mail that cannot be read, to
	// quote its header.
	headerPatience = 5 * time.Minute
	// mostUnreadable bounds the mails that are remembered as unreadable. For any
	// more, the bounce does not wait for the header.
	mostUnreadable = 1000
	// mostLearnt bounds the mails with a failure that are read at the start.
	mostLearnt = 1000
)

// tellSenders writes the bounces that are due: for a mail when one of its
// recipients comes to its end, and for all mail once a minute.
func (e *Engine) tellSenders(ctx context.Context) {
	e.learnPending(ctx)
	var next time.Time
	for ctx.Err() == nil {
		mails, all := e.pendingBounces.take()
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
		await(ctx, max(time.Until(next), 0), e.pendingBounces.wake, nil, nil)
	}
}

// learnPending reads which mails had a failure before the restart whose sender was
// not told: the oldest mostLearnt. The check once a minute finds the others.
func (e *Engine) learnPending(ctx context.Context) {
	mails, err := e.opt.Queue.BouncesDue(ctx, e.opt.Now(), 0, mostLearnt)
	if err != nil {
		return // tellAll will meet the same error and report it
	}
	for _, b := range mails {
		e.pendingBounces.gaveUp(b.Mail.Message.ID)
	}
}

// unwritten has the mails whose bounce could not be written, and the first error.
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

// err returns nil if there are none.
func (u *unwritten) err() error {
	if len(u.mails) < 2 {
		return u.first
	}
	return fmt.Errorf("%w (and %d more mails)", u.first, len(u.mails)-1)
}

// tellSome writes the bounces of these mails, if no recipient of the mail is open.
func (e *Engine) tellSome(ctx context.Context, mails map[string]bool) error {
	var errs unwritten
	for id := range mails {
		m, err := e.opt.Queue.Get(ctx, id)
		switch {
		case errors.Is(err, queue.ErrNotFound): // dropped, or sent after all
			e.pendingBounces.done(id)
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
			e.pendingBounces.done(id)
		case !open:
			if err := e.tell(ctx, b); err != nil {
				errs.add(id, err)
			}
		}
	}
	return errs.err()
}

// tellAll writes all bounces that are due. It skips a bounce that cannot be
// written until the next time, so that others do not wait for it.
func (e *Engine) tellAll(ctx context.Context) error {
	var errs unwritten
	told := map[string]bool{} // in the step before
	for len(errs.mails) < mostUnreadable && ctx.Err() == nil {
		due, err := e.opt.Queue.BouncesDue(ctx, e.opt.Now(), e.set.Load().Grace, bouncesAtOnce+len(errs.mails))
		if err != nil {
			return err
		}
		before := told
		told = map[string]bool{}
		for _, b := range due {
			id := b.Mail.Message.ID
			switch {
			case errs.mails[id]:
			case before[id]: // a storage that forgets must not cause a hot loop
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

// tell enqueues the bounce of one mail, or records that there is none.
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
		e.recordBounce(b, mail, came)
	}
	return err
}

// forget drops what was remembered of a mail whose sender was told.
func (e *Engine) forget(id string) {
	e.pendingBounces.done(id)
	delete(e.unread, id)
}

// header reads the header of a mail. It returns none for a mail that is damaged or
// gone, or that could not be read for headerPatience.
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

// recordBounce records and counts what came of a bounce.
func (e *Engine) recordBounce(b queue.Bounce, mail *queue.Mail, came bounce.Telling) {
	now := e.opt.Now()
	if b.Mail.Message.Client.CopyOf != "" {
		e.opt.Copies.Count(archive.Failed, now)
		return
	}
	e.opt.Tally.Count(came, len(b.Failed), now)
	told := history.Told{ID: b.Mail.Message.ID, At: now}
	for _, r := range b.Failed {
		told.Recipients = append(told.Recipients, r.Addr)
	}
	if mail != nil {
		e.sentTo.count(suppress.Normalise(mail.Recipients[0].Addr), now)
		told.Bounce = mail.Message.ID
		e.opt.History.Note(history.NewCame(&mail.Message, history.Head{BounceOf: told.ID}))
	}
	e.opt.History.Note(told)
}

// bounceFor composes the bounce; nil if nobody is to be told.
func (e *Engine) bounceFor(b queue.Bounce, header []byte) (*queue.Mail, bounce.Telling) {
	now := e.opt.Now()
	m := b.Mail.Message
	if of := m.Client.CopyOf; of != "" {
		e.opt.Log.Warn("a copy for the archive was given up", "id", m.ID, "copy_of", of, "to", b.Failed[0].Addr, "why", reason(b.Failed[0]))
		return nil, bounce.Nobody
	}
	m.Raw = header
	failed := make([]bounce.Failure, len(b.Failed))
	for i, r := range b.Failed {
		failed[i] = bounce.Failure{Recipient: r.Addr, Reason: reason(r)}
	}
	by := e.engineOf(m.Account)
	set := by.set.Load()
	text, to, ok := bounce.Compose(set.Bounce, &m, failed, now)
	log := e.opt.Log.With("id", m.ID, "from", m.From, "recipients", len(failed))
	switch {
	case !ok:
		log.Warn("given up; nobody can be told")
		return nil, bounce.Nobody
	case e.sentTo.full(suppress.Normalise(to), now, set.PerHour):
		log.Warn("given up; the sender was told of too many failures in the last hour to be told of this one", "to", to)
		return nil, bounce.TooMany
	}
	mail := queue.NewMail(relay.Message{
		ID: queue.BounceID(m.ID, numbersOf(b)), Recipients: []string{to}, Raw: text, ReceivedAt: now, Account: m.Account,
		Client: relay.Client{Redirect: set.Mapping.ForClient(m.Client).Redirect},
	})
	mail.BounceOf = m.ID
	mail.Urgent = true // bounces are few and a sender waits for them
	log.Info("given up; the sender is told", "bounce", mail.Message.ID, "to", to)
	return &mail, bounce.Told
}

// hourly counts events by name in the current hour. Every hour it starts anew, so
// it does not grow for longer.
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

// full reports whether name has reached the limit; 0 is no limit.
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

// mostPending bounds the mails that pendingBounces remembers. The check of all mail every
// graceCheck finds the others.
const mostPending = 10_000

// pendingBounces remembers which mails may have a bounce to write, so that tellSenders
// need not check all mail whenever a recipient comes to its end.
type pendingBounces struct {
	wake chan struct{} // signals that there is something to check

	mu     sync.Mutex
	failed map[string]bool // mails with a failure of which the sender was not told
	ended  map[string]bool // those of them to check, because a recipient came to its end
	all    bool            // check all mail
}

func newPendingBounces() *pendingBounces {
	return &pendingBounces{wake: make(chan struct{}, 1), failed: map[string]bool{}, ended: map[string]bool{}}
}

// gaveUp records that a recipient of a mail failed.
func (u *pendingBounces) gaveUp(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.failed) < mostPending {
		u.failed[id], u.ended[id] = true, true
	}
	signal(u.wake)
}

// sent records that a recipient has the mail. It may be the last one that the
// bounce waited for.
func (u *pendingBounces) sent(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.failed[id] {
		u.ended[id] = true
		signal(u.wake)
	}
}

// checkAll makes tellSenders check all mail.
func (u *pendingBounces) checkAll() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all = true
	signal(u.wake)
}

// take returns what to check, and starts anew.
func (u *pendingBounces) take() (mails map[string]bool, all bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	mails, all = u.ended, u.all
	u.ended, u.all = map[string]bool{}, false
	return mails, all
}

// done forgets a mail that has no bounce to write any more.
func (u *pendingBounces) done(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.failed, id)
}
