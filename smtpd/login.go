package smtpd

import (
	"errors"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// login answers AUTH (RFC 4954). go-smtp does not see it: it takes AUTH inside
// a transaction, and calls bad base64 a temporary failure.
func (w *wire) login(arg string) error {
	s := w.session
	s.refresh()
	switch {
	case !s.canLogIn():
		return w.answer(reply.NotImplemented("AUTH"))
	case !w.greeted:
		return w.answer(reply.BadSequence("say EHLO first"))
	case s.client.User != "":
		return w.answer(reply.BadSequence("authenticated already"))
	case s.open:
		return w.answer(reply.BadSequence("a transaction is open"))
	case !w.passwordsAllowed():
		w.metrics.refusedBy(ruleTLS)
		return w.answer(reply.AuthNeedsTLS())
	}
	said, err := auth.Converse(arg, w.ask)
	switch {
	case err == nil:
		return w.check(said)
	case errors.Is(err, auth.ErrMechanism):
		return w.answer(reply.UnknownMechanism())
	case errors.Is(err, auth.ErrCancelled):
		return w.answer(reply.LoginCancelled())
	case errors.Is(err, auth.ErrBase64), errors.Is(err, auth.ErrMalformed):
		return w.answer(reply.BadLogin())
	}
	return err // of the connection: everything was said
}

// tooManyBeforeLogin counts the commands of a client that may not send: it has
// no more to say than it takes to log in.
func (w *wire) tooManyBeforeLogin(verb string) bool {
	if w.seat.class != stranger || verb == "QUIT" {
		return false
	}
	if w.dialog.before++; w.dialog.before <= w.limits.StrangerCommands {
		return false
	}
	w.metrics.hit(limitStrangerCommands)
	w.linger = lingerTime
	return true
}

// passwordsAllowed reports whether a password may travel as things are now.
func (w *wire) passwordsAllowed() bool { return w.secure || w.session.config.AuthWithoutTLS }

// ask sends a challenge. What the client answers is no command.
func (w *wire) ask(challenge string) (string, error) {
	if err := w.send("334 " + challenge); err != nil {
		return "", err
	}
	w.setIdle(true)
	line, err := w.readLine(true)
	w.setIdle(false)
	w.dialog.verb = "AUTH"
	return line, err
}

// check gives a client's credentials to the users, and makes those who are
// wrong wait.
func (w *wire) check(said auth.Credentials) error {
	s := w.session
	v, err := s.users.Check(w.ctx, s.client.Addr.Addr(), said)
	if err != nil {
		return w.answer(reply.From(err))
	}
	if v.User != nil {
		w.metrics.logins.WithLabelValues("right").Inc()
		s.user, s.client.User = v.User, v.User.Name
		w.classify()
		w.log.Info("logged in", "user", v.User.Name)
		return w.answer(reply.LoggedIn())
	}
	r := reply.WrongPassword()
	result := "wrong"
	if v.ShutOut {
		w.metrics.hit(limitLogins)
		r, result = reply.TooManyFailures(), "shut_out"
	}
	w.metrics.logins.WithLabelValues(result).Inc()
	if v.Known { // else it may be a password in the wrong place
		r = r.Because(errors.New("as user " + said.User))
	}
	w.dialog.login = true
	w.pause(v.Delay)
	return w.answer(r)
}
