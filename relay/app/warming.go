package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/warm"
)

// loadMeter takes over what was sent before a restart and removes the counts
// of days that are over.
func loadMeter(ctx context.Context, m *warm.Meter, marks queue.Marks) error {
	counts, err := marks.Marks(ctx, warm.Prefix)
	if err != nil {
		return err
	}
	m.Load(counts)
	for _, name := range m.Expired(time.Now()) {
		if err := marks.SetMark(ctx, name, ""); err != nil {
			return err
		}
	}
	return nil
}

// freshWarming is the meter for mail that is sent while its client waits: no
// settlement counts it durably, so this does. Domains that are not warmed
// cost nothing.
type freshWarming struct {
	*warm.Meter
	marks queue.Marks
	log   *slog.Logger
}

// countTime bounds what a disk that hangs costs the client.
const countTime = 5 * time.Second

// Sent counts one mail.
func (f freshWarming) Sent(domain string, now time.Time) {
	f.Meter.Sent(domain, now)
	name := f.Mark(domain, now)
	if name == "" { // always, without a queue: there is nothing to count in then
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), countTime)
	defer cancel()
	if _, err := f.marks.AddMark(ctx, name, 1); err != nil {
		f.log.Error("a mail of a domain that is being warmed cannot be counted", "domain", domain, "cause", err)
	}
}
