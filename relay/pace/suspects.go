package pace

import (
	"net/http"
	"slices"

	"github.com/smtp2rest/smtp2rest/relay"
)

// maxSuspects bounds each list: one that is longer than this is no list of
// single mails that the API cannot take.
const maxSuspects = 500

// manyForbidden is how many senders the API must have said 403 of, while it took
// others' mail, for one more 403 to be taken for a word about its sender too.
const manyForbidden = 3

// suspects are mails that failed while the API was taken to be out of order. It
// may be the mail: if it were the next probe too, and the one after that, it
// would keep everybody's mail waiting for an API that works. So while the
// breaker is open each probe is made with a mail that is not suspect, if there
// is one. If that gets through, those before it failed alone: they are tried
// again like any mail, but their next failure says nothing about the API. The
// Pacer's mutex guards it.
type suspects struct {
	open    []suspect       // that failed since the breaker opened
	alone   map[string]bool // mails that failed before while others got through
	senders map[string]bool // for whose mail alone the API said 403
}

type suspect struct {
	mail, sender string
	forbidden    bool
}

// failed notes a call that failed while the breaker is open, or opened it. A 401
// is about the key, whatever the mail.
func (s *suspects) failed(pass *Pass, out relay.Outcome) {
	if pass.mail == "" || out.Status == http.StatusUnauthorized {
		return
	}
	if slices.ContainsFunc(s.open, func(x suspect) bool { return x.mail == pass.mail }) {
		return
	}
	if len(s.open) == maxSuspects {
		s.open = s.open[1:]
	}
	s.open = append(s.open, suspect{pass.mail, pass.sender, forbidden(out)})
}

// cleared is called when the breaker closes: the API works, so that it was them.
func (s *suspects) cleared() {
	for _, x := range s.open {
		s.alone = with(s.alone, x.mail)
		if x.forbidden {
			s.senders = with(s.senders, x.sender)
		}
	}
	s.open = nil
}

// settled forgets a mail that the API took or refused.
func (s *suspects) settled(pass *Pass) {
	delete(s.alone, pass.mail)
	s.open = slices.DeleteFunc(s.open, func(x suspect) bool { return x.mail == pass.mail })
}

// toBlame reports whether a failure may be the API's: not when the mail failed
// before while others got through.
func (s *suspects) toBlame(pass *Pass) bool { return !s.alone[pass.mail] }

// keyRefused reports whether one such outcome is enough to say that the key is
// refused. A 403 is not for a sender of whom the API said so before while it
// took others' mail, nor for any once it did of several: it is about that sender,
// such as a domain that is not verified, until it comes as often in a row as any
// other failure.
func (s *suspects) keyRefused(pass *Pass, out relay.Outcome) bool {
	aboutSender := forbidden(out) && (s.senders[pass.sender] || len(s.senders) >= manyForbidden)
	return out.Kind == relay.Unauthorized && !aboutSender
}

func forbidden(out relay.Outcome) bool { return out.Status == http.StatusForbidden }

// with adds to a set that is bounded: at the bound, some other is forgotten.
func with(set map[string]bool, name string) map[string]bool {
	if set == nil {
		set = map[string]bool{}
	}
	for other := range set {
		if len(set) < maxSuspects {
			break
		}
		delete(set, other)
	}
	set[name] = true
	return set
}

// Suspects are ids of mails that the next probe should not be made with: they
// failed since the breaker opened.
func (p *Pacer) Suspects() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := make([]string, len(p.suspects.open))
	for i, s := range p.suspects.open {
		ids[i] = s.mail
	}
	return ids
}

// FailsAlone reports whether a mail failed while others got through.
func (p *Pacer) FailsAlone(mail string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.suspects.alone[mail]
}
