package smtpd

import (
	"context"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/budget"
	"github.com/smtp2rest/smtp2rest/smtpd/policy"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

const (
	maxHelo     = 255 // RFC 5321 section 4.5.3.1.2
	maxReceived = 50  // RFC 5321 section 6.3 wants at least 100 hops in a chain of servers; we are the last of a short one
)

// A session is the transactions of one connection, as go-smtp calls for them,
// always on the goroutine that owns the conn. It lives as long as the
// connection does; an EHLO in the middle only resets it. Errors leave it as
// what reply.From makes of them, because go-smtp sends the text of others to
// the client.
type session struct {
	ctx      context.Context // ends when the daemon is stopped the hard way
	backend  Backend
	config   Listener
	users    Users      // nil: nobody can log in
	user     *auth.User // who did
	filter   *filter
	log      *slog.Logger
	panicked func(value any)
	client   Client
	qualify  string // Options.QualifyDomain
	meter    *meter

	everybody policy.Rules // Options.Rules

	smtp *smtp.Conn // from the first EHLO on

	open     bool // MAIL was accepted
	utf8     bool
	size     int64
	envelope Envelope
}

// ready reports whether a message may come now.
func (s *session) ready() bool { return s.open && len(s.envelope.Recipients) > 0 }

// Mail begins a transaction. The address is the one the filter has read.
func (s *session) Mail(string, *smtp.MailOptions) error {
	s.refresh()
	if s.user != nil && s.users != nil {
		s.user = s.users.Current(s.user)
	}
	if s.user == nil || s.users == nil {
		s.user, s.client.User = nil, ""
	}
	s.filter.classify()
	if r := s.admitted(); r != nil {
		return s.answer(r)
	}
	cmd := s.filter.exchange.path
	s.client.Helo = heloName(s.smtp.Hostname())
	rules := s.rules()
	if !s.filter.metrics.permits(rules, policy.Sender, cmd.address) {
		return s.answer(reply.SenderNotAllowed(cmd.address))
	}
	s.open, s.utf8, s.size = true, cmd.utf8, cmd.size
	s.envelope = Envelope{From: cmd.address, Client: s.client, Rules: rules}
	s.hears(reply.Ok("MAIL"))
	return nil
}

// refresh takes over what a new configuration says of who may send: a client
// that stays connected must not keep what it may not any more. The form of the
// conversation (protocol, encryption, limits) stays as it began.
func (s *session) refresh() {
	now := s.filter.port.current()
	s.users, s.everybody, s.qualify = now.options.Users, now.options.Rules, now.options.QualifyDomain
	c := now.config
	s.config.Networks, s.config.RequireAuth, s.config.AuthWithoutTLS, s.config.Rules = c.Networks, c.RequireAuth, c.AuthWithoutTLS, c.Rules
}

// rules are all that bind the client as it is now, in the order that
// addressRules has.
func (s *session) rules() policy.Chain {
	rules := policy.Chain{s.everybody, s.config.Rules}
	if s.user != nil {
		rules = append(rules, s.user.Rules)
	}
	return rules
}

// inside reports whether a client is one of those that may send without a login
// where nobody has to log in.
func (s *session) inside() bool {
	return s.filter.local || contains(s.config.Networks, s.client.Addr.Addr())
}

// class is what the client may do as things are now.
func (s *session) class() class {
	switch {
	case s.inside() && !s.config.RequireAuth:
		return inside
	case s.user != nil:
		return user
	}
	return stranger
}

// admitted is nil for a client that may send. Nothing but a login lets any
// other in, so those are asked for one only where they could.
func (s *session) admitted() *reply.Reply {
	if s.class() != stranger {
		return nil
	}
	broken := ruleNetworks
	if s.inside() {
		broken = ruleRequireAuth
	}
	s.filter.metrics.refusedBy(broken)
	if s.canLogIn() {
		return reply.AuthRequired()
	}
	return reply.RelayDenied()
}

// canLogIn reports whether there is a way to log in here, now or inside TLS.
func (s *session) canLogIn() bool {
	return s.users != nil && (s.config.TLS.On() || s.config.AuthWithoutTLS)
}

// Rcpt asks the backend for a recipient.
func (s *session) Rcpt(string, *smtp.RcptOptions) error {
	rcpt := s.filter.exchange.path.address
	if r, limit := s.meter.full(s, time.Now()); r != nil {
		s.filter.metrics.hit(limit)
		return s.answer(r)
	}
	if r := s.recipient(rcpt); r != nil {
		return s.answer(r)
	}
	s.meter.count(s, time.Now())
	s.envelope.Recipients = append(s.envelope.Recipients, rcpt)
	s.hears(reply.Ok("RCPT")) // go-smtp promises that the recipient "gets this", which nobody knows yet
	return nil
}

func (s *session) recipient(rcpt string) (r *reply.Reply) {
	if !s.filter.metrics.permits(s.envelope.Rules, policy.Recipient, rcpt) {
		return reply.RecipientNotAllowed(rcpt)
	}
	defer s.caught(&r)
	env := s.snapshot()
	return reply.From(s.backend.Recipient(s.ctx, &env, rcpt))
}

// Data takes a message. go-smtp's reader holds nothing: see filter.
func (s *session) Data(io.Reader) error {
	defer s.filter.share.Release()
	data, r := s.filter.message()
	var each []*reply.Reply
	if r == nil {
		r, each = s.message(data)
	}
	s.filter.counts.messages++
	s.filter.metrics.message(r, len(data))
	if r.Positive() {
		s.filter.counts.taken()
	}
	if s.config.Protocol == LMTP {
		// go-smtp's own way for a reply for each runs the session on a second
		// goroutine beside the one that writes.
		for i, rcpt := range s.envelope.Recipients {
			one := answer{reply: r, rcpt: rcpt}
			if i < len(each) {
				one.reply = each[i]
			}
			s.filter.exchange.instead = append(s.filter.exchange.instead, one)
		}
		return r.SMTP()
	}
	return s.answer(r)
}

// message asks the backend. What it says of each recipient comes besides, if
// it was asked; the reply is then the first positive one, or the first.
func (s *session) message(data []byte) (r *reply.Reply, each []*reply.Reply) {
	defer func() {
		if value := recover(); value != nil {
			r, each = s.recovered(value), nil
		}
	}()
	if receivedFields(data) > maxReceived {
		return reply.MailLoop(), nil
	}
	env := s.snapshot()
	env.receipt = new(receipt)
	size := int64(len(data))
	env.reserve = func(ctx context.Context, n int64) *reply.Reply {
		return s.filter.hold(ctx, budget.Dealing, size+n)
	}
	env.author = func(address string) bool { return s.filter.metrics.permits(env.Rules, policy.Author, address) }
	stop := s.filter.watch(env.receipt)
	defer func() { stop(); s.filter.pending = env.receipt }()
	if b, ok := s.backend.(EachBackend); ok && s.config.Protocol == LMTP {
		n := len(env.Recipients)
		each = b.MessageEach(s.ctx, &env, data)
		if len(each) != n || slices.Contains(each, nil) {
			return reply.LocalError(), nil
		}
		if i := slices.IndexFunc(each, (*reply.Reply).Positive); i >= 0 {
			return each[i], each
		}
		return each[0], each
	}
	r = s.backend.Message(s.ctx, &env, data)
	if r == nil {
		return reply.LocalError(), nil
	}
	return r, nil
}

// snapshot is a copy for the backend, which may keep it.
func (s *session) snapshot() Envelope {
	env := s.envelope
	env.Recipients = slices.Clone(env.Recipients)
	return env
}

// caught, deferred, turns a panic of the backend into the end of this one
// connection, which a 421 is.
func (s *session) caught(r **reply.Reply) {
	if value := recover(); value != nil {
		*r = s.recovered(value)
	}
}

func (s *session) recovered(value any) *reply.Reply {
	s.log.Error("panic", "value", value, "stack", string(debug.Stack()))
	if s.panicked != nil {
		s.panicked(value)
	}
	return reply.Bug()
}

// answer has go-smtp say no, or yes to a message, and the client hear r.
func (s *session) answer(r *reply.Reply) error {
	s.hears(r)
	return r.SMTP()
}

// hears has the client hear r in place of what go-smtp says next.
func (s *session) hears(r *reply.Reply) {
	s.filter.exchange.instead = append(s.filter.exchange.instead, answer{reply: r})
}

// Reset ends a transaction: RSET, a new EHLO, or the end of a message.
func (s *session) Reset() {
	s.filter.chunks = nil
	s.filter.endMessage()
	s.filter.share.Release()
	s.open, s.utf8, s.size = false, false, 0
	s.envelope = Envelope{}
}

// forget is Reset for a client that begins anew inside TLS.
func (s *session) forget() {
	s.Reset()
	s.user, s.client.User = nil, ""
	s.filter.classify()
}

// Logout has nothing to do. A panic here would end the process.
func (s *session) Logout() error { return nil }

func heloName(s string) string {
	s = printable(s)
	return s[:min(len(s), maxHelo)]
}
