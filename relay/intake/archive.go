package intake

import (
	"context"
	"log/slog"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/archive"
	"github.com/smtp2rest/smtp2rest/relay/history"
)

// archiveTime bounds how long a hanging disk delays the reply.
const archiveTime = 5 * time.Second

// archive queues the copy of a mail that is accepted, before its client hears of it: the
// copy is kept as the mail is. Whatever comes of it, the reply stays the same. A mail that
// is redirected has no copy, because nobody but the one address is to get anything.
func (in *Intake) archive(ctx context.Context, log *slog.Logger, r relay.Remainder, head history.Head) {
	to := in.settingsOf(r.Message.Account).Archive
	if to == "" || r.Message.Client.Redirect != "" {
		return
	}
	// Also when the client hangs up or the relay stops: the mail is accepted.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), archiveTime)
	defer cancel()
	c, now := archive.Copy(r.Message, to), time.Now()
	err := in.opt.Queue.Keep(ctx, relay.Remainder{Message: c, Domain: r.Domain, Outcomes: []relay.Outcome{{Kind: relay.Unavailable, Untried: true}}})
	if err != nil {
		in.opt.Copies.Count(archive.Lost, now)
		log.Error("the archive gets no copy: the queue does not take it", "copy", c.ID, "to", to, "cause", err)
		return
	}
	in.opt.Copies.Count(archive.Queued, now)
	log.Debug("queued a copy for the archive", "copy", c.ID, "to", to)
	in.opt.History.Note(history.NewCame(c, head))
}
