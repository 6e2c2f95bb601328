package intake

import (
	"context"
	"strconv"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// keptBy names the user whose sendmail(1) kept a message; "" if none did.
func keptBy(k smtpd.Kept) string {
	if k.ID == "" {
		return ""
	}
	return "uid " + strconv.FormatUint(uint64(k.UID), 10)
}

// Turned is a recipient of a mail that sendmail(1) had kept, who was refused.
type Turned struct{ To, Reply string }

// GiveBack takes responsibility for recipients who were refused when a mail that sendmail
// had kept was handed over: they are queued as failed, so that the sender is told. Nobody
// is at the other end who could be.
func (in *Intake) GiveBack(ctx context.Context, kept smtpd.Kept, from string, raw []byte, list []Turned) error {
	now := time.Now()
	client := relay.Client{Addr: "sendmail", KeptBy: keptBy(kept)}
	m := &relay.Message{ID: kept.ID, ReceivedAt: now, From: from, Raw: raw, Client: client}
	m.Account = in.choose(&smtpd.Envelope{From: from}, raw)
	r := relay.Remainder{Message: m}
	for _, one := range list {
		m.Recipients = append(m.Recipients, one.To)
		r.Outcomes = append(r.Outcomes, relay.Outcome{Kind: relay.Refused, Detail: one.Reply, Untried: true})
	}
	id := mail.Identify(raw)
	in.opt.History.Note(history.NewCame(m, history.Head{MessageID: id.MessageID, Author: id.Author, Subject: in.subject(id.Subject), Headers: in.headers(raw)}))
	for i, to := range m.Recipients {
		in.opt.History.Note(history.Tried{ID: m.ID, From: from, To: to, Number: 1, Outcome: r.Outcomes[i], At: now})
		in.opt.Log.Info("recipient", "id", m.ID, "from", from, "to", to, "outcome", "refused_when_handed_over", "reply", list[i].Reply)
	}
	return in.opt.Queue.Keep(ctx, r)
}
