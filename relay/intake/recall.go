package intake

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strings"
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
//   - Some recipients got the mail and the client was answered 4xx, because the
//     others could be neither tried nor queued. The next copy continues under the
//     same id and leaves out the recipients that have the mail.
//
// A mail is recognised by its sender and content. It is remembered separately
// for each recipient, because the next copy may have fewer of them: one that was
// found to be suppressed is now refused at RCPT.
//
// Mail without a Message-ID is not remembered, because a program may send two
// equal ones on purpose. Mail whose client got a positive reply is not remembered
// either: whoever sends that again means it.
type recall struct {
	mu    sync.Mutex
	known *simplelru.LRU[fingerprint, memory] // never read by Get, so the oldest was added first
	stale []string                            // ids of mails whose mark can be removed
}

// memory is what is remembered of a mail for one recipient.
type memory struct {
	since time.Time
	mail  *handling
}

// fingerprint identifies a mail to one recipient.
type fingerprint struct {
	mail digest
	to   string // normalised
}

// digest identifies a mail of a sender. It is zero for a mail without a
// Message-ID.
type digest [sha256.Size]byte

func newRecall() *recall {
	known, _ := simplelru.NewLRU[fingerprint, memory](recallMost+1, nil) // fails only for a size of 0
	return &recall{known: known}
}

// handling is one message from DATA to its reply, in progress or over.
type handling struct {
	id   string
	to   []string // its recipients, normalised
	done chan struct{}

	// The fields below must not be read before done is closed.

	mail    digest // zero: the mail is not remembered
	replies replies
	ends    map[string]end // by normalised recipient
	kept    bool           // some of it is in the queue under this id
	marked  bool           // a mark stores it
}

// end is how far the mail got for one recipient.
type end struct {
	relay.Outcome
	taken  bool // the client was told 250 for it
	resend bool // the client was told 4xx; the next copy must continue from here
}

func newHandling(m *relay.Message) *handling {
	h := &handling{id: m.ID, done: make(chan struct{}), replies: forAll(reply.Bug()), ends: map[string]end{}}
	for _, to := range m.Recipients {
		h.to = append(h.to, suppress.Normalise(to))
	}
	return h
}

// finish records how far the message got for each recipient. After a panic there
// is no reply and nothing is recorded.
func (h *handling) finish(s *transaction) {
	switch {
	case len(s.parts) > 0 && len(h.replies.each) == len(s.parts):
		for i, part := range s.parts {
			h.record(part, h.replies.each[i], s.before)
		}
	case s.tried.Message != nil:
		h.record(s.tried, h.replies.main(), s.before)
	case temporary(h.replies.main()): // nothing was tried: what earlier copies reached still holds
		for to, one := range s.before {
			h.ends[to] = one.ends[to].withResend()
			h.kept = h.kept || one.kept
		}
	}
}

// record records the outcomes of a part of the message and the reply for it.
func (h *handling) record(part relay.Remainder, r *reply.Reply, before earlier) {
	reached := slices.ContainsFunc(part.Outcomes, func(out relay.Outcome) bool {
		return out.Kind == relay.Accepted || out.Kind == relay.Ambiguous
	})
	for i, addr := range part.Message.Recipients {
		to := suppress.Normalise(addr)
		if h.ends[to].taken { // by another part
			continue
		}
		_, taken, _ := before.outcome(addr)
		out := part.Outcomes[i]
		e := end{taken: taken || r.Positive(), Outcome: relay.Outcome{Kind: out.Kind, MessageID: out.MessageID, Detail: out.Detail}}
		if reached && temporary(r) {
			e = e.withResend()
		}
		h.ends[to] = e
	}
}

func (e end) withResend() end {
	e.resend = true
	return e
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

// needed reports whether the next copy for the recipient must be recognised. The
// answer is not known before done is closed.
func (h *handling) needed(to string, lost bool) bool {
	e := h.ends[to]
	return e.resend || lost && (e.taken || h.replies.main().Positive())
}

// lifetime returns how long the recipient is remembered.
func (h *handling) lifetime(to string) time.Duration {
	if h.over() && h.ends[to].resend {
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
			if slices.Contains(h.to, to) && one.needed(to, true) {
				found[to] = one
			}
		}
	}
	for _, to := range h.to {
		one, known := r.known.Peek(fingerprint{mail, to})
		switch {
		case !known:
		case !one.mail.over():
			return nil, one.mail
		case one.mail.needed(to, true) && time.Since(one.since) < one.mail.lifetime(to):
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

// put remembers h for a recipient and replaces what was remembered before.
func (r *recall) put(mail digest, to string, h *handling) {
	r.known.Add(fingerprint{mail, to}, memory{time.Now(), h})
	r.forget(time.Now())
}

// rememberLost remembers a message whose client hung up, during the message or later.
func (r *recall) rememberLost(mail digest, h *handling) { r.remember(mail, h, true) }

// rememberResend remembers a message that its client was told to send again.
func (r *recall) rememberResend(h *handling) { r.remember(h.mail, h, false) }

func (r *recall) remember(mail digest, h *handling, lost bool) {
	if mail == (digest{}) {
		return
	}
	over := h.over()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, to := range h.to {
		if over && !h.needed(to, lost) {
			continue
		}
		// Another copy that is in progress, or that was taken, knows more.
		other, known := r.known.Peek(fingerprint{mail, to})
		if known && other.mail != h && (!other.mail.over() || other.mail.ends[to].taken) {
			continue
		}
		r.put(mail, to, h)
	}
}

// replied forgets h, because its client got the reply as far as anybody knows.
func (r *recall) replied(mail digest, h *handling) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, to := range h.to {
		if one, known := r.known.Peek(fingerprint{mail, to}); known && one.mail == h {
			r.known.Remove(fingerprint{mail, to})
		}
	}
}

// forget drops what is too old, and the oldest beyond recallMost.
func (r *recall) forget(now time.Time) {
	for key, one, any := r.known.GetOldest(); any; key, one, any = r.known.GetOldest() {
		if r.known.Len() <= recallMost && now.Sub(one.since) < one.mail.lifetime(key.to) {
			return
		}
		if one.mail.over() && one.mail.marked {
			r.stale = append(r.stale, one.mail.id)
		}
		r.known.RemoveOldest()
	}
}

// earlier has the earlier copies of a message, by normalised recipient.
type earlier map[string]*handling

// repeat returns the replies to the one earlier copy, if they answer a client that
// names these recipients: each of them was then taken or refused for good.
//
// A client that gets one reply for all recipients gets no reply that left some of
// the recipients to the client.
func (e earlier) repeat(recipients, named []string, each bool) (replies, bool) {
	var one *handling
	for _, to := range recipients {
		h := e[suppress.Normalise(to)]
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

// id returns the id under which the message continues, or "" for a new one. It
// is that of an earlier copy that had all of these recipients and of which
// nothing is in the queue. The queue takes one mail by one id.
func (e earlier) id(recipients []string) string {
	for _, h := range e {
		if !h.kept && !slices.ContainsFunc(recipients, func(to string) bool { return !slices.Contains(h.to, suppress.Normalise(to)) }) {
			return h.id
		}
	}
	return ""
}

// outcome returns the outcome of a recipient that needs no further attempt. taken
// says that the recipient has the mail or the queue has it.
func (e earlier) outcome(to string) (out relay.Outcome, taken, ok bool) {
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

// Marks store small values by name across restarts. The queue implements them.
// A mark here says which recipients have a mail that the client is to send again.
type Marks interface {
	Marks(ctx context.Context, prefix string) (map[string]string, error)
	SetMark(ctx context.Context, name, value string) error
}

const (
	// resendMarks is the prefix of a mark's name; the mail's id follows.
	resendMarks = "resend/"
	// markTime bounds how long a hanging disk delays the reply.
	markTime = 5 * time.Second
	// staleAtOnce is how many unneeded marks are removed each time one is written.
	staleAtOnce = 10
	// markedDetail bounds the API's words in a mark, in bytes.
	markedDetail = 200
)

// resend is the content of a mark, as JSON.
type resend struct {
	Mail []byte          `json:"mail"` // a digest
	At   time.Time       `json:"at"`
	To   []resendAddress `json:"to"`
}

// resendAddress is how far the mail got for one recipient.
type resendAddress struct {
	Addr      string `json:"addr"`
	Kind      string `json:"kind"`
	MessageID string `json:"message_id,omitempty"`
	Detail    string `json:"detail,omitempty"`
}

// mark stores h in a mark if its client has to send it again, and removes the
// marks of the earlier copies that h replaces.
func (in *Intake) mark(ctx context.Context, h *handling, before earlier) {
	if in.opt.Marks == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTime) // also while the relay stops
	defer cancel()
	set := func(id, value string) bool {
		err := in.opt.Marks.SetMark(ctx, resendMarks+id, value)
		if err != nil {
			in.opt.Log.Error("cannot store which recipients have a mail that the client is to send again; a restart will forget it", "id", id, "cause", err)
		}
		return err == nil
	}
	if h.mail != (digest{}) && h.mustResend() {
		h.marked = set(h.id, h.resend(time.Now()))
	}
	var over []string
	for _, one := range before {
		if one.marked && !(h.marked && one.id == h.id) && !slices.Contains(over, one.id) {
			over = append(over, one.id)
		}
	}
	for _, id := range append(over, in.recall.takeStale(staleAtOnce)...) {
		if !set(id, "") {
			return
		}
	}
}

// mustResend reports whether the next copy must continue from this one.
func (h *handling) mustResend() bool {
	for _, e := range h.ends {
		if e.resend {
			return true
		}
	}
	return false
}

func (h *handling) resend(now time.Time) string {
	r := resend{Mail: h.mail[:], At: now}
	for _, to := range h.to {
		e := h.ends[to]
		if !e.resend {
			continue
		}
		detail := e.Detail
		if len(detail) > markedDetail {
			detail = strings.ToValidUTF8(detail[:markedDetail], "")
		}
		r.To = append(r.To, resendAddress{to, e.Kind.String(), e.MessageID, detail})
	}
	text, _ := json.Marshal(r) // strings, bytes and a time never fail
	return string(text)
}

// Restore reads the marks of the last run. It removes those that are too old or
// cannot be read.
func (in *Intake) Restore(ctx context.Context) error {
	if in.opt.Marks == nil {
		return nil
	}
	marks, err := in.opt.Marks.Marks(ctx, resendMarks)
	if err != nil {
		return err
	}
	now := time.Now()
	var all []memory
	for name, value := range marks {
		if one, ok := parseResend(strings.TrimPrefix(name, resendMarks), value, now); ok {
			all = append(all, one)
		} else if err := in.opt.Marks.SetMark(ctx, name, ""); err != nil {
			return err
		}
	}
	slices.SortFunc(all, func(a, b memory) int { return a.since.Compare(b.since) })
	in.recall.restore(all)
	return nil
}

// parseResend returns false for a mark that is too old or malformed.
func parseResend(id, value string, now time.Time) (memory, bool) {
	var r resend
	if err := json.Unmarshal([]byte(value), &r); err != nil || len(r.Mail) != len(digest{}) {
		return memory{}, false
	}
	since := now.Add(-max(now.Sub(r.At), 0)) // if the clock was set back, the mark is new, not eternal
	if now.Sub(since) >= partlyTime {
		return memory{}, false
	}
	h := &handling{id: id, done: make(chan struct{}), replies: forAll(reply.LocalError()), ends: map[string]end{}, mail: digest(r.Mail), marked: true}
	close(h.done)
	for _, to := range r.To {
		out := relay.Outcome{MessageID: to.MessageID, Detail: to.Detail}
		for _, kind := range relay.Kinds() {
			if kind.String() == to.Kind {
				out.Kind = kind
			}
		}
		h.to = append(h.to, to.Addr)
		h.ends[to.Addr] = end{Outcome: out, resend: true}
	}
	return memory{since, h}, len(h.to) > 0
}

// restore remembers what Restore read, the oldest first.
func (r *recall) restore(all []memory) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range all {
		for _, to := range one.mail.to {
			r.known.Add(fingerprint{one.mail.mail, to}, one)
			r.forget(time.Now())
		}
	}
}

// takeStale returns at most n ids whose mark is no longer needed.
func (r *recall) takeStale(n int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	n = min(n, len(r.stale))
	taken := slices.Clone(r.stale[:n])
	r.stale = slices.Delete(r.stale, 0, n)
	return taken
}
