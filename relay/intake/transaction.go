package intake

import (
	"slices"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/smtpd"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// transaction is one message in progress: what is known of it, and what the
// history and the metrics need to know.
type transaction struct {
	message  *relay.Message
	trace    string           // the mail's W3C traceparent
	named    []namedRecipient // set if each recipient gets a reply; nil: one reply for all
	before   earlier
	handling *handling
	tried    relay.Remainder   // all recipients with their outcomes, after the first try
	parts    []relay.Remainder // tried, split by reply
	recorded bool              // the history has it
	leftOut  []mail.Omission
}

// record records a mail that was mapped, and returns what it says of it.
func (in *Intake) record(s *transaction, parsed *mail.Mail) history.Head {
	head := history.Head{
		MessageID: parsed.MessageID, Author: parsed.From.Email, Subject: in.subject(parsed.Subject), TraceParent: s.trace,
		LeftOut: history.LeftOutOf(parsed.Omissions), Headers: in.headers(s.message.Raw),
	}
	for _, o := range parsed.Omissions {
		if o.Kind.LeftOut() {
			s.leftOut = append(s.leftOut, o)
		}
	}
	in.recordCame(s, head)
	return head
}

// recordUnmapped records a mail that was refused before or by the mapping.
func (in *Intake) recordUnmapped(s *transaction) {
	id := mail.Identify(s.message.Raw)
	in.recordCame(s, history.Head{
		MessageID: id.MessageID, Author: id.Author, Subject: in.subject(id.Subject), TraceParent: s.trace,
		Headers: in.headers(s.message.Raw),
	})
}

func (in *Intake) recordCame(s *transaction, head history.Head) {
	s.recorded = true
	for _, m := range s.messages() {
		in.opt.History.Note(history.NewCame(m, head))
	}
}

// messages returns the message as the history has it: one for each id under which
// recipients are sent to. Those that an earlier copy settled are in the record of
// that copy.
func (s *transaction) messages() []*relay.Message {
	all := relay.Remainder{Message: s.message, Outcomes: make([]relay.Outcome, len(s.message.Recipients))}
	var list []*relay.Message
	for _, part := range s.before.split(selectRecipients(all, func(to string) bool {
		_, _, known := s.before.outcome(to)
		return !known
	})) {
		list = append(list, part.Message)
	}
	return list
}

// headers are the header fields that the history keeps.
func (in *Intake) headers(raw []byte) map[string]string {
	var fields map[string]string
	for _, name := range in.set.Load().Headers {
		if value := mail.Field(raw, name); len(value) > 0 {
			if fields == nil {
				fields = map[string]string{}
			}
			fields[name] = string(value)
		}
	}
	return fields
}

func (in *Intake) subject(s string) string {
	if !in.set.Load().Subjects {
		return ""
	}
	return s
}

// recordReplies records the replies. Omissions are counted only for mail that was
// accepted.
func (in *Intake) recordReplies(s *transaction, v replies) {
	if !s.recorded {
		in.recordUnmapped(s)
	}
	r := v.main()
	if r.Positive() {
		for _, o := range s.leftOut {
			in.metrics.leftOut.WithLabelValues(o.Kind.String()).Add(float64(o.Count))
		}
	}
	said := history.Answered{Reply: reply.Logged(r.String()), Taken: r.Positive(), At: time.Now()}
	unsettled := s.unsettled()
	for _, m := range s.messages() {
		said.ID = m.ID
		if v.of == nil {
			said.To = m.Recipients
			if said.Taken {
				said.Queued = common(m.Recipients, unsettled)
			}
			in.opt.History.Note(said)
			continue
		}
		for i, r := range v.each {
			if said.To = common(s.named[i].to, m.Recipients); len(said.To) == 0 {
				continue
			}
			said.Reply, said.Taken, said.Each = reply.Logged(r.String()), r.Positive(), true
			said.Queued = nil
			if said.Taken {
				said.Queued = common(said.To, unsettled)
			}
			in.opt.History.Note(said)
		}
	}
}

// unsettled are the recipients of whom the first try left something to do.
func (s *transaction) unsettled() (list []string) {
	for i, out := range s.tried.Outcomes {
		if !out.Kind.Settled() {
			list = append(list, s.tried.Message.Recipients[i])
		}
	}
	return list
}

// common returns the addresses in a that are in b as well.
func common(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(to string) bool {
		return !slices.ContainsFunc(b, func(other string) bool { return suppress.Normalise(other) == suppress.Normalise(to) })
	})
}

// recordRefused records a recipient that was refused at RCPT as a mail of its own,
// so that a search for the address finds the reason. The transaction may go on
// with other recipients.
func (in *Intake) recordRefused(env *smtpd.Envelope, rcpt string, r *reply.Reply) {
	now := time.Now()
	m := &relay.Message{ID: relay.NewID(now), ReceivedAt: now, Client: clientOf(env), From: env.From, Recipients: []string{rcpt}}
	in.opt.History.Note(history.NewCame(m, history.Head{}))
	in.opt.History.Note(history.Answered{ID: m.ID, To: m.Recipients, Reply: r.String(), At: now})
}
