// Package intake is the one bridge between SMTP and REST: smtpd's Backend. At
// RCPT it asks relay/suppress; on DATA it maps the mail (relay/mail), tries
// each recipient once while the client waits (relay/attempt), hands what is
// left to the queue, and turns what came of it into the reply.
package intake

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/smtpd"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// ErrNoQueue is the answer of a Queue that keeps nothing.
var ErrNoQueue = errors.New("there is no queue")

// Queue keeps what could not be settled while the client waited.
type Queue interface {
	// Keep makes durable whatever is left to do, before it returns nil. An
	// error means that nothing was kept.
	Keep(ctx context.Context, r relay.Remainder) error
}

// NoQueue keeps nothing: what cannot be settled now is refused for now.
type NoQueue struct{}

// Keep returns ErrNoQueue.
func (NoQueue) Keep(context.Context, relay.Remainder) error { return ErrNoQueue }

// Warming bounds what a sender's domain sends in a day; NoWarming does not.
type Warming interface {
	// Urgent tells mail that is sent however much was sent already.
	Urgent(domain, sender string) bool
	// Take reserves one of today's; Sent or Return ends the reservation.
	Take(domain string, urgent bool, now time.Time) bool
	Sent(domain string, now time.Time)
	Return(domain string, now time.Time)
}

// NoWarming lets every domain send as much as it likes.
type NoWarming struct{}

// Urgent is false: nothing needs to pass.
func (NoWarming) Urgent(string, string) bool { return false }

// Take is always true.
func (NoWarming) Take(string, bool, time.Time) bool { return true }

// Sent does nothing.
func (NoWarming) Sent(string, time.Time) {}

// Return does nothing.
func (NoWarming) Return(string, time.Time) {}

// Options are what an Intake is made from.
type Options struct {
	Settings
	Attempts     *attempt.Sender
	Suppressions *suppress.List
	Queue        Queue
	Warming      Warming       // nil: NoWarming
	Aliases      Aliases       // nil: NoAliases
	Marks        Marks         // nil: a restart forgets who has a mail that is to come again
	History      history.Noter // nil: history.Nothing
	Tally        *bounce.Tally // nil: one of its own
	Log          *slog.Logger
	Metrics      prometheus.Registerer // nil: none
}

// Intake is safe for concurrent use.
type Intake struct {
	opt     Options
	set     atomic.Pointer[Settings]
	recall  *recall
	metrics *metrics

	calls    context.Context // ends when no call may begin any more
	endCalls context.CancelFunc
}

var _ smtpd.Backend = (*Intake)(nil)

// New returns an Intake.
func New(o Options) *Intake {
	if o.Warming == nil {
		o.Warming = NoWarming{}
	}
	if o.Aliases == nil {
		o.Aliases = NoAliases{}
	}
	if o.History == nil {
		o.History = history.Nothing{}
	}
	if o.Tally == nil {
		o.Tally = bounce.NewTally(o.Metrics)
	}
	in := &Intake{opt: o, recall: newRecall(), metrics: newMetrics(o.Metrics)}
	in.calls, in.endCalls = context.WithCancel(context.Background())
	in.set.Store(&o.Settings)
	return in
}

// Settings are the Options that Prepare can change.
type Settings struct {
	Mapping  provider.Mapping
	Bounce   bounce.Options
	Wait     time.Duration // how long a client is kept for the API's verdict
	Subjects bool          // the history has them
}

// Prepare makes ready to deal by other settings with what comes. It never fails.
func (in *Intake) Prepare(s Settings) (apply func(), err error) {
	return func() { in.set.Store(&s) }, nil
}

// EndCalls has no call begin any more: what is not settled by then is queued, or
// refused for now, at once. It is for the end of the daemon, which a call that
// begins late would outlast. Calls that are under way go on.
func (in *Intake) EndCalls() { in.endCalls() }

// Recipient refuses who is known to be suppressed, or stands for nobody but
// such.
func (in *Intake) Recipient(_ context.Context, env *smtpd.Envelope, rcpt string) error {
	list := in.expanded(rcpt)
	if in.tooMany(env, list) {
		return reply.TooManyRecipients()
	}
	var last suppress.Entry
	now := time.Now()
	for _, to := range list {
		entry, suppressed := in.opt.Suppressions.Lookup(to, now)
		if !suppressed {
			return nil
		}
		in.opt.Log.Info("recipient", "session", env.Client.Session, "from", env.From, "to", to, "named", rcpt,
			"outcome", "suppressed_at_rcpt", "reason", entry.Reason.String())
		last = entry
	}
	in.opt.Suppressions.Refused(last)
	r := reply.Suppressed(suppression(rcpt, last))
	in.noteRefused(env, rcpt, r)
	return r
}

// Message sends a mail, or keeps it, or says why not. A copy from a client that
// hung up before it had the reply, or that was told to come again, is recognised: see
// recall.
func (in *Intake) Message(ctx context.Context, env *smtpd.Envelope, data []byte) *reply.Reply {
	return in.handle(ctx, env, data, false).main()
}

// handle is Message, with a reply for each recipient or one for all.
func (in *Intake) handle(ctx context.Context, env *smtpd.Envelope, data []byte, each bool) verdict {
	m := newMessage(env, data)
	list := in.lookUp(env.Recipients)
	m.Recipients, m.Aliases = resolve(list)
	h := newHandled(m)
	sum := sync.OnceValue(func() digest { return digestOf(m) })
	before, err := in.recall.begin(ctx, h, sum)
	if id := before.id(m.Recipients); id != "" {
		m.ID, h.id = id, id
	}
	log := in.opt.Log.With("id", m.ID, "session", m.Client.Session)
	trace := attempt.Trace(data)
	if trace != "" {
		log = log.With("trace", trace)
	}
	v, again := before.repeat(m.Recipients, env.Recipients, each)
	switch {
	case err != nil: // the end of the daemon, while an earlier copy was dealt with
		v = forAll(reply.From(err))
	case again:
		in.again(h, before, sum, v, env)
	default:
		if !each {
			list = nil
		}
		v = in.first(ctx, log, &story{message: m, trace: trace, list: list, before: before, handled: h}, env, sum)
	}
	if each {
		v, _ = v.to(env.Recipients)
	}
	r, took := v.main(), time.Since(m.ReceivedAt)
	in.metrics.answered(fateOf(r, v.kept, again), len(m.Raw), took)
	log.Info("message", "from", m.From, "recipients", len(m.Recipients), "bytes", len(m.Raw), "client", m.Client.Addr,
		"reply", reply.Logged(r.Error()), "again", again, "known", len(before), "duration", took)
	return v
}

// again sees to a copy that is answered like an earlier one, which is forgotten
// unless the client of this one is gone as well.
func (in *Intake) again(h *handled, before earlier, sum func() digest, v verdict, env *smtpd.Envelope) {
	h.verdict, h.mail, h.kept = v, sum(), true
	for to, one := range before {
		h.ends[to] = one.ends[to]
	}
	close(h.done)
	in.recall.settled(h.mail, h)
	env.OnLost(func() { in.recall.lost(h.mail, h) })
}

// first sees to a message that is no mere copy, and has it recognised if it has
// to be.
func (in *Intake) first(ctx context.Context, log *slog.Logger, s *story, env *smtpd.Envelope, sum func() digest) verdict {
	h := s.handled
	env.OnLost(func() { in.recall.lost(sum(), h) })
	defer func() { // after a panic as well: nobody may wait for it in vain
		h.ended(s)
		if h.owes() || h.verdict.main().Positive() || len(s.before) > 0 {
			h.mail = sum()
		}
		in.mark(ctx, h, s.before)
		close(h.done)
		if len(s.before) > 0 {
			in.recall.settled(h.mail, h)
		}
		in.recall.owes(h)
		// The client may not say for a long time that it has the reply. Until
		// then a few bytes stand for the mail.
		env.OnLost(func() { in.recall.lost(h.mail, h) })
	}()
	h.verdict = in.deal(ctx, log, s, env)
	return h.verdict
}

// deal maps a mail, tries it and settles what came of it, for each of the list
// by itself unless there is none.
func (in *Intake) deal(ctx context.Context, log *slog.Logger, s *story, env *smtpd.Envelope) (v verdict) {
	v = forAll(reply.Bug()) // smtpd's word, should this panic
	defer func() { in.answered(s, v) }()
	m, list := s.message, s.list
	parsed, body, err := in.mapped(ctx, log, m, env)
	if err != nil {
		return forAll(reply.From(err))
	}
	for _, author := range parsed.Authors {
		if !env.Author(author) {
			return forAll(reply.FromNotAllowed(author))
		}
	}
	in.came(s, parsed)
	r := relay.Remainder{Message: m, Domain: domainOf(parsed.From.Email)}
	r.Urgent = in.opt.Warming.Urgent(r.Domain, m.From)
	r.Outcomes = in.tryAll(ctx, r, body, s.before)
	s.tried = r
	in.ended(r, s.before)
	s.parts = []relay.Remainder{r}
	var of []string
	if list != nil {
		s.parts = partsOf(r, list)
		for _, n := range list {
			of = append(of, n.rcpt)
		}
	}
	each, kept := in.settle(ctx, s)
	return verdict{each, of, kept}
}

// clientAddr is where a client is: an address, or the unix socket it came by.
func clientAddr(c smtpd.Client) string {
	switch {
	case c.Addr.IsValid():
		return c.Addr.String()
	case strings.HasPrefix(c.Listener, "/"):
		return c.Listener
	}
	return "unknown" // to its proxy
}

func newMessage(env *smtpd.Envelope, data []byte) *relay.Message {
	now := time.Now()
	return &relay.Message{
		ID: relay.NewID(now), ReceivedAt: now, Client: clientOf(env),
		From: env.From, Raw: data,
	}
}

func clientOf(env *smtpd.Envelope) relay.Client {
	return relay.Client{
		Addr:     clientAddr(env.Client),
		Helo:     env.Client.Helo,
		User:     env.Client.User,
		Listener: env.Client.Listener,
		Session:  env.Client.Session,
	}
}

// unique drops a recipient that was named twice: one copy each, as every mail
// system does.
func unique(recipients []string) []string {
	seen := make(map[string]bool, len(recipients))
	var kept []string
	for _, rcpt := range recipients {
		if key := suppress.Normalise(rcpt); !seen[key] {
			seen[key] = true
			kept = append(kept, rcpt)
		}
	}
	return kept
}

// mapped maps the mail before anything is promised, so that what cannot be
// sent is refused while the client still listens. There is memory for all of it
// before it begins: two mails that each hold some and wait for more would wait
// for each other.
func (in *Intake) mapped(ctx context.Context, log *slog.Logger, m *relay.Message, env *smtpd.Envelope) (*mail.Mail, provider.Body, error) {
	mapping := in.set.Load().Mapping
	if err := env.Reserve(ctx, mail.Cost(m.Raw, mapping.Limits)); err != nil {
		return nil, nil, err
	}
	parsed, err := mail.Map(m.Raw, m.From, mapping.For(m.Client.User))
	if err != nil {
		return nil, nil, Refusal(err)
	}
	for _, o := range parsed.Omissions {
		log.Info("mapping", "kind", o.Kind.String(), "count", o.Count, "bytes", o.Size)
	}
	body, err := mapping.Format.Encode(parsed)
	if err != nil {
		return nil, nil, err
	}
	return parsed, body, env.Reserve(ctx, body.Len("")) // to hold less never fails
}

// domainOf is the domain by which warming counts.
func domainOf(address string) string {
	normal := suppress.Normalise(address)
	return normal[strings.LastIndexByte(normal, '@')+1:]
}
