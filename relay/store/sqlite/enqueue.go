package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// parcel is a mail made ready for the writer by its caller's goroutine, so
// that sums, encoding and large files are not the writer's work.
type parcel struct {
	queue.Mail
	client      string
	envelopeSum int64
	bodySum     int64
	content     bool   // something is left to do or to keep it for
	spool       string // the file that has it, "" for none of its own
	place       int64  // in a segment, 0 for the table; the writer decides
	addressSums []int64
	seen        bool // there already; the writer finds out
}

// Enqueue implements queue.Queue.
func (s *Store) Enqueue(ctx context.Context, mails ...queue.Mail) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := ctx.Err(); err != nil {
		return err
	}
	parcels, err := s.wrap(ctx, mails, true)
	if err != nil {
		return err
	}
	stored := false
	err = s.submit(ctx, op{enqueues: true, parcels: parcels, run: func(t *tx) error {
		stored = false
		if err := t.room(parcels); err != nil {
			return err
		}
		for i := range parcels {
			if err := t.insertMail(&parcels[i]); err != nil {
				return err
			}
		}
		stored = true
		return nil
	}})
	if noSpace(err) && !errors.Is(err, queue.ErrFull) {
		err = fmt.Errorf("%w: %w", queue.ErrFull, err)
	}
	// After a storage error the row may still come up after a crash, so its
	// file stays, for the sweep at the next start to decide.
	if err == nil || !stored {
		s.discard(unused(parcels, stored))
	}
	return err
}

// unused are the files of parcels that were not stored: refused, or there
// already under the same id.
func unused(parcels []parcel, stored bool) []string {
	var names []string
	for _, p := range parcels {
		if p.spool != "" && (!stored || p.seen) {
			names = append(names, p.spool)
		}
	}
	return names
}

// errSeen: a mail of that id is there, so there is no need to store this one.
var errSeen = errors.New("stored already")

// toSpool writes a large body, if there is room for it.
func (s *Store) toSpool(ctx context.Context, m queue.Mail, bounded bool) (string, error) {
	if err := s.hasRoom(int64(len(m.Message.Raw))); err != nil && bounded {
		seen := false
		errRead := s.read(ctx, func(c *conn) error {
			r, err := c.One("SELECT 1 FROM mails WHERE id = ?", m.Message.ID)
			seen = r != nil
			return err
		})
		if seen && errRead == nil {
			return "", errSeen
		}
		return "", errors.Join(err, errRead)
	}
	return s.spool.put(m.Message.Raw)
}

// wrap prepares mails and writes large bodies to the spool, if there is room
// or they are not bounded.
func (s *Store) wrap(ctx context.Context, mails []queue.Mail, bounded bool) ([]parcel, error) {
	parcels := make([]parcel, 0, len(mails))
	for i, m := range mails {
		if slices.ContainsFunc(mails[:i], func(o queue.Mail) bool { return o.Message.ID == m.Message.ID }) {
			continue
		}
		p, err := wrapOne(m)
		if err == nil && p.content && p.Size > spoolAbove {
			p.spool, err = s.toSpool(ctx, m, bounded)
			if errors.Is(err, errSeen) {
				continue
			}
		}
		if noSpace(err) {
			err = fmt.Errorf("%w: %w", queue.ErrFull, err)
		}
		if err != nil {
			s.discard(unused(parcels, false))
			return nil, err
		}
		if p.content || !s.opts.Queue.ForgetSent {
			parcels = append(parcels, p)
		}
	}
	return parcels, nil
}

func wrapOne(m queue.Mail) (parcel, error) {
	if m.Message.ID == "" || len(m.Recipients) == 0 {
		return parcel{}, fmt.Errorf("a mail without an id or a recipient cannot be queued")
	}
	client, err := json.Marshal(m.Message.Client)
	if err != nil {
		return parcel{}, err
	}
	m.Size = int64(len(m.Message.Raw))
	p := parcel{Mail: m, client: string(client), envelopeSum: envelopeSum(m, string(client)), bodySum: checksum(m.Message.Raw)}
	for n, r := range m.Recipients {
		if r.State == queue.Claimed {
			return parcel{}, fmt.Errorf("mail %s: a recipient cannot come claimed", m.Message.ID)
		}
		p.addressSums = append(p.addressSums, addressSum(m.Message.ID, n, r.Addr))
		p.content = p.content || r.State != queue.Sent
	}
	return p, nil
}

// hasRoom is a look at the capacity before a large file is written; the
// writer looks again.
func (s *Store) hasRoom(size int64) error {
	n := s.published.Load()
	if err := s.checkRoom(n.mails+1, n.bytes+size); err != nil {
		return err
	}
	return s.checkFree(size)
}

// checkRoom says whether so much may be stored.
func (s *Store) checkRoom(mails, bytes int64) error {
	o := s.opts.Queue
	if o.MaxMails > 0 && mails > o.MaxMails {
		return fmt.Errorf("%w: %d mails at most", queue.ErrFull, o.MaxMails)
	}
	if o.MaxBytes > 0 && bytes > o.MaxBytes {
		return fmt.Errorf("%w: %d bytes at most", queue.ErrFull, o.MaxBytes)
	}
	return nil
}

// room refuses parcels that would exceed the capacity. Only then is it worth
// asking whether they are there already, and so need none.
func (t *tx) room(parcels []parcel) error {
	mails, bytes := t.counts.mails, t.counts.bytes
	for _, p := range parcels {
		if p.content {
			mails++
			bytes += p.Size
		}
	}
	err := t.s.checkRoom(mails, bytes)
	if err == nil {
		return nil
	}
	for _, p := range parcels {
		r, err := t.One("SELECT 1 FROM mails WHERE id = ?", p.Message.ID)
		if err != nil {
			return err
		}
		if p.content && r != nil {
			mails--
			bytes -= p.Size
		}
	}
	if mails == t.counts.mails {
		return nil
	}
	return t.s.checkRoom(mails, bytes)
}

// insertMail stores one mail, unless its id is there already.
func (t *tx) insertMail(p *parcel) error {
	seq := t.counts.seq + 1
	body, done := bodyTable, int64(0)
	switch {
	case !p.content:
		body = bodyGone
		for _, r := range p.Recipients {
			done = max(done, millis(r.Ended), 1)
		}
	case p.spool != "":
		body = bodySpool
	case p.place > 0:
		body = bodySegment
	}
	inserted, err := t.change(`INSERT INTO mails VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?) ON CONFLICT (id) DO NOTHING`,
		seq, p.Message.ID, p.Message.From, p.Lane, p.Domain, p.Urgent, millis(p.Message.ReceivedAt), p.client,
		p.BounceOf, p.Size, body, p.spool, p.place, done, p.envelopeSum, p.bodySum)
	p.seen = inserted == 0
	if err != nil || p.seen {
		return err
	}
	t.counts.seq = seq
	if body == bodyTable {
		raw := p.Message.Raw
		if raw == nil {
			raw = []byte{} // nil would be NULL
		}
		if _, err := t.change("INSERT INTO bodies VALUES (?, ?)", seq, raw); err != nil {
			return err
		}
	}
	if body == bodySegment {
		t.segments.add(seq)
	}
	if body != bodyGone {
		t.counts.mails++
		t.counts.bytes += p.Size
	}
	for n := range p.Recipients {
		if err := t.insertRecipient(seq, int64(n), p); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) insertRecipient(seq, n int64, p *parcel) error {
	r := p.Recipients[n]
	received := millis(p.Message.ReceivedAt)
	state := int64(ready)
	switch r.State {
	case queue.Held:
		state = held
	case queue.Sent:
		state = sent
	case queue.Failed:
		state = failed
		if !r.Bounced {
			t.counts.unbounced++
		}
	default:
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
	_, err := t.change(`INSERT INTO recipients VALUES (?, ?, ?, ?, ?, ?, 0, ?, 0, ?, ?, 0, ?, 0, 0, ?, ?)`,
		seq, n, r.Addr, turnOf(p.Mail), p.Lane, state, millis(r.Due), r.Attempts, since, millis(r.Ended), r.Bounced, p.addressSums[n])
	if err != nil {
		return err
	}
	for _, a := range r.History[max(0, len(r.History)-queue.MaxHistory):] {
		t.counts.fence++
		if err := t.insertAttempt(seq, n, t.counts.fence, a); err != nil {
			return err
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
