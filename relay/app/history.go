package app

import (
	"context"

	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/store/records"
)

// buildRecords opens what is known besides the mail itself. It lives beside the
// queue: without one there is no directory to keep it in.
func (p *parts) buildRecords(context.Context) error {
	p.history = history.Nothing{}
	c := p.opt.Config
	if c.Queue.Mode == config.NoQueue {
		return nil
	}
	store, err := records.Open(records.Options{Dir: c.Queue.DataDir, MinFree: c.Queue.MinFree, Log: p.opt.Log, Metrics: p.metrics})
	if err != nil {
		return p.dataDirError(err)
	}
	p.onStop(func(context.Context) error { return store.Close() })
	p.records = store
	p.recorder = history.NewRecorder(history.Options{
		Store: store, Keep: c.History.Keep, MaxSize: c.History.MaxSize, Log: p.opt.Log, Metrics: p.metrics,
	})
	p.recorder.Start()
	p.onStop(func(context.Context) error { p.recorder.Stop(); return nil })
	p.history = p.recorder
	return nil
}
