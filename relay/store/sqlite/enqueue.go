package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// parcel is a mail made ready for the writer by its caller's goroutine, so
// that sums, encoding and large files are not the writer's work.
type parcel struct {
	queue.Mail
	client      string
	turn        string
	envelopeSum int64
	bodySum     int64
	content     bool   // something is left to do or to keep it for
	spool       string // the file that has it, "" for none of its own
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
	r := s.submit(ctx, op{parcels: parcels})
	err = r.err
	if noSpace(err) && !errors.Is(err, queue.ErrFull) {
		err = fmt.Errorf("%w: %w", queue.ErrFull, err)
	}
	// After a storage error the row may still come up after a crash, so its
	// file stays, for the sweep at the next start to decide.
	if err == nil || !r.stored {
		s.discard(unused(parcels, r.stored))
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
	if err := s.hasRoom(int64(len(m.Message.Raw)), m.BounceOf != ""); err != nil && bounded {
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
	return s.spool.put(s.published.Load().seq, m.Message.Raw)
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
		if p.content || !s.bounds.Load().ForgetSent {
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
	p := parcel{Mail: m, client: string(client), turn: turnOf(m), envelopeSum: envelopeSum(m, string(client)), bodySum: checksum(m.Message.Raw)}
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
func (s *Store) hasRoom(size int64, bounce bool) error {
	n := s.published.Load()
	if err := s.checkRoom(*n, kept{1, size}, bounce); err != nil {
		return err
	}
	return s.checkFree(size, bounce)
}

// onlyBounces says whether mails may use what is reserved for bounces.
func onlyBounces(parcels []parcel) bool {
	return !slices.ContainsFunc(parcels, func(p parcel) bool { return p.BounceOf == "" })
}

// checkRoom says whether more may be stored than there is; bounces have what is
// reserved for them besides, and do not mind how much has failed.
func (s *Store) checkRoom(n counts, more kept, bounces bool) error {
	o := s.bounds.Load()
	mails, bytes, failed := n.mails-n.failed.mails+more.mails, n.bytes+more.bytes, n.failed.mails
	if bounces {
		mails, bytes, failed = mails-queue.ReservedMails, bytes-queue.ReservedBytes, 0
	}
	switch {
	case more.mails == 0:
		return nil
	case o.MaxMails > 0 && mails > int64(o.MaxMails):
		return fmt.Errorf("%w: %d mails wait at most", queue.ErrFull, o.MaxMails)
	case o.MaxMails > 0 && failed >= int64(o.MaxMails):
		return fmt.Errorf("%w: %d failed mails are kept at most, until they are retried or dropped", queue.ErrFull, o.MaxMails)
	case o.MaxBytes > 0 && bytes > o.MaxBytes:
		return fmt.Errorf("%w: %d bytes at most", queue.ErrFull, o.MaxBytes)
	}
	return nil
}

// spaceFor refuses enqueues while too little space is left, so that what is
// stored can still be claimed, settled and removed.
func (w *writer) spaceFor(group []op) error {
	size, enqueues := int64(0), false
	for _, o := range group {
		enqueues = enqueues || o.run == nil
		size += unspooled(o.parcels)
	}
	if !enqueues {
		return nil
	}
	return w.s.checkFree(size, false)
}

// spaceForBounces says whether mails are bounces that there is space for.
func (s *Store) spaceForBounces(parcels []parcel) bool {
	return onlyBounces(parcels) && s.checkFree(unspooled(parcels), true) == nil
}

// unspooled is how much of the mails is still to be written.
func unspooled(parcels []parcel) int64 {
	size := int64(0)
	for _, p := range parcels {
		if p.spool == "" {
			size += p.Size
		}
	}
	return size
}

// checkFree refuses what would leave less than MinFree on the disk, and of
// bounces only what would leave less than the store itself needs.
func (s *Store) checkFree(size int64, bounces bool) error {
	free, least, err := s.Space()
	if bounces {
		least = db.LeastFree
	}
	if err == nil && free-size < least {
		return fmt.Errorf("%w: %d bytes are free on the disk, %d are kept free", queue.ErrFull, free, least)
	}
	return err
}

func pointers(parcels []parcel) []*parcel {
	all := make([]*parcel, len(parcels))
	for i := range parcels {
		all[i] = &parcels[i]
	}
	return all
}

// The rows of a mail, in the order of schema.go.
const (
	mailRow      = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, 0, ?, ?)"
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
		if o.run != nil {
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
		if where == bodyTable {
			raw := p.Message.Raw
			if raw == nil {
				raw = []byte{} // nil would be NULL
			}
			bodies = append(bodies, seq, raw)
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
		p.BounceOf, p.Size, p.where(), p.spool, done, p.envelopeSum, p.bodySum)
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
