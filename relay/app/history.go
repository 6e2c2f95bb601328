package app

import (
	"context"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// buildRecords begins to keep the history, if anything is kept.
func (p *parts) buildRecords(context.Context) error {
	p.history = history.Nothing{}
	if p.opened == nil {
		return nil
	}
	c := p.config()
	p.records = p.opened.Records
	p.tell(func(context.Context, time.Time) []admin.Note { return p.recordsNotes(c.Queue.DataDir) })
	p.recorder = history.NewRecorder(history.Options{
		Bounds: c.History.Bounds, Store: p.records, Log: p.opt.Log, Metrics: p.metrics,
	})
	p.recorder.Start()
	p.onStop(func(context.Context) error { p.recorder.Stop(); return nil })
	p.history = p.recorder
	return nil
}

// reconcile brings the history in line with the queue, while mail is sent.
func (p *parts) reconcile(store queue.Queue) {
	if p.records == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	r := history.Reconciliation{Store: p.records, Queued: store.Get, Noter: p.recorder, Before: p.started}
	go func() {
		defer close(done)
		n, err := r.Run(ctx)
		if err != nil && ctx.Err() == nil {
			p.opt.Log.Error("the history cannot be brought in line with the queue; the next start tries again", "cause", err)
		}
		if n > 0 {
			p.opt.Log.Info("the process before this one ended without writing down what became of some recipients", "recipients", n)
		}
	}()
	p.onStop(func(context.Context) error {
		cancel()
		<-done
		return nil
	})
}

// recordsNotes tell of records that are not kept. Mail is not touched by it, and
// so nothing else would show it.
func (p *parts) recordsNotes(dir string) []admin.Note {
	since, damaged, err := p.records.Trouble()
	switch {
	case damaged:
		return []admin.Note{{Level: admin.LevelTrouble, What: "history, suppressions and the provider's events are not kept any more", Why: err.Error(), Since: since.Round(0).UTC(),
			Do: "restart smtp2rest: it sets the file aside and begins a new one, without the suppressions that were learnt; docs/operations.md says how to bring them over"}}
	case err != nil:
		return []admin.Note{{Level: admin.LevelWarning, What: "history and suppressions are not kept", Why: err.Error(), Since: since.Round(0).UTC(),
			Do: "see to the disk of " + dir + "; mail is not touched, and it goes on by itself"}}
	}
	return nil
}

// pastOf is the operator's side of the history.
func (p *parts) pastOf(a admin.Admin) admin.History {
	o := admin.HistoryOptions{Admin: a}
	if p.records != nil {
		o.Store, o.Flush = p.records, p.recorder.Flush
	}
	return admin.NewHistory(o)
}

// LeftOut is what of a mail the API is not given, by the configuration as it is
// when it is asked.
func LeftOut(current func() *config.Config) func(raw []byte, from string) []history.LeftOut {
	return func(raw []byte, from string) []history.LeftOut {
		parsed, err := mail.Map(raw, from, Mapping(current()).Options)
		if err != nil {
			return nil // it is refused, and its attempts say so
		}
		return history.LeftOutOf(parsed.Omissions)
	}
}
