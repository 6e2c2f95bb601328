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
	turn        string
	envelopeSum int64
	bodySum     int64
	content     bool   // something is left to do or to keep it for
	spool       string // the file that has it, "" for none of its own
	record      []byte // what a segment keeps of it beside the body
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
	r := s.submit(ctx, op{enqueues: true, parcels: parcels})
	if r.logged {
		return nil
	}
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

// seenFiles are the files of parcels that were there already.
func seenFiles(parcels []*parcel) []string {
	var names []string
	for _, p := range parcels {
		if p.seen && p.spool != "" {
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
		if p.content || !s.bounds.Load().Queue.ForgetSent {
			p.seal()
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
	m.Recipients = slices.Clone(m.Recipients) // the writer may need them longer than the caller waits
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
	o := s.bounds.Load().Queue
	mails, bytes, failed := n.mails-n.failed.mails+more.mails, n.bytes+more.bytes, n.failed.mails
	if bounces {
		mails, bytes, failed = mails-queue.ReservedMails, bytes-queue.ReservedBytes, 0
	}
	switch {
	case more.mails == 0:
		return nil
	case o.MaxMails > 0 && mails > o.MaxMails:
		return fmt.Errorf("%w: %d mails wait at most", queue.ErrFull, o.MaxMails)
	case o.MaxMails > 0 && failed >= o.MaxMails:
		return fmt.Errorf("%w: %d failed mails are kept at most, until they are retried or dropped", queue.ErrFull, o.MaxMails)
	case o.MaxBytes > 0 && bytes > o.MaxBytes:
		return fmt.Errorf("%w: %d bytes at most", queue.ErrFull, o.MaxBytes)
	}
	return nil
}

func pointers(parcels []parcel) []*parcel {
	all := make([]*parcel, len(parcels))
	for i := range parcels {
		all[i] = &parcels[i]
	}
	return all
}
