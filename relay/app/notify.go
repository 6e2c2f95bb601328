package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/notify"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store"
)

// notifySettings are those of who is told of failures.
func notifySettings(c *config.Config) config.Notify { return c.Notify }

// buildNotify makes what tells an operator of failures. What it tells is what status
// says, at the same time and in the same words.
func (d *daemon) buildNotify(ctx context.Context, c *core) error {
	q := c.kept.queue
	status := admin.New(d.adminOptions(c))
	own := &ownMail{queue: q, history: c.kept.history, log: d.opt.Log}
	d.onStatus(func(ctx context.Context, now time.Time) []admin.Warning {
		return limitWarnings(ctx, c.kept, d.config().Notify, now)
	})
	set := d.config().Notify
	o := notify.Options{
		Settings: set.Settings, Secret: set.Secret.Reveal(), Host: func() string { return d.config().Hostname }, Version: d.opt.Version,
		Look: func(ctx context.Context) ([]notify.Cause, error) {
			return causes(ctx, status, own, d.config().Notify)
		},
		Send: func(ctx context.Context, n notify.Notification, to []string) error {
			account := accountFor(accountNames(d.config()), n)
			return own.send(ctx, n, account, defaultSender(d.config(), account), to)
		},
		Log: d.opt.Log, Metrics: d.metrics, Dial: d.opt.dial,
	}
	if q != nil {
		o.Load = func(ctx context.Context, name string) (string, error) { return q.Mark(ctx, markNotified+name) }
		o.Save = func(ctx context.Context, name, value string) error { return q.SetMark(ctx, markNotified+name, value) }
	}
	if err := own.load(ctx); err != nil {
		return err
	}
	n := notify.New(o)
	d.onStatus(func(context.Context, time.Time) []admin.Warning { return notifyWarnings(n.Trouble()) })
	if err := n.Start(ctx); err != nil {
		return err
	}
	d.onStop(func(context.Context) error { n.Stop(); return nil })
	onReload(d, "notify", notifySettings, func(s config.Notify) (func(), error) {
		return n.Prepare(s.Settings, s.Secret.Reveal()), nil
	})
	return nil
}

// The marks of what was told, by the channel, and of the mails by which it was told.
const (
	markNotified    = "notify/told/"
	markNotifyMails = "notify/mails"
)

// causes are the warnings that somebody is told of.
func causes(ctx context.Context, status *admin.Local, own *ownMail, set config.Notify) ([]notify.Cause, error) {
	// Mail of our own that fails must not count as mail that failed.
	if _, err := own.sweep(ctx, set.QueueAge); err != nil {
		return nil, err
	}
	s, err := status.Status(ctx)
	if err != nil {
		return nil, err
	}
	if failed, err := own.sweep(ctx, set.QueueAge); err != nil {
		return nil, err
	} else if failed {
		return nil, notify.ErrNotNow
	}
	now := time.Now()
	var list []notify.Cause
	for _, w := range s.Warnings {
		if told(w, set.Limits, now) {
			c := notify.Cause{Name: w.Cause, Account: w.Account, Endpoint: w.Endpoint, Level: w.Level, What: w.What, Why: w.Why, Do: w.Do, Since: w.Since, Count: countOf(w)}
			if w.Cause == admin.CausePaused { // of others it is when they are looked at next
				c.Until = w.Until
			}
			list = append(list, c)
		}
	}
	return list, nil
}

// told reports whether somebody is told of a warning.
func told(w admin.Warning, set notify.Limits, now time.Time) bool {
	switch w.Cause {
	case admin.CauseFailed:
		return true
	case admin.CauseRedirected, admin.CauseNotify: // meant, and our own
		return false
	case admin.CauseAPIDown, admin.CauseForbidden:
		return now.Sub(w.Since) >= set.BreakerOpen
	}
	return w.Level != admin.LevelInfo
}

// countOf is how much failed. Of other warnings it is of no interest whether the number
// grows.
func countOf(w admin.Warning) int64 {
	if w.Cause == admin.CauseFailed {
		return w.Count
	}
	return 0
}

// accountFor is the account that sends a notification: the first that is not the cause
// of anything in it, else the default one.
func accountFor(names []string, n notify.Notification) string {
	for _, name := range names {
		if !slices.ContainsFunc(n.News, func(one notify.News) bool {
			return one.State != notify.Over && one.Account == relay.AccountName(name)
		}) {
			return name
		}
	}
	return ""
}

// ownMail is the mail by which somebody is told of failures. It has the null sender, so
// that nothing is told of it, and it never stays as failed or old mail, of which there
// would be something to tell.
type ownMail struct {
	queue   store.Queue // nil: there is none, and no mail
	history history.Noter
	log     *slog.Logger
	ids     []string // those that are not settled
}

// mostOwn bounds the mails that are watched.
const mostOwn = 100

func (o *ownMail) load(ctx context.Context) error {
	if o.queue == nil {
		return nil
	}
	text, err := o.queue.Mark(ctx, markNotifyMails)
	_ = json.Unmarshal([]byte(text), &o.ids) // what cannot be read names none
	return err
}

func (o *ownMail) save(ctx context.Context) error {
	text, err := json.Marshal(o.ids)
	if err != nil {
		return err
	}
	return o.queue.SetMark(ctx, markNotifyMails, string(text))
}

// send queues a notification.
func (o *ownMail) send(ctx context.Context, n notify.Notification, account string, from relay.Address, to []string) error {
	now := time.Now()
	if o.queue == nil {
		return errors.New("there is no queue")
	}
	m := relay.Message{ID: relay.NewID(now), Recipients: to, Raw: n.Compose(from, to), ReceivedAt: now, Account: account}
	mail := queue.NewMail(m)
	mail.Urgent = true
	before := o.ids
	o.ids = append(slices.Clone(o.ids), m.ID)
	o.ids = o.ids[max(0, len(o.ids)-mostOwn):]
	if err := o.save(ctx); err != nil { // first, so that none is ever without an owner
		o.ids = before
		return err
	}
	if err := o.queue.Enqueue(ctx, mail); err != nil {
		return err
	}
	o.history.Note(history.NewCame(&m, history.Head{MessageID: n.ID + "@" + n.Host, Author: from.Email}))
	return nil
}

// sweep removes what failed, and what waited for so long that it would be told of. It
// reports whether something had failed.
func (o *ownMail) sweep(ctx context.Context, age time.Duration) (failed bool, err error) {
	if len(o.ids) == 0 {
		return false, nil
	}
	var left []string
	for _, id := range o.ids {
		m, err := o.queue.Get(ctx, id)
		if errors.Is(err, queue.ErrNotFound) {
			continue
		}
		if err != nil {
			return false, err
		}
		open, gaveUp := 0, 0
		for _, r := range m.Recipients {
			switch {
			case r.State == queue.Failed:
				gaveUp++
			case r.State.Open():
				open++
			}
		}
		drop := queue.Filter{ID: id}
		switch old := time.Since(m.Message.ReceivedAt) > age-2*time.Minute; {
		case open > 0 && old:
			o.log.Error("a notification could not be sent in time and is dropped", "id", id, "recipients", open+gaveUp)
		case gaveUp > 0:
			o.log.Error("a notification failed and is dropped; see that notify.mail has addresses that take mail", "id", id, "recipients", gaveUp)
			drop.States = []queue.State{queue.Failed}
		default:
			if open > 0 {
				left = append(left, id)
			}
			continue
		}
		if _, err := o.queue.Drop(ctx, drop); err != nil {
			return false, err
		}
		failed = failed || gaveUp > 0
		if open > 0 && len(drop.States) > 0 {
			left = append(left, id)
		}
	}
	if len(left) == len(o.ids) {
		return failed, nil
	}
	o.ids = left
	return failed, o.save(ctx)
}

// limitWarnings tell of what is over the limits of [notify]. Without anybody to tell,
// nobody has set them.
func limitWarnings(ctx context.Context, k kept, set config.Notify, now time.Time) []admin.Warning {
	if k.queue == nil || !set.On() {
		return nil
	}
	var warnings []admin.Warning
	if stats, err := k.queue.Stats(ctx); err == nil && !stats.Oldest.IsZero() && now.Sub(stats.Oldest) >= set.QueueAge {
		warnings = append(warnings, admin.Warning{Level: admin.LevelWarning, Cause: admin.CauseOld, Since: stats.Oldest.Round(0).UTC(),
			What: "mail waits for long", Why: "the oldest mail in the queue came longer ago than notify.queue_age",
			Do: "'smtp2rest queue' says for each what it waits for"})
	}
	bounced, complained, err := k.records.BadNews(ctx, now.Add(-24*time.Hour))
	if err != nil {
		return warnings // of the records that cannot be read another warning tells
	}
	for _, one := range []struct {
		n           int64
		most        int
		cause, what string
	}{{bounced, set.Bounces, admin.CauseBounces, "bounced"}, {complained, set.Complaints, admin.CauseComplaints, "complained"}} {
		if one.most > 0 && one.n >= int64(one.most) {
			warnings = append(warnings, admin.Warning{Level: admin.LevelWarning, Cause: one.cause,
				What: "the provider may close an account of which so much is not wanted",
				Why:  fmt.Sprintf("in the last day %d recipients %s; notify.%ss is %d", one.n, one.what, one.cause[:len(one.cause)-1], one.most),
				Do:   "'smtp2rest history --state " + one.what + " --since 2d' says whose mail it was"})
		}
	}
	return warnings
}

// notifyWarnings tell of notifications that do not get through.
func notifyWarnings(list []notify.Trouble) []admin.Warning {
	var warnings []admin.Warning
	for _, t := range list {
		warnings = append(warnings, admin.Warning{Level: admin.LevelWarning, Cause: admin.CauseNotify, Since: t.Since.Round(0).UTC(),
			What: "nobody is told of failures by " + t.By, Why: "a notification cannot be sent: " + t.Err.Error(),
			Do: "see to [notify]; it is tried again while there is something to tell"})
	}
	return warnings
}
