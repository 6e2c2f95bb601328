package app

import (
	"context"
	"fmt"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
)

// nearlyFull is the part of a bound from which on somebody should know.
const nearlyFull = 0.9

// manyWait is how many mails may wait for memory before that is more than a
// moment's crowd.
const manyWait = 10

// notes are what only app can tell of, because it is about several parts.
func (p *parts) notes(ctx context.Context, now time.Time) []admin.Note {
	var notes []admin.Note
	if err := p.health.live(ctx); err != nil {
		notes = append(notes, admin.Note{Level: admin.LevelTrouble, What: "queued mail is not sent", Why: err.Error(),
			Do: "see to the disk of queue.data_dir; if that is well, restart smtp2rest, and report it with the log"})
	}
	if n := p.memory.Waiting(); n > manyWait {
		notes = append(notes, admin.Note{Level: admin.LevelWarning, What: "some clients are answered 452 and have to come again",
			Why: fmt.Sprintf("%d mails wait for memory (limits.memory)", n),
			Do:  "raise limits.memory if the machine has more, or let fewer or smaller mails come at once"})
	}
	for _, f := range p.noteSources {
		notes = append(notes, f(ctx, now)...)
	}
	return notes
}

// tell adds what a part knows to the notes of 'smtp2rest status'. It is for
// before buildAdmin: from then on they are read.
func (p *parts) tell(f func(ctx context.Context, now time.Time) []admin.Note) {
	p.noteSources = append(p.noteSources, f)
}

// untoldFor is how long an operator is told that somebody could not be.
const untoldFor = 24 * time.Hour

// untoldNotes tell of recipients that failed without anybody hearing of it.
func (p *parts) untoldNotes(_ context.Context, now time.Time) []admin.Note {
	n, latest := p.tally.Untold()
	if n == 0 || now.Sub(latest) >= untoldFor {
		return nil
	}
	return []admin.Note{{Level: admin.LevelInfo, What: fmt.Sprintf("of %d failed recipients nobody was told since the start", n), Since: p.started.Round(0).UTC(),
		Why: "their sender has no address that can receive mail and there is no bounce.postmaster, or was told of bounce.per_hour failures already; the latest was at " + latest.UTC().Format(time.RFC3339),
		Do:  "the log says of which mails: 'given up', or 'no sender to tell'"}}
}

// troubleNotes tell of a queue whose mail is kept and cannot be sent.
func (p *parts) troubleNotes(context.Context, time.Time) []admin.Note {
	since, err := p.engine.Trouble()
	if err == nil {
		return nil
	}
	return []admin.Note{{Level: admin.LevelTrouble, What: "mail is kept and cannot be sent from the queue", Why: err.Error(), Since: since.Round(0).UTC(),
		Do: "see to the disk of " + p.config().Queue.DataDir + "; if the queue is damaged, stop smtp2rest: its next start says what to do"}}
}

func (p *parts) storageNotes(ctx context.Context, storage *storageCheck) []admin.Note {
	c := p.config().Queue
	if since, err := storage.check(ctx); err != nil {
		return []admin.Note{{Level: admin.LevelTrouble, What: "no mail can be queued or sent from the queue", Why: err.Error(), Since: since.Round(0).UTC(),
			Do: "see to the disk of " + c.DataDir + "; the relay goes on by itself"}}
	}
	var notes []admin.Note
	free, least, err := p.store.Space()
	switch {
	case err != nil:
	case free <= least:
		notes = append(notes, admin.Note{Level: admin.LevelTrouble, What: "what the API does not take at once is answered 452",
			Why: fmt.Sprintf("the disk of %s has %d MiB left, and %d MiB are kept free", c.DataDir, free>>20, least>>20),
			Do:  "make room on it, or lower queue.min_free"})
	case free <= 2*least:
		notes = append(notes, admin.Note{Level: admin.LevelWarning, What: "soon no mail can be queued",
			Why: fmt.Sprintf("the disk of %s has %d MiB left, and %d MiB are kept free", c.DataDir, free>>20, least>>20),
			Do:  "make room on it"})
	}
	return append(notes, p.fullness(ctx)...)
}

// roomForOne is what a queue must have left for a mail of ordinary size.
const roomForOne = 1 << 20

// room is why new mail would be answered 452 if the API did not take it at once;
// nil when it can be queued.
func (p *parts) room(ctx context.Context) error {
	c := p.config().Queue
	free, least, err := p.store.Space()
	if err == nil && free <= least {
		return fmt.Errorf("the disk of the queue has %d MiB left, and %d MiB are kept free", free>>20, least>>20)
	}
	stats, err := p.store.Stats(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("the queue does not say how full it is: %w", err)
	case c.MaxMails > 0 && stats.Mails >= int64(c.MaxMails):
		return fmt.Errorf("the queue is full: it has %d mails of %d that queue.max_mails allows", stats.Mails, c.MaxMails)
	case c.MaxBytes > 0 && stats.Bytes > max(0, c.MaxBytes-roomForOne):
		return fmt.Errorf("the queue is full: it has %d bytes of %d that queue.max_size allows", stats.Bytes, c.MaxBytes)
	}
	return nil
}

// fullness tells of a queue that comes near its bounds.
func (p *parts) fullness(ctx context.Context) []admin.Note {
	c := p.config().Queue
	stats, err := p.store.Stats(ctx)
	if err != nil {
		return nil // said by Status itself
	}
	waits := "find out why mail waits; 'smtp2rest queue' says it for each; or raise "
	failed := "'smtp2rest queue list --state failed' says why; retry or drop them, or raise "
	size := waits
	if stats.FailedBytes > stats.Bytes/2 {
		size = fmt.Sprintf("%d of them are of failed mail: ", stats.FailedBytes) + failed
	}
	var notes []admin.Note
	for _, bound := range []struct {
		what        string
		used, limit int64
		setting, do string
	}{
		{"mails that wait", stats.Mails - stats.FailedMails, int64(c.MaxMails), "queue.max_mails", waits},
		{"failed mails", stats.FailedMails, int64(c.MaxMails), "queue.max_mails", failed},
		{"bytes", stats.Bytes, c.MaxBytes, "queue.max_size", size},
	} {
		if bound.limit > 0 && float64(bound.used) >= nearlyFull*float64(bound.limit) {
			notes = append(notes, admin.Note{Level: admin.LevelWarning, What: "when the queue is full, what the API does not take at once is answered 452",
				Why: fmt.Sprintf("the queue has %d %s of %d that %s allows", bound.used, bound.what, bound.limit, bound.setting),
				Do:  bound.do + bound.setting})
		}
	}
	return notes
}
