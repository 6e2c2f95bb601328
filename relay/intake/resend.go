package intake

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

// Marks store small values by name across restarts. The queue implements them.
// A mark here says which recipients have a mail, or may have it, that the client is
// to send again.
type Marks interface {
	Marks(ctx context.Context, prefix string) (map[string]string, error)
	SetMark(ctx context.Context, name, value string) error
}

const (
	// resendMarks is the prefix of a mark's name; the mail's digest follows.
	resendMarks = "resend/"
	// markTime bounds how long a hanging disk delays the reply.
	markTime = 5 * time.Second
	// staleAtOnce is how many unneeded marks are removed each time one is written.
	staleAtOnce = 10
	// markedDetail bounds the API's words in a mark, in bytes.
	markedDetail = 200
)

// mark is what recall knows of one mail, as JSON.
type mark struct {
	At time.Time  `json:"at"`
	To []markedTo `json:"to"`
}

// markedTo is how far the mail got for one recipient.
type markedTo struct {
	Addr      string `json:"addr"`
	ID        string `json:"id"`
	Kind      string `json:"kind"`
	MessageID string `json:"message_id,omitempty"`
	Detail    string `json:"detail,omitempty"`
}

// mark has the mark of a mail say what recall knows of it, and those of some mails
// that were forgotten.
func (in *Intake) mark(ctx context.Context, mail digest) {
	if in.opt.Marks == nil || mail == (digest{}) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTime) // also while the relay stops
	defer cancel()
	for _, one := range append([]digest{mail}, in.recall.takeStale(staleAtOnce)...) {
		if err := in.writeMark(ctx, one); err != nil {
			in.opt.Log.Error("cannot store which recipients have a mail that the client is to send again; a restart will forget it", "cause", err)
			return
		}
	}
}

// writeMark writes a mark, or removes it if nobody is owed anything. Two copies of
// a mail can end at once: the one that writes last must know of the other.
func (in *Intake) writeMark(ctx context.Context, mail digest) error {
	turn := &in.marking[int(mail[0])%len(in.marking)]
	turn.Lock()
	defer turn.Unlock()
	return in.opt.Marks.SetMark(ctx, markName(mail), in.recall.mark(mail))
}

func markName(mail digest) string { return resendMarks + hex.EncodeToString(mail[:]) }

// mark returns the content of a mail's mark, "" if nobody is owed anything.
func (r *recall) mark(mail digest) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var content mark
	for _, key := range r.known.Keys() {
		m, _ := r.known.Peek(key)
		if key.mail != mail || !m.owed {
			continue
		}
		detail := m.Detail
		if len(detail) > markedDetail {
			detail = strings.ToValidUTF8(detail[:markedDetail], "")
		}
		content.To = append(content.To, markedTo{key.to, m.id, m.Kind.String(), m.MessageID, detail})
		content.At = m.since // the youngest is the last
	}
	if content.To == nil {
		return ""
	}
	text, _ := json.Marshal(content) // strings and a time never fail
	return string(text)
}

// Restore reads the marks of the last run. It removes those that are too old or
// cannot be read.
func (in *Intake) Restore(ctx context.Context) error {
	if in.opt.Marks == nil {
		return nil
	}
	values, err := in.opt.Marks.Marks(ctx, resendMarks)
	if err != nil {
		return err
	}
	now := time.Now()
	all := map[digest]mark{}
	for name, value := range values {
		if mail, content, ok := parseMark(name, value, now); ok {
			all[mail] = content
		} else if err := in.opt.Marks.SetMark(ctx, name, ""); err != nil {
			return err
		}
	}
	in.recall.restore(all)
	return nil
}

// parseMark returns false for a mark that is too old or malformed.
func parseMark(name, value string, now time.Time) (digest, mark, bool) {
	var content mark
	mail, err := hex.DecodeString(strings.TrimPrefix(name, resendMarks))
	if err != nil || len(mail) != len(digest{}) || json.Unmarshal([]byte(value), &content) != nil {
		return digest{}, mark{}, false
	}
	content.At = now.Add(-max(now.Sub(content.At), 0)) // if the clock was set back, the mark is new, not eternal
	return digest(mail), content, now.Sub(content.At) < partlyTime && len(content.To) > 0
}

// restore remembers what Restore read, the oldest first.
func (r *recall) restore(all map[digest]mark) {
	r.mu.Lock()
	defer r.mu.Unlock()
	mails := slices.SortedFunc(maps.Keys(all), func(a, b digest) int { return all[a].At.Compare(all[b].At) })
	for _, mail := range mails {
		for _, to := range all[mail].To {
			e := end{id: to.ID, owed: true, Outcome: relay.Outcome{MessageID: to.MessageID, Detail: to.Detail}}
			for _, kind := range relay.Kinds() {
				if kind.String() == to.Kind {
					e.Kind = kind
				}
			}
			r.known.Add(fingerprint{mail, to.Addr}, &memory{end: e, since: all[mail].At})
			r.forget(time.Now())
		}
	}
}

// takeStale returns at most n mails whose mark says too much.
func (r *recall) takeStale(n int) []digest {
	r.mu.Lock()
	defer r.mu.Unlock()
	n = min(n, len(r.stale))
	taken := slices.Clone(r.stale[:n])
	r.stale = slices.Delete(r.stale, 0, n)
	return taken
}
