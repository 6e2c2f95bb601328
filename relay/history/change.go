package history

import (
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Change is what happened to one mail since the last Write. What is not set
// stays as it was.
type Change struct {
	ID       string
	Received time.Time // never zero; of an older record it is not looked at
	Sender   string
	Head     *Head
	Reply    string
	Answered time.Time // of Reply

	Recipients []RecipientChange
}

// RecipientChange is what happened to one recipient. One that is not in the
// record yet waits, unless State says otherwise.
type RecipientChange struct {
	Addr  string
	Named string
	State State     // "": as it was
	Ended time.Time // of State; not looked at where that is the record's already
	// Refused, if State is not set and the recipient waits, failed or is Unknown: the
	// client was told no then, and sees to it itself.
	Refused time.Time
	Later   bool // of Refused: it was told to come again
	APIID   string
	Steps   []Step // to add
}

// StateOfRefused is the state that Refused stands for.
func (r RecipientChange) StateOfRefused() State { return refused(r.Later) }

func refused(later bool) State {
	if later {
		return Deferred
	}
	return Refused
}

// What a record holds of strings that come from outside is bounded.
const (
	maxAddress = 320  // RFC 5321 section 4.5.3.1: 64 and 255 octets and the @
	maxFields  = 1024 // the values of a listener, in part
	maxName    = 255
	maxSubject = 998 // RFC 5322 section 2.1.1: a line
	maxWords   = 500
	maxLeftOut = 50 // pieces of one mail
	maxHeaders = 20
)

// batch puts together what happened to each mail.
type batch struct {
	changes []*Change // in the order in which their mails were first heard of
	byID    map[string]*entry
}

// entry is a change with its recipients by address.
type entry struct {
	change *Change
	places map[string]int // in change.Recipients
}

// Changes puts facts together, one change for each mail. It is pure.
func Changes(facts ...Fact) []Change {
	b := &batch{byID: make(map[string]*entry, len(facts)/3+1)}
	for _, f := range facts {
		f.apply(b)
	}
	out := make([]Change, len(b.changes))
	for i, c := range b.changes {
		out[i] = *c
	}
	return out
}

// mail is the change of one mail. at is what is taken for the time it came, if
// nothing better is known.
func (b *batch) mail(id string, at time.Time) *entry {
	e, known := b.byID[id]
	if !known {
		if came, ok := relay.IDTime(id); ok {
			at = came
		}
		e = &entry{change: &Change{ID: id, Received: at}, places: map[string]int{}}
		b.byID[id] = e
		b.changes = append(b.changes, e.change)
	}
	return e
}

func (e *entry) recipient(addr string) *RecipientChange {
	key := suppress.Normalise(addr)
	i, known := e.places[key]
	if !known {
		i = len(e.change.Recipients)
		e.places[key] = i
		e.change.Recipients = append(e.change.Recipients, RecipientChange{Addr: clip(addr, maxAddress)})
	}
	return &e.change.Recipients[i]
}

// add adds a step and, if it says so, the state it leads to.
func (r *RecipientChange) add(s Step, to State) {
	s.At = stamp(s.At)
	r.Steps = append(r.Steps, s)
	switch to {
	case "", r.State:
	case Waiting:
		r.State, r.Ended = to, time.Time{}
	default:
		r.State, r.Ended = to, s.At
	}
}

func (f Came) weight() int { return 1 + len(f.message.Recipients) }

func (f Came) apply(b *batch) {
	m := &f.message
	e := b.mail(m.ID, m.ReceivedAt)
	e.change.Received, e.change.Sender, e.change.Head = stamp(m.ReceivedAt), clip(m.From, maxAddress), &f.head
	for _, to := range m.Recipients {
		r := e.recipient(to)
		if named := m.Named(to); named != to {
			r.Named = clip(named, maxAddress)
		}
	}
}

func (f Answered) weight() int { return len(f.To) }

func (f Answered) apply(b *batch) {
	e := b.mail(f.ID, f.At)
	reply := clip(f.Reply, maxWords)
	if !f.Each {
		e.change.Reply, e.change.Answered = reply, stamp(f.At)
	}
	for _, to := range f.To {
		r := e.recipient(to)
		if f.Each {
			r.add(Step{At: f.At, What: StepAnswered, Text: reply}, "")
		}
		switch {
		case f.Taken:
		case r.State == "":
			r.Refused, r.Later = stamp(f.At), f.Later()
		case r.State == Waiting || r.State == Failed:
			r.State, r.Ended = refused(f.Later()), stamp(f.At)
		}
	}
}

func (f Tried) weight() int { return 1 }

func (f Tried) apply(b *batch) {
	e := b.mail(f.ID, f.At)
	if e.change.Head == nil {
		e.change.Sender = clip(f.From, maxAddress)
	}
	o := f.Outcome
	a := &Attempt{
		Number: f.Number, Outcome: o.Kind.String(), Status: o.Status, MessageID: clip(o.MessageID, maxName),
		Detail: clip(o.Detail, maxWords), TookMS: o.Took.Milliseconds(), Untried: o.Untried,
	}
	if o.Cause != nil {
		a.Cause = clip(o.Cause.Error(), maxWords)
	}
	r := e.recipient(f.To)
	to := State("")
	switch {
	case o.Kind == relay.Accepted:
		to, r.APIID = Sent, a.MessageID
	case o.Kind.Permanent():
		to = Failed
	}
	r.add(Step{At: f.At, What: StepTried, Attempt: a}, to)
}

func (f GaveUp) weight() int { return 1 }

func (f GaveUp) apply(b *batch) {
	e := b.mail(f.ID, f.At)
	if e.change.Head == nil {
		e.change.Sender = clip(f.From, maxAddress)
	}
	e.recipient(f.To).add(Step{At: f.At, What: StepGaveUp, Text: clip(f.Why, maxWords)}, Failed)
}

func (f Told) weight() int { return len(f.Recipients) }

func (f Told) apply(b *batch) {
	e := b.mail(f.ID, f.At)
	what := StepTold
	if f.Bounce == "" {
		what = StepNotTold
	}
	state := Failed
	if f.Late {
		state = Sent // what the provider's events make of it is not stored
	}
	for _, to := range f.Recipients {
		e.recipient(to).add(Step{At: f.At, What: what, Text: f.Bounce}, state)
	}
}

func (f OperatorDropped) weight() int { return 1 }

func (f OperatorDropped) apply(b *batch) {
	b.mail(f.ID, f.At).recipient(f.To).add(Step{At: f.At, What: StepDropped}, Dropped)
}

func (f OperatorRetried) weight() int { return 1 }

func (f OperatorRetried) apply(b *batch) {
	b.mail(f.ID, f.At).recipient(f.To).add(Step{At: f.At, What: StepRetried}, Waiting)
}

// stamp is a time as it is stored.
func stamp(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Millisecond)
}

// clip is the beginning of s, as a copy: a short piece of a mail must not keep
// all of it in memory.
func clip(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n-len("…")], "") + "…"
	}
	return strings.Clone(strings.ToValidUTF8(s, "�"))
}

// LeftOutOf is what of a mail the API is not given, of all that was omitted,
// changed or repaired: how many pieces of each kind, and how large. Not what they
// were called: that is the mail's, and the history has no word of it.
func LeftOutOf(omissions []mail.Omission) []LeftOut {
	var left []LeftOut
	for _, o := range omissions {
		if o.Kind.LeftOut() {
			left = append(left, LeftOut{Kind: o.Kind.String(), Detail: o.String()})
		}
	}
	return left
}

// clipped is a head whose strings are bounded copies.
func (h Head) clipped() Head {
	h.MessageID, h.Author, h.Subject = clip(h.MessageID, maxSubject), clip(h.Author, maxAddress), clip(h.Subject, maxSubject)
	h.TraceParent, h.BounceOf = strings.Clone(h.TraceParent), strings.Clone(h.BounceOf)
	var left []LeftOut
	for _, l := range h.LeftOut[:min(len(h.LeftOut), maxLeftOut)] {
		left = append(left, LeftOut{Kind: l.Kind, Detail: clip(l.Detail, maxWords)})
	}
	h.LeftOut = left
	headers := h.Headers
	h.Headers = nil
	for name, value := range headers {
		if len(h.Headers) == maxHeaders {
			break
		}
		if h.Headers == nil {
			h.Headers = map[string]string{}
		}
		h.Headers[clip(name, maxName)] = clip(value, maxWords)
	}
	return h
}
