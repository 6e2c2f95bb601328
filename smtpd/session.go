package smtpd

import (
	"context"
	"io"
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

// A session holds the transactions of one connection. go-smtp calls it, always on
// the goroutine that owns the conn. It lives as long as the connection does; an
// EHLO in the middle only resets it.
//
// Its errors are replies (reply.SMTP): go-smtp would send the text of any other
// error to the client.
type session struct {
	filter *filter
	server *Server
	now    *listener // the port's current one, as of the last MAIL or AUTH
	client Client
	user   *auth.User // nil before a login
	smtp   *smtp.Conn // from the first EHLO on

	open     bool // MAIL was accepted
	utf8     bool
	size     int64 // that MAIL announced
	envelope Envelope
}

// ready reports whether a message may come now.
func (s *session) ready() bool { return s.open && len(s.envelope.Recipients) > 0 }

// Mail begins a transaction. The address is the one that the filter has read.
func (s *session) Mail(string, *smtp.MailOptions) error {
	s.refresh()
	if users := s.now.options.Users; s.user != nil && users != nil {
		s.user = users.Current(s.user)
	} else {
		s.user = nil
	}
	if s.user == nil {
		s.client.User = ""
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
	s.tellInstead(reply.Ok("MAIL"))
	return nil
}

// refresh takes over who may send from the configuration in force: a client that
// stays connected must not keep what it may not do any more. The form of the
// conversation (protocol, TLS, limits) stays that of the listener by which the
// client came.
func (s *session) refresh() { s.now = s.filter.listener.port.current() }

// rules returns all rules that bind the client now, in the order of addressRules.
func (s *session) rules() policy.Chain {
	rules := policy.Chain{s.now.options.Rules, s.now.config.Rules}
	if s.user != nil {
		rules = append(rules, s.user.Rules)
	}
	return rules
}

// inNetworks reports whether the client may send without a login, unless
// everybody has to log in.
func (s *session) inNetworks() bool {
	return s.filter.local || contains(s.now.config.Networks, s.client.Addr.Addr())
}

// class is what the client may do now.
func (s *session) class() class {
	switch {
	case s.inNetworks() && !s.now.config.RequireAuth:
		return trusted
	case s.user != nil:
		return user
	}
	return stranger
}

// admitted is nil for a client that may send. Others are asked to log in where
// they can.
func (s *session) admitted() *reply.Reply {
	if s.class() != stranger {
		return nil
	}
	broken := ruleNetworks
	if s.inNetworks() {
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
	return s.now.options.Users != nil && (s.filter.listener.config.TLS.On() || s.now.config.AuthWithoutTLS)
}

// Rcpt asks the backend for a recipient.
func (s *session) Rcpt(string, *smtp.RcptOptions) error {
	rcpt := s.filter.exchange.path.address
	if r, limit := s.server.meter.full(s, time.Now()); r != nil {
		s.filter.metrics.hit(limit)
		return s.answer(r)
	}
	if r := s.recipient(rcpt); r != nil {
		return s.answer(r)
	}
	s.server.meter.count(s, time.Now())
	s.envelope.Recipients = append(s.envelope.Recipients, rcpt)
	s.tellInstead(reply.Ok("RCPT")) // go-smtp promises that the recipient "gets this", which nobody knows yet
	return nil
}

func (s *session) recipient(rcpt string) (r *reply.Reply) {
	if !s.filter.metrics.permits(s.envelope.Rules, policy.Recipient, rcpt) {
		return reply.RecipientNotAllowed(rcpt)
	}
	defer func() {
		if value := recover(); value != nil {
			r = s.recovered(value)
		}
	}()
	env := s.snapshot()
	return reply.From(s.server.options.Backend.Recipient(s.server.ctx, &env, rcpt))
}

// Data takes a message. It comes from the filter; go-smtp's reader holds nothing.
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
		s.filter.counts.forgive()
	}
	if s.filter.listener.config.Protocol == LMTP {
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

// message gives a message to the backend. Over LMTP it returns the reply for each
// recipient as well, if the backend has them; r is then the first positive one, or
// the first.
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
	env.Client.Kept = s.server.locals.of(s.filter)
	env.receipt = new(receipt)
	size := int64(len(data))
	env.reserve = func(ctx context.Context, n int64) *reply.Reply {
		return s.filter.hold(ctx, budget.Dealing, size+n)
	}
	env.most = s.filter.share.Most(budget.Dealing) - size
	env.author = func(address string) bool { return s.filter.metrics.permits(env.Rules, policy.Author, address) }
	stop := s.filter.watch(env.receipt)
	defer func() { stop(); s.filter.pending = env.receipt }()
	if b, ok := s.server.options.Backend.(EachBackend); ok && s.filter.listener.config.Protocol == LMTP {
		n := len(env.Recipients)
		each = b.MessageEach(s.server.ctx, &env, data)
		if len(each) != n || slices.Contains(each, nil) {
			return reply.LocalError(), nil
		}
		if i := slices.IndexFunc(each, (*reply.Reply).Positive); i >= 0 {
			return each[i], each
		}
		return each[0], each
	}
	r = s.server.options.Backend.Message(s.server.ctx, &env, data)
	if r == nil {
		return reply.LocalError(), nil
	}
	return r, nil
}

// snapshot returns a copy of the envelope for the backend, which may keep it.
func (s *session) snapshot() Envelope {
	env := s.envelope
	env.Recipients = slices.Clone(env.Recipients)
	return env
}

// recovered logs a panic and returns the reply to it, a 421: a bug ends this one
// connection.
func (s *session) recovered(value any) *reply.Reply {
	s.filter.log.Error("panic", "value", value, "stack", string(debug.Stack()))
	if tell := s.server.options.Panicked; tell != nil {
		tell(value)
	}
	return reply.Bug()
}

// answer is what a method returns to refuse, or to answer a message: the client is
// told r.
func (s *session) answer(r *reply.Reply) error {
	s.tellInstead(r)
	return r.SMTP()
}

// tellInstead has the client told r in place of go-smtp's next reply.
func (s *session) tellInstead(r *reply.Reply) {
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

// restart is Reset for a client that begins anew inside TLS.
func (s *session) restart() {
	s.Reset()
	s.user, s.client.User = nil, ""
	s.filter.classify()
}

// Logout has nothing to do.
func (s *session) Logout() error { return nil }

func heloName(s string) string {
	s = printable(s)
	return s[:min(len(s), maxHelo)]
}
