package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// encode is all that a parcel's rows are made from, but for the body.
func (p *parcel) encode() []byte {
	e := encoder{b: make([]byte, 0, 256)}
	e.text(p.Message.ID, p.Message.From, p.Lane, p.Domain, p.BounceOf, p.client, p.spool)
	e.number(asInt(p.Urgent), asInt(p.content), millis(p.Message.ReceivedAt), p.Size, p.envelopeSum, p.bodySum, int64(len(p.Recipients)))
	for n, r := range p.Recipients {
		e.text(r.Addr)
		e.number(storedState(r.State), millis(r.Due), int64(r.Attempts), millis(r.Since), millis(r.Ended), asInt(r.Bounced), p.addressSums[n])
		e.history(r.History[max(0, len(r.History)-queue.MaxHistory):])
	}
	return e.b
}

// decode is the way back.
func decode(b []byte) (*parcel, error) {
	d := decoder{b: b}
	p := &parcel{}
	p.Message.ID, p.Message.From, p.Lane, p.Domain, p.BounceOf, p.client, p.spool = d.text(), d.text(), d.text(), d.text(), d.text(), d.text(), d.text()
	p.Urgent, p.content = d.number() != 0, d.number() != 0
	p.Message.ReceivedAt, p.Size, p.envelopeSum, p.bodySum = fromMillis(d.number()), d.number(), d.number(), d.number()
	for n := d.number(); n > 0 && d.err == nil; n-- {
		r := queue.Recipient{Number: len(p.Recipients), Addr: d.text(), State: stateOf(d.number()), Due: fromMillis(d.number()), Attempts: int(d.number()),
			Since: fromMillis(d.number()), Ended: fromMillis(d.number()), Bounced: d.number() != 0}
		p.addressSums = append(p.addressSums, d.number())
		r.History = d.history()
		p.Recipients = append(p.Recipients, r)
	}
	if len(d.b) > 0 {
		d.fail()
	}
	return p, d.err
}

// storedState is how a state that a mail can come with is stored, but for
// ready and later, which are one there.
func storedState(s queue.State) int64 {
	switch s {
	case queue.Held:
		return held
	case queue.Sent:
		return sent
	case queue.Failed:
		return failed
	default:
		return ready
	}
}

func asInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// encoder appends texts, each after its length, and numbers.
type encoder struct{ b []byte }

func (e *encoder) text(texts ...string) {
	for _, s := range texts {
		e.b = binary.AppendUvarint(e.b, uint64(len(s)))
		e.b = append(e.b, s...)
	}
}

func (e *encoder) number(numbers ...int64) {
	for _, n := range numbers {
		e.b = binary.AppendVarint(e.b, n)
	}
}

func (e *encoder) history(attempts []queue.Attempt) {
	e.number(int64(len(attempts)))
	for _, a := range attempts {
		o := a.Outcome
		e.number(millis(a.Started), asInt(a.Unknown), asInt(a.NotAnAttempt), int64(o.Kind), int64(o.Status), int64(o.RetryAfter), int64(o.Took))
		e.text(o.MessageID, o.Detail, causeText(o))
	}
}

var errEncoding = errors.New("not what a segment keeps")

// decoder takes what encoder appended. After its first error it gives zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail() {
	d.err = fmt.Errorf("%w: %d bytes before the end", errEncoding, len(d.b))
	d.b = nil
}

func (d *decoder) number() int64 {
	n, size := binary.Varint(d.b)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) text() string {
	n, size := binary.Uvarint(d.b)
	if size <= 0 || n > uint64(len(d.b)-size) {
		d.fail()
		return ""
	}
	s := string(d.b[size : size+int(n)])
	d.b = d.b[size+int(n):]
	return s
}

func (d *decoder) history() []queue.Attempt {
	var attempts []queue.Attempt
	for n := d.number(); n > 0 && d.err == nil; n-- {
		a := queue.Attempt{Started: fromMillis(d.number()), Unknown: d.number() != 0, NotAnAttempt: d.number() != 0}
		a.Outcome = relay.Outcome{Kind: relay.Kind(d.number()), Status: int(d.number()), RetryAfter: time.Duration(d.number()), Took: time.Duration(d.number())}
		a.Outcome.MessageID, a.Outcome.Detail = d.text(), d.text()
		if cause := d.text(); cause != "" {
			a.Outcome.Cause = errors.New(cause)
		}
		attempts = append(attempts, a)
	}
	return attempts
}
