package sqlite

import (
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// The rows of a mail, in the order of schema.go.
const (
	mailRow      = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)"
	bodyRow      = "(?, ?)"
	recipientRow = "(?, ?, ?, ?, ?, ?, 0, ?, 0, ?, ?, 0, ?, 0, 0, ?, ?)"
)

// inserter stores many rows with few statements: what a statement costs
// besides its rows is then shared by them.
type inserter struct {
	width int // values of a row
	texts [3]string
}

// rowsAtOnce is how many rows the texts have.
var rowsAtOnce = [3]int{32, 8, 1}

func newInserter(into, row, conflict string) inserter {
	i := inserter{width: strings.Count(row, "?")}
	for n, rows := range rowsAtOnce {
		i.texts[n] = "INSERT INTO " + into + " VALUES " + strings.Repeat(row+", ", rows-1) + row + conflict
	}
	return i
}

// inserters are the statements that store mails.
type inserters struct{ mails, bodies, recipients inserter }

func newInserters() inserters {
	return inserters{
		mails:      newInserter("mails", mailRow, " ON CONFLICT (id) DO NOTHING"),
		bodies:     newInserter("bodies", bodyRow, ""),
		recipients: newInserter("recipients", recipientRow, ""),
	}
}

// insert stores rows, whose values follow one another, and says how many were new.
func (t *tx) insert(i inserter, values []any) (int64, error) {
	inserted := int64(0)
	for n, rows := range rowsAtOnce {
		for size := rows * i.width; len(values) >= size; values = values[size:] {
			changed, err := t.change(i.texts[n], values[:size]...)
			if err != nil {
				return inserted, err
			}
			inserted += changed
		}
		if len(values) == 0 {
			break
		}
	}
	return inserted, nil
}

// enqueue runs an op that enqueues, and says how many of those after it were
// done together with it.
func (t *tx) enqueue(group []op, results []result) (int, error) {
	n, more := 0, kept{}
	var together []*parcel
	for _, o := range group {
		if !o.enqueues {
			break
		}
		for i := range o.parcels {
			more.add(o.parcels[i].Size)
			together = append(together, &o.parcels[i])
		}
		n++
	}
	if t.s.checkRoom(t.counts, more, false) != nil {
		n = 1
		together = together[:len(group[0].parcels)]
		if err := t.room(group[0].parcels); err != nil {
			results[0] = result{err: err}
			return n, nil
		}
	}
	if err := t.insertMails(together); err != nil {
		return n, err
	}
	for i := range n {
		results[i] = result{stored: true}
	}
	return n, nil
}

// room refuses parcels that would exceed the capacity. Only then is it worth
// asking whether they are there already, and so need none.
func (t *tx) room(parcels []parcel) error {
	more := kept{}
	for _, p := range parcels {
		if p.content {
			more.add(p.Size)
		}
	}
	bounces := onlyBounces(parcels)
	err := t.s.checkRoom(t.counts, more, bounces)
	if err == nil {
		return nil
	}
	for _, p := range parcels {
		r, err := t.One("SELECT 1 FROM mails WHERE id = ?", p.Message.ID)
		if err != nil {
			return err
		}
		if p.content && r != nil {
			more.mails--
			more.bytes -= p.Size
		}
	}
	if more.mails == 0 {
		return nil
	}
	return t.s.checkRoom(t.counts, more, bounces)
}

// insertMails stores mails, those whose id is not there already.
func (t *tx) insertMails(parcels []*parcel) error {
	before := t.counts.seq
	values := make([]any, 0, len(parcels)*t.s.writer.inserters.mails.width)
	for _, p := range parcels {
		t.counts.seq++
		values = p.row(values, t.counts.seq)
	}
	inserted, err := t.insert(t.s.writer.inserters.mails, values)
	if err != nil {
		return err
	}
	if err := t.findSeen(parcels, before, inserted); err != nil {
		return err
	}
	bodies, recipients := values[:0], make([]any, 0, len(parcels)*t.s.writer.inserters.recipients.width)
	for i, p := range parcels {
		if p.seen {
			continue
		}
		seq := before + 1 + int64(i)
		where := p.where()
		switch where {
		case bodyTable:
			raw := p.Message.Raw
			if raw == nil {
				raw = []byte{} // nil would be NULL
			}
			bodies = append(bodies, seq, raw)
		case bodySegment:
			t.segments.add(seq)
		}
		if where != bodyGone {
			t.counts.mails++
			t.counts.bytes += p.Size
		}
		if where != bodyGone && !slices.ContainsFunc(p.Recipients, func(r queue.Recipient) bool { return r.State.Open() }) {
			t.counts.failed.mails++
			t.counts.failed.bytes += p.Size
		}
		for n := range p.Recipients {
			recipients = t.recipient(recipients, seq, n, p)
		}
	}
	if _, err := t.insert(t.s.writer.inserters.bodies, bodies); err != nil {
		return err
	}
	if _, err := t.insert(t.s.writer.inserters.recipients, recipients); err != nil {
		return err
	}
	return t.insertHistories(parcels, before)
}

// findSeen finds out which mails were there already, if not all were new.
func (t *tx) findSeen(parcels []*parcel, before, inserted int64) error {
	for _, p := range parcels {
		p.seen = inserted < int64(len(parcels))
	}
	if inserted == int64(len(parcels)) {
		return nil
	}
	return t.Each(func(r row) error {
		parcels[r.Int(0)-before-1].seen = false
		return nil
	}, "SELECT seq FROM mails WHERE seq > ? AND seq <= ?", before, t.counts.seq)
}

// where says where a mail's content is.
func (p *parcel) where() int64 {
	switch {
	case !p.content:
		return bodyGone
	case p.spool != "":
		return bodySpool
	case p.place > 0:
		return bodySegment
	}
	return bodyTable
}

// row appends the values of mailRow.
func (p *parcel) row(values []any, seq int64) []any {
	done := int64(0)
	if !p.content {
		for _, r := range p.Recipients {
			done = max(done, millis(r.Ended), 1)
		}
	}
	return append(values, seq, p.Message.ID, p.Message.From, p.Lane, p.Domain, p.Urgent, millis(p.Message.ReceivedAt), p.client,
		p.BounceOf, p.Size, p.where(), p.spool, p.place, done, p.envelopeSum, p.bodySum)
}

// recipient appends the values of recipientRow, and counts the recipient.
func (t *tx) recipient(values []any, seq int64, n int, p *parcel) []any {
	r := p.Recipients[n]
	received := millis(p.Message.ReceivedAt)
	state := storedState(r.State)
	switch state {
	case failed:
		if !r.Bounced {
			t.counts.unbounced++
		}
	case ready:
		if millis(r.Due) > received {
			state = later
		}
		t.wakes = true
	}
	since := millis(r.Since)
	if since == 0 {
		since = received
	}
	t.counts.add(state, 1)
	return append(values, seq, n, r.Addr, p.turn, p.Lane, state, millis(r.Due), r.Attempts, since, millis(r.Ended), r.Bounced, p.addressSums[n])
}

// insertHistories records the attempts that mails came with.
func (t *tx) insertHistories(parcels []*parcel, before int64) error {
	for i, p := range parcels {
		if p.seen {
			continue
		}
		for n, r := range p.Recipients {
			for _, a := range r.History[max(0, len(r.History)-queue.MaxHistory):] {
				t.counts.fence++
				if err := t.insertAttempt(before+1+int64(i), int64(n), t.counts.fence, a); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// turnOf is the first part of a lane's key: urgent mail has lanes of its own,
// and the lanes of one domain lie together, so that a domain that may send no
// more today is passed over in one step.
func turnOf(m queue.Mail) string {
	if m.Urgent {
		return ""
	}
	return "=" + m.Domain
}
