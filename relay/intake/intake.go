// Package intake connects SMTP to the API. It is smtpd's Backend. At RCPT it
// refuses recipients on the suppression list. At DATA it maps the mail, tries
// each recipient once while the client waits, queues what is not settled by
// then, and returns the SMTP reply.
package intake

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/archive"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/smtpd"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// ErrNoQueue is returned by NoQueue.
var ErrNoQueue = errors.New("the relay runs without a queue")

// Queue keeps the recipients that were not settled while the client waited.
type Queue interface {
	// Keep stores what is left to do of one message or more, all or none. When it
	// returns nil, that is on disk. When it returns an error, nothing was stored.
	Keep(ctx context.Context, parts ...relay.Remainder) error
}

// NoQueue stores nothing. Without a queue, mail that cannot be sent at once is
// refused with a temporary reply.
type NoQueue struct{}

// Keep returns ErrNoQueue.
func (NoQueue) Keep(context.Context, ...relay.Remainder) error { return ErrNoQueue }

// Warming limits what a sender domain sends in a day. See relay/warm.
type Warming interface {
	// Urgent reports whether mail of this sender ignores the limit.
	Urgent(domain, sender string) bool
	// Take reserves one mail of today's limit. It returns false if the limit is
	// reached. Sent or Return ends the reservation.
	Take(domain string, urgent bool, now time.Time) bool
	Sent(domain string, now time.Time)
	Return(domain string, now time.Time)
}

// NoWarming limits nothing.
type NoWarming struct{}

// Urgent returns false: nothing needs to pass.
func (NoWarming) Urgent(string, string) bool { return false }

// Take returns true.
func (NoWarming) Take(string, bool, time.Time) bool { return true }

// Sent does nothing.
func (NoWarming) Sent(string, time.Time) {}

// Return does nothing.
func (NoWarming) Return(string, time.Time) {}

// Options configure an Intake.
type Options struct {
	Settings
	Attempts     *attempt.Sender
	Suppressions *suppress.List
	Others       map[string]Account // the accounts besides the default one; usually none
	Queue        Queue
	Warming      Warming        // nil: NoWarming
	Aliases      Aliases        // nil: NoAliases
	Marks        Marks          // nil: a restart forgets mail that a client was told to send again
	History      history.Noter  // nil: history.Nothing
	Tally        *bounce.Tally  // nil: a new one
	Copies       *archive.Tally // nil: a new one
	Log          *slog.Logger
	Metrics      prometheus.Registerer // nil: none
}

// Intake implements smtpd.Backend. It is safe for concurrent use.
type Intake struct {
	opt          Options
	set          atomic.Pointer[Settings]
	recall       *recall
	marking      [16]sync.Mutex // a mark is written by one at a time, by its mail
	refusedFiles refusedFiles
	metrics      *metrics

	calls    context.Context // ends when no new call may begin
	endCalls context.CancelFunc
}

var (
	_ smtpd.Backend     = (*Intake)(nil)
	_ smtpd.EachBackend = (*Intake)(nil)
)

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
	if o.Copies == nil {
		o.Copies = archive.NewTally(o.Metrics)
	}
	in := &Intake{opt: o, recall: newRecall(), metrics: newMetrics(o.Metrics)}
	in.calls, in.endCalls = context.WithCancel(context.Background())
	in.set.Store(&o.Settings)
	return in
}

// Settings are the options that a reload can change.
type Settings struct {
	Mapping  provider.Mapping
	Bounce   bounce.Options
	Wait     time.Duration // how long a client waits for the API's answer
	Archive  string        // gets a copy of each mail of the default account that is accepted
	Subjects bool          // whether the history stores subjects
	Headers  []string      // header fields that the history stores

	Others map[string]AccountSettings // of the accounts besides the default one
	Choice Choice
}

// Prepare returns a function that puts s into force for mail that comes after.
// It never fails.
func (in *Intake) Prepare(s Settings) (apply func(), err error) {
	return func() { in.set.Store(&s) }, nil
}

// EndCalls stops new API calls. From then on, recipients that are not settled
// are queued, or refused for now without a queue. Calls under way go on. The
// shutdown uses it, so that no call begins that would outlast it.
func (in *Intake) EndCalls() { in.endCalls() }

// Recipient refuses a suppressed recipient, and an alias that only leads to
// suppressed ones.
func (in *Intake) Recipient(_ context.Context, env *smtpd.Envelope, rcpt string) error {
	list := in.expanded(rcpt)
	if in.tooMany(env, list) {
		return reply.TooManyRecipients()
	}
	account, known := in.known(env)
	if !known || in.redirect(account, clientOf(env)) != "" {
		return nil // where it is not known yet, each attempt asks its own account
	}
	suppressions := in.of(account).Suppressions
	var last suppress.Entry
	now := time.Now()
	for _, to := range list {
		entry, suppressed := suppressions.Lookup(to, now)
		if !suppressed {
			return nil
		}
		in.opt.Log.Info("recipient", "session", env.Client.Session, "from", env.From, "to", to, "named", rcpt,
			"outcome", "suppressed_at_rcpt", "reason", entry.Reason.String())
		last = entry
	}
	suppressions.Refused(last)
	r := reply.Suppressed(suppression(rcpt, last))
	in.recordRefused(env, rcpt, r)
	return r
}

// Message sends a mail, or queues it, or returns why neither is possible. It
// recognises mail that a client sends again; see recall.
func (in *Intake) Message(ctx context.Context, env *smtpd.Envelope, data []byte) *reply.Reply {
	return in.handle(ctx, env, data, false).main()
}

// MessageEach is Message for LMTP, where the client gets a reply for each
// recipient. The client reports a recipient that is refused here to the sender,
// so there is no bounce for it.
func (in *Intake) MessageEach(ctx context.Context, env *smtpd.Envelope, data []byte) []*reply.Reply {
	return in.handle(ctx, env, data, true).each
}

// handle processes a message. With each, there is one reply for each recipient,
// else one for all.
func (in *Intake) handle(ctx context.Context, env *smtpd.Envelope, data []byte, each bool) replies {
	m := newMessage(env, data)
	m.Account = in.choose(env, data)
	m.Client.Redirect = in.redirect(m.Account, m.Client) // for the record, and over a reload
	list := in.expandAll(env.Recipients)
	m.Recipients, m.Aliases = resolve(list)
	h := newHandling(m)
	sum := sync.OnceValue(func() digest { return digestOf(m) })
	before, err := in.recall.begin(ctx, h, sum)
	m.ID = before.continued(m)
	log := in.opt.Log.With("id", m.ID, "session", m.Client.Session)
	if in.several() {
		log = log.With("account", relay.AccountName(m.Account))
	}
	trace := attempt.Trace(data)
	if trace != "" {
		log = log.With("trace", trace)
	}
	v, again := before.repeat(m.Recipients, env.Recipients, each)
	switch {
	case err != nil: // shut down while an earlier copy was in progress
		v = forAll(reply.From(err))
	case again:
		in.repeat(h, before, sum, v, env)
	default:
		if !each {
			list = nil
		}
		v = in.processNew(ctx, log, &transaction{message: m, trace: trace, named: list, before: before, handling: h}, env, sum)
	}
	if each {
		v, _ = v.to(env.Recipients)
	}
	r, took := v.main(), time.Since(m.ReceivedAt)
	in.metrics.answered(resultOf(r, v.kept, again), len(m.Raw), took)
	log.Info("message", "from", m.From, "recipients", len(m.Recipients), "bytes", len(m.Raw), "client", m.Client.Addr,
		"reply", reply.Logged(r.Error()), "again", again, "known", len(before), "duration", took)
	return v
}

// repeat records a copy that gets the same reply as an earlier one. The earlier
// copy is then forgotten, unless the client of this one has hung up as well.
func (in *Intake) repeat(h *handling, before earlier, sum func() digest, v replies, env *smtpd.Envelope) {
	h.replies, h.mail = v, sum()
	for to, one := range before {
		h.ends[to] = one.end
	}
	in.end(h, env)
}

// end remembers what the next copy of a message must know that is over.
func (in *Intake) end(h *handling, env *smtpd.Envelope) {
	in.recall.ended(h)
	// It can take long until the client has the reply. Until then, keep the
	// digest and not the whole mail in memory.
	env.OnLost(func() { in.recall.rememberLost(h.mail, h) })
	close(h.done)
}

// processNew processes a message that is not just a copy of an earlier one, and
// remembers it if the client will have to send it again.
func (in *Intake) processNew(ctx context.Context, log *slog.Logger, s *transaction, env *smtpd.Envelope, sum func() digest) replies {
	h := s.handling
	env.OnLost(func() { in.recall.rememberLost(sum(), h) })
	defer func() { // also after a panic: later copies wait for done
		h.finish(s)
		if h.owed() || h.replies.main().Positive() || len(s.before) > 0 {
			h.mail = sum()
		}
		in.end(h, env)
		if h.owed() || s.before.owed() {
			in.mark(ctx, h.mail)
		}
	}()
	h.replies = in.process(ctx, log, s, env)
	return h.replies
}

// process maps a mail, tries its recipients and stores what is left. If s.named is
// set, each named recipient gets a reply of its own.
func (in *Intake) process(ctx context.Context, log *slog.Logger, s *transaction, env *smtpd.Envelope) (v replies) {
	v = forAll(reply.Bug()) // what smtpd replies if this panics
	defer func() { in.recordReplies(s, v) }()
	m, list := s.message, s.named
	parsed, body, err := in.mapped(ctx, log, m, env)
	if err != nil {
		return forAll(reply.From(err))
	}
	for _, author := range parsed.Authors {
		if !env.Author(author) {
			return forAll(reply.FromNotAllowed(author))
		}
	}
	head := in.record(s, parsed)
	r := relay.Remainder{Message: m, Domain: domainOf(parsed.From.Email)}
	r.Urgent = in.of(m.Account).Warming.Urgent(r.Domain, m.From)
	r.Outcomes = in.tryAll(ctx, r, body, s.before)
	s.tried = r
	in.ended(r, s.before)
	s.parts = []relay.Remainder{r}
	var of []string
	if list != nil {
		s.parts = splitByName(r, list)
		for _, n := range list {
			of = append(of, n.rcpt)
		}
	}
	each, kept := in.settle(ctx, s)
	if slices.ContainsFunc(each, (*reply.Reply).Positive) {
		in.archive(ctx, log, r, head)
	}
	return replies{each, of, kept}
}

// redirect returns the address that gets the mail of a client in place of its recipients,
// where an account sends it; "": they get it.
func (in *Intake) redirect(account string, c relay.Client) string {
	return in.settingsOf(account).Mapping.ForClient(c).Redirect
}

// clientAddr returns the client's address, or the path of the unix socket that
// it connected to.
func clientAddr(c smtpd.Client) string {
	switch {
	case c.Addr.IsValid():
		return c.Addr.String()
	case strings.HasPrefix(c.Listener, "/"):
		return c.Listener
	}
	return "unknown" // its proxy did not know it
}

func newMessage(env *smtpd.Envelope, data []byte) *relay.Message {
	now := time.Now()
	return &relay.Message{
		ID: cmp.Or(env.Client.Kept.ID, relay.NewID(now)), ReceivedAt: now, Client: clientOf(env),
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
		Fields:   mail.FormatValues(mail.Values(env.Client.Fields)),
		Redirect: env.Client.Redirect,
		KeptBy:   keptBy(env.Client.Kept),
	}
}

// mapped maps the mail before anything is promised, so that mail that cannot be
// sent is refused while the client still listens. It reserves the memory for the
// whole mapping first. If it reserved in steps, two mails could each hold a part
// and wait for the other's.
func (in *Intake) mapped(ctx context.Context, log *slog.Logger, m *relay.Message, env *smtpd.Envelope) (*mail.Mail, provider.Body, error) {
	mapping := in.settingsOf(m.Account).Mapping
	options := mapping.ForClient(m.Client)
	outline := mail.NewOutline(m.Raw, mapping.Limits)
	options.Memory = outline.CostWithin(env.Most())
	if err := env.Reserve(ctx, options.Memory); err != nil {
		return nil, nil, err
	}
	parsed, err := outline.Map(m.From, options)
	if r, ok := errors.AsType[*mail.Refusal](err); ok && r.Reason == mail.HasAttachment {
		in.refusedFiles.count(m.Client, time.Now())
	}
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
	return parsed, body, env.Reserve(ctx, body.Len("")) // less than before, so this never fails
}

// domainOf returns the domain whose warming an address counts for.
func domainOf(address string) string {
	normal := suppress.Normalise(address)
	return normal[strings.LastIndexByte(normal, '@')+1:]
}
