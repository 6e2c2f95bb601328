package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
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
	addressSums []int64
	seen        bool // there already; the writer finds out
}

// Enqueue implements queue.Queue.
func (s *Queue) Enqueue(ctx context.Context, mails ...queue.Mail) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := ctx.Err(); err != nil {
		return err
	}
	parcels, err := s.wrap(mails, true)
	if err != nil {
		return err
	}
	stored := false // although an error may come after
	err = s.do(ctx, func(t *tx) error {
		stored = false
		if err := t.enqueue(parcels); err != nil {
			return err
		}
		stored = true
		return nil
	})
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
func unused(parcels []*parcel, stored bool) []string {
	var names []string
	for _, p := range parcels {
		if p.spool != "" && (!stored || p.seen) {
			names = append(names, p.spool)
		}
	}
	return names
}

// wrap prepares mails and writes large bodies to the spool, if there is room
// or they are not bounded.
func (s *Queue) wrap(mails []queue.Mail, bounded bool) ([]*parcel, error) {
	parcels := make([]*parcel, 0, len(mails))
	for i, m := range mails {
		if slices.ContainsFunc(mails[:i], func(o queue.Mail) bool { return o.Message.ID == m.Message.ID }) {
			continue
		}
		p, err := wrapOne(m)
		if err == nil && p.content && p.Size > spoolAbove {
			err = s.toSpool(p, bounded)
		}
		if noSpace(err) {
			err = fmt.Errorf("%w: %w", queue.ErrFull, err)
		}
		if err != nil {
			s.discard(unused(parcels, false))
			return nil, err
		}
		if p.content || !s.bounds.Load().ForgetSent {
			parcels = append(parcels, p)
		}
	}
	return parcels, nil
}

// toSpool writes a large body. Where there is no room it writes none: the writer
// then refuses the mail, unless it is there already.
func (s *Queue) toSpool(p *parcel, bounded bool) (err error) {
	if bounded {
		if s.checkRoom(*s.published.Load(), kept{1, p.Size}, p.BounceOf != "") != nil {
			return nil
		}
		if err := s.checkFree(p.Size, p.BounceOf != ""); err != nil {
			return err
		}
	}
	p.spool, err = s.spool.put(s.published.Load().seq, p.Message.Raw)
	return err
}

func wrapOne(m queue.Mail) (*parcel, error) {
	client, content, err := stored.Check(m)
	if err != nil {
		return nil, err
	}
	m.Size = int64(len(m.Message.Raw))
	p := &parcel{Mail: m, client: client, content: content, envelopeSum: envelopeSum(m, client), bodySum: checksum(m.Message.Raw)}
	for n, r := range m.Recipients {
		if r.State == queue.Claimed {
			return nil, fmt.Errorf("mail %s: a recipient cannot come claimed", m.Message.ID)
		}
		p.addressSums = append(p.addressSums, addressSum(m.Message.ID, n, r.Addr))
		p.content = p.content || r.State != queue.Sent
	}
	return p, nil
}

// onlyBounces says whether mails may use what is reserved for bounces.
func onlyBounces(parcels []*parcel) bool {
	return !slices.ContainsFunc(parcels, func(p *parcel) bool { return p.BounceOf == "" })
}

// checkRoom says whether more may be stored than there is; bounces have what is
// reserved for them besides.
func (s *Queue) checkRoom(n counts, more kept, bounces bool) error {
	o := s.bounds.Load()
	mails, bytes := n.kept.mails-n.failed.mails+more.mails, n.kept.bytes+more.bytes
	if bounces {
		mails, bytes = mails-queue.ReservedMails, bytes-queue.ReservedBytes
	}
	switch {
	case more.mails == 0:
		return nil
	case o.MaxMails > 0 && mails > int64(o.MaxMails):
		return fmt.Errorf("%w: %d mails wait at most", queue.ErrFull, o.MaxMails)
	case o.MaxBytes > 0 && bytes > o.MaxBytes:
		return fmt.Errorf("%w: %d bytes at most", queue.ErrFull, o.MaxBytes)
	}
	return nil
}

// checkFree refuses what would leave less than MinFree on the disk, and of
// bounces only what would leave less than the store itself needs, so that what is
// stored can still be claimed, settled and removed.
func (s *Queue) checkFree(size int64, bounces bool) error {
	free, least, err := s.Space()
	if bounces {
		least = leastFree
	}
	if err == nil && free-size < least {
		return fmt.Errorf("%w: %d bytes are free on the disk, %d are kept free", queue.ErrFull, free, least)
	}
	return err
}

// enqueue stores parcels, if there is space and room for them.
func (t *tx) enqueue(parcels []*parcel) error {
	size := int64(0)
	for _, p := range parcels {
		if p.spool == "" {
			size += p.Size
		}
	}
	if err := t.s.checkFree(t.size+size, onlyBounces(parcels)); err != nil {
		return err
	}
	if err := t.room(parcels); err != nil {
		return err
	}
	t.size += size
	t.insertMails(parcels)
	return nil
}

// room refuses parcels that would exceed the capacity. Only then is it worth
// asking whether they are there already, and so need none.
func (t *tx) room(parcels []*parcel) error {
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
		if p.content && t.one("SELECT 1 FROM mails WHERE id = ?", p.Message.ID) != nil {
			more.mails--
			more.bytes -= p.Size
		}
	}
	return t.s.checkRoom(t.counts, more, bounces)
}

// insertMails stores mails, those whose id is not there already.
func (t *tx) insertMails(parcels []*parcel) {
	for _, p := range parcels {
		t.insertMail(p)
	}
}

func (t *tx) insertMail(p *parcel) {
	seq, where, done := t.counts.seq+1, p.where(), int64(0)
	if where == bodyGone {
		for _, r := range p.Recipients {
			done = max(done, stored.Millis(r.Ended), 1)
		}
	}
	const columns = "seq, id, sender, lane, domain, urgent, received, client, bounce_of, size, body, spool, place, done, damaged, envelope_sum, body_sum"
	const values = "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, 0, ?, ?"
	query, args := "INSERT INTO mails ("+columns+") VALUES ("+values+") ON CONFLICT (id) DO NOTHING", []any{seq, p.Message.ID, p.Message.From, p.Lane, p.Domain, p.Urgent,
		stored.Millis(p.Message.ReceivedAt), p.client, p.BounceOf, p.Size, where, p.spool, done, p.envelopeSum, p.bodySum}
	if p.Message.Account != "" { // takeSegments comes before there is such a column
		query = "INSERT INTO mails (" + columns + ", account) VALUES (" + values + ", ?) ON CONFLICT (id) DO NOTHING"
		args = append(args, p.Message.Account)
	}
	if p.seen = t.exec(query, args...) == 0; p.seen {
		return
	}
	t.counts.seq = seq
	if where == bodyTable {
		raw := p.Message.Raw
		if raw == nil {
			raw = []byte{} // nil would be NULL
		}
		t.exec("INSERT INTO bodies VALUES (?, ?)", seq, raw)
	}
	if where != bodyGone {
		t.counts.kept.add(p.Size)
		if !slices.ContainsFunc(p.Recipients, func(r queue.Recipient) bool { return r.State.Open() }) {
			t.counts.failed.add(p.Size)
		}
	}
	for n := range p.Recipients {
		t.insertRecipient(p, seq, n)
	}
}

// insertRecipient stores a recipient with the attempts that it came with, and
// counts it.
func (t *tx) insertRecipient(p *parcel, seq int64, n int) {
	r, received := p.Recipients[n], stored.Millis(p.Message.ReceivedAt)
	state := stored.State(r.State, stored.Millis(r.Due), received)
	if state == failed && !r.Bounced {
		t.counts.unbounced++
	}
	t.wakes = t.wakes || state == ready || state == later
	t.counts.add(state, 1)
	t.exec("INSERT INTO recipients VALUES (?, ?, ?, ?, ?, ?, 0, ?, 0, ?, ?, 0, ?, 0, 0, ?, ?)",
		seq, n, r.Addr, turnOf(p.Mail), p.Lane, state, stored.Millis(r.Due), r.Attempts, cmp.Or(stored.Millis(r.Since), received), stored.Millis(r.Ended), r.Bounced, p.addressSums[n])
	for _, a := range r.History[max(0, len(r.History)-queue.MaxHistory):] {
		t.counts.fence++
		t.insertAttempt(seq, int64(n), t.counts.fence, a)
	}
}

// where says where a mail's content is.
func (p *parcel) where() int64 {
	switch {
	case !p.content:
		return bodyGone
	case p.spool != "":
		return bodySpool
	}
	return bodyTable
}

// turnOf is the first part of a lane's key: urgent mail has lanes of its own,
// and the lanes of one domain lie together, so that a domain that may send no
// more today is passed over in one step. So do those of one account.
func turnOf(m queue.Mail) string {
	turn := turnsOf(m.Message.Account).from
	if !m.Urgent {
		turn += "=" + m.Domain
	}
	return turn
}

// span is the turns from one on and before another.
type span struct{ from, before string }

// turnsOf are the turns of an account. They all begin with from. That of the default
// account is "", as before there were others.
func turnsOf(account string) span {
	if account == "" {
		return span{"", "@"}
	}
	return span{"@" + account + "/", "@" + account + "0"} // 0 comes after /
}

func (s span) has(turn string) bool { return s.from <= turn && turn < s.before }
