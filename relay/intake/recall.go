package intake

import (
	"bytes"
	"container/list"
	"context"
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// What a client that hung up sent is recognised for an hour, which is longer
// than any program waits to try again, and no more of it than this.
const (
	recallTime = time.Hour
	recallMost = 10_000
)

// recall remembers mail whose client did not get the reply, and which it will
// therefore send again: the second copy is answered like the first and not
// sent. Nothing else is remembered, and that no longer than until a copy was
// answered: whoever gets a reply and sends the same mail again means it.
type recall struct {
	mu     sync.Mutex
	lost   map[fingerprint]*list.Element
	oldest *list.List // of *handled
}

// handled is one message that is being dealt with, or was.
type handled struct {
	key     fingerprint
	since   time.Time
	done    chan struct{}
	verdict verdict // not to be read before done is closed
}

// fingerprint is the same for the same mail to the same recipients.
type fingerprint [sha256.Size]byte

func newRecall() *recall {
	return &recall{lost: make(map[fingerprint]*list.Element), oldest: list.New()}
}

func newHandled() *handled {
	return &handled{since: time.Now(), done: make(chan struct{}), verdict: forAll(reply.Bug())}
}

func (h *handled) end() { close(h.done) }

// refused reports whether it is known that the mail was not taken.
func (h *handled) refused() bool {
	select {
	case <-h.done:
		return !h.verdict.main().Positive()
	default:
		return false
	}
}

// remember keeps h as the answer to a mail whose client is gone. One that has no
// fingerprint cannot be told from another one that is the same on purpose.
func (r *recall) remember(key fingerprint, h *handled) {
	if key == (fingerprint{}) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, known := r.lost[key]; known {
		if !e.Value.(*handled).refused() {
			return
		}
		r.oldest.Remove(e) // what was not taken then may have been taken now
	}
	h.key = key
	r.lost[key] = r.oldest.PushBack(h)
	r.forget(time.Now())
}

// forget drops what is too old or too much.
func (r *recall) forget(now time.Time) {
	for e := r.oldest.Front(); e != nil; e = r.oldest.Front() {
		h := e.Value.(*handled)
		if len(r.lost) <= recallMost && now.Sub(h.since) < recallTime {
			return
		}
		r.oldest.Remove(e)
		delete(r.lost, h.key)
	}
}

// answered forgets h, because a copy is answered like it now: by onLost it
// hears if the client of that one does not get the reply either.
func (r *recall) answered(h *handled, onLost func(func())) {
	lost := false
	onLost(func() {
		r.mu.Lock()
		lost = true
		key := h.key
		r.mu.Unlock()
		r.remember(key, h)
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, known := r.lost[h.key]; known && !lost && e.Value.(*handled) == h {
		r.oldest.Remove(e)
		delete(r.lost, h.key)
	}
}

// again returns what the client of an earlier copy of m did not get, if that
// took any of it, for the recipients as they are named now. It waits for an
// earlier copy that is still being dealt with.
//
// A client that hears one reply for all of them is not given that of another,
// which left some of the recipients to that one.
func (r *recall) again(ctx context.Context, m *relay.Message, named []string, each bool, onLost func(func())) (verdict, bool) {
	h := r.find(m)
	if h == nil {
		return verdict{}, false
	}
	select {
	case <-h.done:
		if !each && slices.ContainsFunc(h.verdict.each, func(r *reply.Reply) bool { return !r.Positive() }) {
			return verdict{}, false
		}
		v, known := h.verdict.to(named)
		if !known || !v.main().Positive() {
			return verdict{}, false
		}
		r.answered(h, onLost)
		return v, true
	case <-ctx.Done():
		v, _ := forAll(reply.From(ctx.Err())).to(named)
		return v, true
	}
}

func (r *recall) find(m *relay.Message) *handled {
	r.mu.Lock()
	r.forget(time.Now())
	some := len(r.lost) > 0
	r.mu.Unlock()
	if !some {
		return nil // the common case pays for no hash
	}
	key := fingerprintOf(m)
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, known := r.lost[key]; known {
		return e.Value.(*handled)
	}
	return nil
}

// fingerprintOf is zero for a mail without a Message-ID.
func fingerprintOf(m *relay.Message) fingerprint {
	if !hasMessageID(m.Raw) {
		return fingerprint{}
	}
	recipients := slices.Clone(m.Recipients)
	slices.Sort(recipients)
	h := sha256.New()
	_, _ = h.Write([]byte(m.From + "\x00" + strings.Join(recipients, "\x00") + "\x00\x00")) // a hash never fails
	_, _ = h.Write(m.Raw)
	return fingerprint(h.Sum(nil))
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
