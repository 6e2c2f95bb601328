package intake

import (
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

const (
	// lostTime is how long a mail is remembered whose client hung up before it
	// got the reply. No program waits longer before it tries again.
	lostTime = time.Hour
	// partlyTime is how long a mail is remembered that reached some of its
	// recipients and was answered 4xx. Mail servers retry for days: Postfix
	// every hour, Exim at least every six hours.
	partlyTime = 24 * time.Hour
	// recallMost bounds the recipients that are remembered.
	recallMost = 10_000
)

// recall remembers mail that its client will send again although some recipients
// have it already, so that nobody gets a second copy. There are two cases:
//
//   - The client hung up before it got the reply. The next copy gets the same
//     reply and is not sent.
//   - Some recipients have the mail, or may have it, and the client was answered
//     4xx, because the others could be neither tried nor queued. The next copy
//     leaves out the recipients that have the mail, and tries those that may have
//     it with the same idempotency key.
//
// A mail is recognised by its sender and content. It is remembered separately for
// each recipient, with the id under which that recipient was first tried: the next
// copy may have fewer recipients, or more, or some of several earlier copies.
//
// Mail without a Message-ID is not remembered, because a program may send two
// equal ones on purpose. Mail whose client got a positive reply is not remembered
// either: whoever sends that again means it.
type recall struct {
	mu    sync.Mutex
	known *simplelru.LRU[fingerprint, *memory] // never read by Get, so the oldest was added first
	stale []digest                             // mails whose mark says too much, at most recallMost; Restore removes the marks of the rest
}

// memory is what is remembered of a mail for one recipient.
type memory struct {
	end             // how far the last copy got that is over
	since time.Time // when that was
	copy  *handling // in progress; or over, and its client did not get the reply; or nil
}

// fingerprint identifies a mail to one recipient.
type fingerprint struct {
	mail digest
	to   string // normalised
}

// digest identifies a mail of a sender. It is zero for a mail without a
// Message-ID.
type digest [sha256.Size]byte

// end is how far a mail got for one recipient.
type end struct {
	relay.Outcome        // Ambiguous until the API answers for certain
	id            string // the idempotency key is made of it
	taken         bool   // the client was told 250 for it
	owed          bool   // the client was told 4xx; the next copy must continue from here
}

func newRecall() *recall {
	known, _ := simplelru.NewLRU[fingerprint, *memory](recallMost+1, nil) // fails only for a size of 0
	return &recall{known: known}
}

// handling is one message from DATA to its reply, in progress or over.
type handling struct {
	to   []string // its recipients, normalised
	done chan struct{}

	// The fields below must not be read before done is closed.

	mail    digest // zero: the mail is not remembered
	replies replies
	ends    map[string]end // by normalised recipient
}

func newHandling(m *relay.Message) *handling {
	h := &handling{done: make(chan struct{}), replies: forAll(reply.Bug()), ends: map[string]end{}}
	for _, to := range m.Recipients {
		h.to = append(h.to, suppress.Normalise(to))
	}
	return h
}

// finish records how far the message got for each recipient. After a panic there
// is no reply for each part, and that for the whole is a 4xx.
func (h *handling) finish(s *transaction) {
	switch {
	case len(s.parts) > 0 && len(h.replies.each) == len(s.parts):
		for i, part := range s.parts {
			h.record(part, h.replies.each[i], s.before)
		}
	case s.tried.Message != nil:
		h.record(s.tried, h.replies.main(), s.before)
	case temporary(h.replies.main()): // nothing was tried: what earlier copies reached still holds
		for to, m := range s.before {
			e := m.end
			e.owed = true
			h.ends[to] = e
		}
	}
}

// record records the outcomes of a part of the message and the reply for it.
func (h *handling) record(part relay.Remainder, r *reply.Reply, before earlier) {
	ends := make([]end, len(part.Outcomes))
	reached := false
	for i, addr := range part.Message.Recipients {
		was, out := before[suppress.Normalise(addr)], part.Outcomes[i]
		ends[i] = end{
			Outcome: relay.Outcome{Kind: out.Kind, MessageID: out.MessageID, Detail: out.Detail},
			id:      relay.FirstID(before.idFor(addr, part.Message.ID)),
			taken:   was.taken || r.Positive(),
		}
		if was.Kind == relay.Ambiguous && !out.Kind.Settled() {
			ends[i].Kind = relay.Ambiguous // that this try failed says nothing of the one before
		}
		reached = reached || ends[i].Kind == relay.Accepted || ends[i].Kind == relay.Ambiguous
	}
	for i, addr := range part.Message.Recipients {
		to := suppress.Normalise(addr)
		ends[i].owed = reached && temporary(r)
		if !h.ends[to].taken { // by another part
			h.ends[to] = ends[i]
		}
	}
}

func temporary(r *reply.Reply) bool { return r.Code()/100 == 4 }

func (h *handling) over() bool {
	select {
	case <-h.done:
		return true
	default:
		return false
	}
}

// repeatable reports whether a client that did not get the reply, and sends the
// mail again for the recipient, gets the same reply. The answer is not known
// before done is closed.
func (h *handling) repeatable(to string) bool {
	return h.ends[to].taken || h.replies.main().Positive()
}

// owed reports whether the next copy must continue from this one for a recipient.
func (h *handling) owed() bool {
	for _, e := range h.ends {
		if e.owed {
			return true
		}
	}
	return false
}

// lifetime returns how long the recipient is remembered.
func (m *memory) lifetime() time.Duration {
	if m.owed {
		return partlyTime
	}
	return lostTime
}

// begin waits until no earlier copy of the message is in progress and returns
// what those copies reached. If there were any, h takes their place: copies that
// come from now on wait for it.
func (r *recall) begin(ctx context.Context, h *handling, sum func() digest) (earlier, error) {
	var waited []*handling
	for {
		r.mu.Lock()
		r.forget(time.Now())
		some := r.known.Len() > 0 || waited != nil
		r.mu.Unlock()
		if !some {
			return nil, nil // the usual case, without the cost of a hash
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

// find looks for earlier copies of h: those that are remembered, and those in
// waited, which may be forgotten by now. If one is still in progress it is
// returned as pending. Else h takes their place.
func (r *recall) find(mail digest, h *handling, waited []*handling) (found earlier, pending *handling) {
	r.mu.Lock()
	defer r.mu.Unlock()
	found = earlier{}
	for _, one := range waited {
		for _, to := range one.to {
			if slices.Contains(h.to, to) && one.repeatable(to) {
				found[to] = memory{end: one.ends[to], copy: one}
			}
		}
	}
	now := time.Now()
	for _, to := range h.to {
		m, known := r.known.Peek(fingerprint{mail, to})
		switch {
		case !known:
		case m.copy != nil && !m.copy.over():
			return nil, m.copy
		case now.Sub(m.since) >= m.lifetime():
		case m.owed || m.copy != nil && m.copy.repeatable(to):
			found[to] = *m
			if one := m.copy; one != nil && one.repeatable(to) {
				found[to] = memory{end: one.ends[to], since: m.since, copy: one}
			}
		}
	}
	if len(found) > 0 {
		for _, to := range h.to {
			r.put(mail, to, memory{end: found[to].end, copy: h})
		}
	}
	return found, nil
}

// put remembers m for a recipient, from now on, in place of what was.
func (r *recall) put(mail digest, to string, m memory) {
	m.since = time.Now()
	r.known.Add(fingerprint{mail, to}, &m)
	r.forget(m.since)
}

// rememberLost remembers a message whose client hung up, during the message or later.
func (r *recall) rememberLost(mail digest, h *handling) {
	if mail == (digest{}) {
		return
	}
	over := h.over()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, to := range h.to {
		m, known := r.known.Peek(fingerprint{mail, to})
		switch {
		case over && !h.repeatable(to):
		case !known:
			r.put(mail, to, memory{copy: h})
		case m.copy == h || !m.knowsMore(to):
			r.put(mail, to, memory{end: m.end, copy: h})
		}
	}
}

// knowsMore reports whether m has another copy that is in progress, or was taken.
func (m *memory) knowsMore(to string) bool {
	return m.copy != nil && (!m.copy.over() || m.copy.ends[to].taken)
}

// ended remembers of h, which is about to be over, what the next copy must
// continue from, and forgets the rest: its client gets the reply, as far as
// anybody knows.
func (r *recall) ended(h *handling) {
	if h.mail == (digest{}) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, to := range h.to {
		m, known := r.known.Peek(fingerprint{h.mail, to})
		mine := known && m.copy == h
		switch e := h.ends[to]; {
		case known && !mine && m.knowsMore(to):
		case e.owed:
			r.put(h.mail, to, memory{end: e})
		case mine:
			r.known.Remove(fingerprint{h.mail, to})
		}
	}
}

// forget drops what is too old, and the oldest beyond recallMost.
func (r *recall) forget(now time.Time) {
	for key, m, some := r.known.GetOldest(); some; key, m, some = r.known.GetOldest() {
		if r.known.Len() <= recallMost && now.Sub(m.since) < m.lifetime() {
			return
		}
		if m.owed && len(r.stale) < recallMost && (len(r.stale) == 0 || r.stale[len(r.stale)-1] != key.mail) {
			r.stale = append(r.stale, key.mail)
		}
		r.known.RemoveOldest()
	}
}

// earlier is what earlier copies of a message reached, by normalised recipient.
type earlier map[string]memory

// repeat returns the replies to the one earlier copy, if they answer a client that
// names these recipients: each of them was then taken or refused for good.
//
// A client that gets one reply for all recipients gets no reply that left some of
// the recipients to the client.
func (e earlier) repeat(recipients, named []string, each bool) (replies, bool) {
	var one *handling
	for _, to := range recipients {
		h := e[suppress.Normalise(to)].copy
		if h == nil || one != nil && h != one {
			return replies{}, false
		}
		one = h
	}
	if one == nil {
		return replies{}, false
	}
	v, known := one.replies.to(named)
	if !known || !v.main().Positive() {
		return replies{}, false
	}
	for _, r := range v.each {
		if !r.Positive() && (!each || temporary(r)) {
			return replies{}, false
		}
	}
	return v, true
}

// continued returns the id of a message that was given one: itself, or what
// continues the id of the first recipient to whom something is owed. Nothing is in the
// queue under that id.
func (e earlier) continued(m *relay.Message) string {
	for _, to := range m.Recipients {
		if was := e[suppress.Normalise(to)]; was.owed && !was.taken {
			return relay.ContinueID(was.id, m.ID)
		}
	}
	return m.ID
}

// idFor returns the id under which a message is sent to a recipient: the message's
// own, unless an earlier copy may have reached the recipient under another.
func (e earlier) idFor(to, id string) string {
	if was := e[suppress.Normalise(to)]; was.owed && was.Kind == relay.Ambiguous && !was.taken {
		return relay.ContinueID(was.id, id)
	}
	return id
}

// outcome returns the outcome of a recipient that needs no further attempt. taken
// says that the recipient has the mail or the queue has it.
func (e earlier) outcome(to string) (out relay.Outcome, taken, ok bool) {
	switch was := e[suppress.Normalise(to)]; {
	case was.taken:
		return relay.Outcome{Kind: relay.Accepted, MessageID: was.MessageID}, true, true
	case was.Kind.Settled():
		return was.Outcome, false, true
	default:
		return relay.Outcome{}, false, false
	}
}

// owed reports whether something is owed to a recipient by an earlier copy.
func (e earlier) owed() bool {
	for _, m := range e {
		if m.owed {
			return true
		}
	}
	return false
}

// split splits what is left of a message by the ids under which its recipients are
// sent to.
func (e earlier) split(r relay.Remainder) []relay.Remainder {
	var ids []string
	own := map[string]string{}
	for i, to := range r.Message.Recipients {
		own[to] = r.Message.ID
		if !r.Outcomes[i].Kind.Settled() {
			own[to] = e.idFor(to, r.Message.ID)
		}
		if !slices.Contains(ids, own[to]) {
			ids = append(ids, own[to])
		}
	}
	var parts []relay.Remainder
	for _, id := range ids {
		part := selectRecipients(r, func(to string) bool { return own[to] == id })
		part.Message.ID = id
		if t := tallyOf(part.Outcomes); len(ids) == 1 || t.unsettled+t.permanent > 0 {
			parts = append(parts, part)
		}
	}
	return parts
}

// digestOf returns the digest of a mail, or zero if it has no Message-ID.
func digestOf(m *relay.Message) digest {
	if mail.Field(m.Raw, "Message-ID") == nil {
		return digest{}
	}
	h := sha256.New()
	_, _ = h.Write([]byte(m.From + "\x00")) // a hash never fails
	_, _ = h.Write(m.Raw)
	return digest(h.Sum(nil))
}
