package app

import (
	"context"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/payload"
	"github.com/smtp2rest/smtp2rest/relay/store/records"
)

func historyBounds(c *config.Config) history.Bounds {
	return history.Bounds{Keep: c.History.Keep, MaxSize: c.History.MaxSize}
}

// buildRecords opens what is known besides the mail itself. It lives beside the
// queue: without one there is no directory to keep it in.
func (p *parts) buildRecords(context.Context) error {
	p.history = history.Nothing{}
	c := p.config()
	if c.Queue.Mode == config.NoQueue {
		return nil
	}
	store, err := records.Open(records.Options{Dir: c.Queue.DataDir, MinFree: c.Queue.MinFree, Log: p.opt.Log, Metrics: p.metrics})
	if err != nil {
		return p.dataDirError(err)
	}
	p.onStop(func(context.Context) error { return store.Close() })
	p.records = store
	b := historyBounds(c)
	p.recorder = history.NewRecorder(history.Options{
		Store: store, Keep: b.Keep, MaxSize: b.MaxSize, Log: p.opt.Log, Metrics: p.metrics,
	})
	p.recorder.Start()
	p.onStop(func(context.Context) error { p.recorder.Stop(); return nil })
	p.history = p.recorder
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
		mail, err := payload.Map(raw, from, Mapping(current()))
		if err != nil {
			return nil // it is refused, and its attempts say so
		}
		return history.LeftOutOf(mail.Notes)
	}
}
