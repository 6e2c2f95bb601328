package intake

import (
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/smtpd"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// story is one message that is dealt with: what is known of it, and what is to be
// noted of it in the history, and counted.
type story struct {
	message *relay.Message
	trace   string  // the mail's W3C traceparent
	list    []named // for whom the client is answered one by one; nil: for all at once
	before  earlier
	handled *handled
	tried   relay.Remainder   // what came of it, once it was tried
	parts   []relay.Remainder // of it: whom the client is answered for
	came    bool
	leftOut []mail.Omission
}

// came notes a mail that could be mapped.
func (in *Intake) came(s *story, parsed *mail.Mail) {
	head := history.Head{
		MessageID: parsed.MessageID, Author: parsed.From.Email, Subject: in.subject(parsed.Subject), TraceParent: s.trace,
		LeftOut: history.LeftOutOf(parsed.Omissions),
	}
	for _, o := range parsed.Omissions {
		if o.Kind.LeftOut() {
			s.leftOut = append(s.leftOut, o)
		}
	}
	s.came = true
	in.opt.History.Note(history.NewCame(s.message, head))
	in.cameAgain(s)
}

// cameAgain notes who is tried again of a mail that goes on by its earlier id.
func (in *Intake) cameAgain(s *story) {
	if s.before.id(s.message.Recipients) != s.message.ID {
		return
	}
	var again []string
	for _, to := range s.message.Recipients {
		if _, _, known := s.before.end(to); !known {
			again = append(again, to)
		}
	}
	in.opt.History.Note(history.CameAgain{ID: s.message.ID, To: again, At: time.Now()})
}

// cameUnmapped notes a mail that could not.
func (in *Intake) cameUnmapped(s *story) {
	id := mail.Identify(s.message.Raw)
	s.came = true
	in.opt.History.Note(history.NewCame(s.message, history.Head{
		MessageID: id.MessageID, Author: id.Author, Subject: in.subject(id.Subject), TraceParent: s.trace,
	}))
}

func (in *Intake) subject(s string) string {
	if !in.set.Load().Subjects {
		return ""
	}
	return s
}

// answered notes what the client is told. What was left out of a mail counts
// only when it was taken.
func (in *Intake) answered(s *story, v verdict) {
	if !s.came {
		in.cameUnmapped(s)
	}
	r := v.main()
	if r.Positive() {
		for _, o := range s.leftOut {
			in.metrics.leftOut.WithLabelValues(o.Kind.String()).Add(float64(o.Count))
		}
	}
	said := history.Answered{ID: s.message.ID, To: s.message.Recipients, Reply: reply.Logged(r.String()), Taken: r.Positive(), At: time.Now()}
	if v.of == nil {
		in.opt.History.Note(said)
		return
	}
	for i, r := range v.each {
		said.To, said.Reply, said.Taken, said.Each = s.list[i].to, reply.Logged(r.String()), r.Positive(), true
		in.opt.History.Note(said)
	}
}

// noteRefused notes a recipient that was refused at RCPT, as a record of its
// own: whoever asks for the mail to that address finds why there is none. The
// transaction may go on without it.
func (in *Intake) noteRefused(env *smtpd.Envelope, rcpt string, r *reply.Reply) {
	now := time.Now()
	m := &relay.Message{ID: relay.NewID(now), ReceivedAt: now, Client: clientOf(env), From: env.From, Recipients: []string{rcpt}}
	in.opt.History.Note(history.NewCame(m, history.Head{}))
	in.opt.History.Note(history.Answered{ID: m.ID, To: m.Recipients, Reply: r.String(), At: now})
}
