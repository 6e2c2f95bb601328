package intake

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// Marks keep, over a restart, who has a mail that is to come again; the queue's
// do.
type Marks interface {
	Marks(ctx context.Context, prefix string) (map[string]string, error)
	SetMark(ctx context.Context, name, value string) error
}

const (
	// resendMarks is how the names of the marks begin; the mail's id follows.
	resendMarks = "resend/"
	// markTime bounds what a disk that hangs costs the client.
	markTime = 5 * time.Second
	// staleAtOnce is how many marks that are not needed any more are removed
	// whenever one is written.
	staleAtOnce = 10
	// markedDetail bounds what is kept of the API's own words.
	markedDetail = 200
)

// resend is the content of a mark.
type resend struct {
	Mail []byte          `json:"mail"` // a digest
	At   time.Time       `json:"at"`
	To   []resendAddress `json:"to"`
}

// resendAddress is what one recipient came to.
type resendAddress struct {
	Addr      string `json:"addr"`
	Kind      string `json:"kind"`
	MessageID string `json:"message_id,omitempty"`
	Detail    string `json:"detail,omitempty"`
}

// mark keeps h by a mark, if its client has to come again with it, and removes
// the marks of the earlier copies, in whose place it is.
func (in *Intake) mark(ctx context.Context, h *handled, before earlier) {
	if in.opt.Marks == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTime) // a stop has time for it, too
	defer cancel()
	set := func(id, value string) bool {
		err := in.opt.Marks.SetMark(ctx, resendMarks+id, value)
		if err != nil {
			in.opt.Log.Error("who has a mail that is to come again cannot be written down, so that a restart forgets it", "id", id, "cause", err)
		}
		return err == nil
	}
	if h.mail != (digest{}) && h.owes() {
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

// owes reports whether a copy must go on where this one ended.
func (h *handled) owes() bool {
	for _, e := range h.ends {
		if e.owed {
			return true
		}
	}
	return false
}

func (h *handled) resend(now time.Time) string {
	r := resend{Mail: h.mail[:], At: now}
	for _, to := range h.to {
		e := h.ends[to]
		if !e.owed {
			continue
		}
		detail := e.Detail
		if len(detail) > markedDetail {
			detail = strings.ToValidUTF8(detail[:markedDetail], "")
		}
		r.To = append(r.To, resendAddress{to, e.Kind.String(), e.MessageID, detail})
	}
	text, _ := json.Marshal(r) // strings, bytes and a time always can be
	return string(text)
}

// Restore takes up what was kept by marks before a restart. Those that are too
// old, or cannot be read, are removed.
func (in *Intake) Restore(ctx context.Context) error {
	if in.opt.Marks == nil {
		return nil
	}
	marks, err := in.opt.Marks.Marks(ctx, resendMarks)
	if err != nil {
		return err
	}
	now := time.Now()
	var all []*memory
	for name, value := range marks {
		list := parseResend(strings.TrimPrefix(name, resendMarks), value, now)
		if len(list) == 0 {
			if err := in.opt.Marks.SetMark(ctx, name, ""); err != nil {
				return err
			}
		}
		all = append(all, list...)
	}
	slices.SortFunc(all, func(a, b *memory) int { return a.since.Compare(b.since) })
	in.recall.restore(all)
	return nil
}

// parseResend is empty for a mark that is too old, or says nothing.
func parseResend(id, value string, now time.Time) []*memory {
	var r resend
	if err := json.Unmarshal([]byte(value), &r); err != nil || len(r.Mail) != len(digest{}) {
		return nil
	}
	since := now.Add(-max(now.Sub(r.At), 0)) // a clock that was set back makes it young, not everlasting
	if now.Sub(since) >= partlyTime {
		return nil
	}
	h := &handled{id: id, done: make(chan struct{}), verdict: forAll(reply.LocalError()), ends: map[string]end{}, mail: digest(r.Mail), marked: true}
	close(h.done)
	var list []*memory
	for _, to := range r.To {
		out := relay.Outcome{MessageID: to.MessageID, Detail: to.Detail}
		for _, kind := range relay.Kinds() {
			if kind.String() == to.Kind {
				out.Kind = kind
			}
		}
		h.to = append(h.to, to.Addr)
		h.ends[to.Addr] = end{Outcome: out, owed: true}
		list = append(list, &memory{fingerprint{h.mail, to.Addr}, since, h})
	}
	return list
}

// restore remembers what was known before a restart, the oldest first.
func (r *recall) restore(all []*memory) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range all {
		r.known[one.fingerprint] = r.oldest.PushBack(one)
		r.forget(time.Now())
	}
}

// takeStale returns ids of mails whose mark is not needed any more, n at most.
func (r *recall) takeStale(n int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	n = min(n, len(r.stale))
	taken := slices.Clone(r.stale[:n])
	r.stale = slices.Delete(r.stale, 0, n)
	return taken
}
