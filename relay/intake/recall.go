package intake

import (
	"bytes"
	"container/list"
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

const (
	// lostTime is how long a mail is recognised whose client hung up before it
	// had the reply. It is longer than any program waits to try again.
	lostTime = time.Hour
	// partlyTime is how long a mail is recognised that some of its recipients
	// have and whose client was told to come again with it. Mail servers do so
	// for days, each hour (Postfix) or at most each six hours (Exim).
	partlyTime = 24 * time.Hour
	// recallMost bounds the recipients that are remembered.
	recallMost = 10_000
)

// recall remembers mail that its client will send again although somebody has
// it, so that nobody gets a second copy:
//
//   - mail whose client hung up before it had the reply. The copy is answered as
//     the first one was, and not sent;
//   - mail that was sent to some of its recipients and answered 4xx, because the
//     others could neither be sent to nor kept. The copy goes on where the first
//     one ended: by the same id, and not to who has it.
//
// A mail is known by its sender and content, and remembered for each recipient
// by itself, because a copy may come for fewer of them: RCPT refuses who was found to
// be suppressed meanwhile. Nothing is remembered of a mail without a Message-ID,
// which cannot be told from another one that is the same on purpose, nor of one
// whose client had a reply that takes it: whoever sends that again means it.
type recall struct {
	mu     sync.Mutex
	known  map[fingerprint]*list.Element
	oldest *list.List // of *memory
	stale  []string   // ids of mails that are kept by a mark and need not be
}

// memory is what is remembered of a mail for one recipient.
type memory struct {
	fingerprint
	since time.Time
	mail  *handled
}

// fingerprint is the same for the same mail to the same recipient.
type fingerprint struct {
	mail digest
	to   string // normalised
}

// digest is the same for the same mail of the same sender; it is zero for one
// without a Message-ID.
type digest [sha256.Size]byte

func newRecall() *recall {
	return &recall{known: make(map[fingerprint]*list.Element), oldest: list.New()}
}

// handled is one message that is being dealt with, or was.
type handled struct {
	id   string
	to   []string // its recipients, normalised
	done chan struct{}

	// What is below must not be read before done is closed.

	mail    digest // zero: it is not recognised
	verdict verdict
	ends    map[string]end // by recipient, normalised
	kept    bool           // some of it was handed to the queue by its id
	marked  bool           // it is kept by a mark
}

// end is what one recipient of a message came to.
type end struct {
	relay.Outcome
	taken bool // it is seen to: a client was told 250
	owed  bool // the client was told 4xx, and a copy must go on where this one ended
}

func newHandled(m *relay.Message) *handled {
	h := &handled{id: m.ID, done: make(chan struct{}), verdict: forAll(reply.Bug()), ends: map[string]end{}}
	for _, to := range m.Recipients {
		h.to = append(h.to, suppress.Normalise(to))
	}
	return h
}

// ended notes what the message came to. A panic leaves it without an answer.
func (h *handled) ended(s *story) {
	switch {
	case len(s.parts) > 0 && len(h.verdict.each) == len(s.parts):
		for i, part := range s.parts {
			h.came(part, h.verdict.each[i], s.before)
		}
	case s.tried.Message != nil:
		h.came(s.tried, h.verdict.main(), s.before)
	case temporary(h.verdict.main()): // what earlier copies came to still holds
		for to, one := range s.before {
			h.ends[to] = one.ends[to].owing()
			h.kept = h.kept || one.kept
		}
	}
}

// came notes what a part of the message came to, and what the client is told of
// it.
func (h *handled) came(part relay.Remainder, r *reply.Reply, before earlier) {
	reached := slices.ContainsFunc(part.Outcomes, func(out relay.Outcome) bool {
		return out.Kind == relay.Accepted || out.Kind == relay.Ambiguous
	})
	for i, addr := range part.Message.Recipients {
		to := suppress.Normalise(addr)
		if h.ends[to].taken { // in another part
			continue
		}
		_, taken, _ := before.end(addr)
		out := part.Outcomes[i]
		e := end{taken: taken || r.Positive(), Outcome: relay.Outcome{Kind: out.Kind, MessageID: out.MessageID, Detail: out.Detail}}
		if reached && temporary(r) {
			e = e.owing()
		}
		h.ends[to] = e
	}
}

func (e end) owing() end {
	e.owed = true
	return e
}

func temporary(r *reply.Reply) bool { return r.Code()/100 == 4 }

func (h *handled) over() bool {
	select {
	case <-h.done:
		return true
	default:
		return false
	}
}

// worth reports whether a copy for the recipient is to be recognised. While the
// message is being dealt with that is not known.
func (h *handled) worth(to string, lost bool) bool {
	e := h.ends[to]
	return e.owed || lost && (e.taken || h.verdict.main().Positive())
}

// age is how long a recipient is remembered.
func (h *handled) age(to string) time.Duration {
	if h.over() && h.ends[to].owed {
		return partlyTime
	}
	return lostTime
}

// begin returns what is known of earlier copies of a message, once none of them
// is being dealt with any more. If there were any, copies that come from now on
// wait for this one.
func (r *recall) begin(ctx context.Context, h *handled, sum func() digest) (earlier, error) {
	var waited []*handled
	for {
		r.mu.Lock()
		r.forget(time.Now())
		some := len(r.known) > 0 || waited != nil
		r.mu.Unlock()
		if !some {
			return nil, nil // the common case pays for no hash
		}
		found, pending := r.find(sum(), h, waited)
		if pending == nil {
			return found, nil
		}
		select {
		case <-pending.done:
			waited = append(waited, pending)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// find looks for earlier copies of h: those that are remembered, and those that
// were waited for, who may be forgotten by now. Unless one of them is pending, h
// takes their place.
func (r *recall) find(mail digest, h *handled, waited []*handled) (found earlier, pending *handled) {
	r.mu.Lock()
	defer r.mu.Unlock()
	found = earlier{}
	for _, one := range waited {
		for _, to := range one.to {
			if slices.Contains(h.to, to) && one.worth(to, true) {
				found[to] = one
			}
		}
	}
	for _, to := range h.to {
		e, known := r.known[fingerprint{mail, to}]
		if !known {
			continue
		}
		one := e.Value.(*memory)
		switch {
		case !one.mail.over():
			return nil, one.mail
		case one.mail.worth(to, true) && time.Since(one.since) < one.mail.age(to):
			found[to] = one.mail
		}
	}
	if len(found) > 0 {
		for _, to := range h.to {
			r.put(mail, to, h)
		}
	}
	return found, nil
}

// put remembers h for a recipient in the place of what was known.
func (r *recall) put(mail digest, to string, h *handled) {
	key := fingerprint{mail, to}
	if e, known := r.known[key]; known {
		r.oldest.Remove(e)
	}
	r.known[key] = r.oldest.PushBack(&memory{key, time.Now(), h})
	r.forget(time.Now())
}

// lost remembers a message whose client is gone, while it is being dealt with or
// after that.
func (r *recall) lost(mail digest, h *handled) { r.remember(mail, h, true) }

// owes remembers a message that its client has to send again.
func (r *recall) owes(h *handled) { r.remember(h.mail, h, false) }

func (r *recall) remember(mail digest, h *handled, lost bool) {
	if mail == (digest{}) {
		return
	}
	over := h.over()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, to := range h.to {
		if over && !h.worth(to, lost) {
			continue
		}
		if e, known := r.known[fingerprint{mail, to}]; known {
			// Another copy that is being dealt with, or was taken, says more.
			if other := e.Value.(*memory).mail; other != h && (!other.over() || other.ends[to].taken) {
				continue
			}
		}
		r.put(mail, to, h)
	}
}

// settled forgets h, whose client has its reply as far as is known.
func (r *recall) settled(mail digest, h *handled) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, to := range h.to {
		if e, known := r.known[fingerprint{mail, to}]; known && e.Value.(*memory).mail == h {
			r.drop(e)
		}
	}
}

// forget drops what is too old or too much.
func (r *recall) forget(now time.Time) {
	for e := r.oldest.Front(); e != nil; e = r.oldest.Front() {
		one := e.Value.(*memory)
		if len(r.known) <= recallMost && now.Sub(one.since) < one.mail.age(one.to) {
			return
		}
		if one.mail.over() && one.mail.marked {
			r.stale = append(r.stale, one.mail.id)
		}
		r.drop(e)
	}
}

func (r *recall) drop(e *list.Element) {
	delete(r.known, r.oldest.Remove(e).(*memory).fingerprint)
}

// earlier are the earlier copies of a message, by recipient.
type earlier map[string]*handled

// repeat is the verdict on the one earlier copy, for a client that names these
// recipients, if each of them was taken or refused then.
//
// A client that hears one reply for all of them is not given one of several,
// which left some of the recipients to that client.
func (e earlier) repeat(recipients, named []string, each bool) (verdict, bool) {
	var one *handled
	for _, to := range recipients {
		h := e[suppress.Normalise(to)]
		if h == nil || one != nil && h != one {
			return verdict{}, false
		}
		one = h
	}
	if one == nil {
		return verdict{}, false
	}
	v, known := one.verdict.to(named)
	if !known || !v.main().Positive() {
		return verdict{}, false
	}
	for _, r := range v.each {
		if !r.Positive() && (!each || temporary(r)) {
			return verdict{}, false
		}
	}
	return v, true
}

// id is the id by which a message goes on, "" for one of its own. It is that of
// an earlier copy for the same recipients or more, of which the queue has
// nothing: by one id it takes one mail.
func (e earlier) id(recipients []string) string {
	for _, h := range e {
		if !h.kept && !slices.ContainsFunc(recipients, func(to string) bool { return !slices.Contains(h.to, suppress.Normalise(to)) }) {
			return h.id
		}
	}
	return ""
}

// end is what a recipient came to, if that needs no further attempt. taken says
// that it is seen to: it has the mail, or the queue has.
func (e earlier) end(to string) (out relay.Outcome, taken, ok bool) {
	to = suppress.Normalise(to)
	h := e[to]
	if h == nil {
		return relay.Outcome{}, false, false
	}
	switch was := h.ends[to]; {
	case was.taken:
		return relay.Outcome{Kind: relay.Accepted, MessageID: was.MessageID}, true, true
	case was.Kind.Settled():
		return was.Outcome, false, true
	default:
		return relay.Outcome{}, false, false
	}
}

// digestOf is zero for a mail without a Message-ID.
func digestOf(m *relay.Message) digest {
	if !hasMessageID(m.Raw) {
		return digest{}
	}
	h := sha256.New()
	_, _ = h.Write([]byte(m.From + "\x00")) // a hash never fails
	_, _ = h.Write(m.Raw)
	return digest(h.Sum(nil))
}

func hasMessageID(raw []byte) bool {
	for line := range bytes.Lines(raw) {
		if len(bytes.TrimSpace(line)) == 0 {
			return false // the end of the header
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(bytes.TrimSpace(name), []byte("Message-ID")) && len(bytes.TrimSpace(value)) > 0 {
			return true
		}
	}
	return false
}
