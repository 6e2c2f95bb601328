package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// Up to version 3 mails that came together were appended to a file, a segment,
// and their rows were stored without a sync: after a crash the rows could be
// missing, and most bodies were nowhere else. A start of this version stores the
// rows that are missing, moves all bodies into the database and removes the
// segments. A crash in between leaves what a next start goes on with.
//
// A segment is portions, one for each group: a head; then for each mail the
// sizes and the sum of what its rows are made from, that itself, and its body
// unless it has a file of its own. A place is a segment's number << 32 | an
// offset in its file. counts.place is the end of the last portion whose rows are
// in the database, mails.place where a body begins.

const (
	segmentPrefix   = "segment-"
	bodySegment     = 3 // in mails.body
	portionMagic    = "s2rqmail"
	portionHeadSize = 8 + 8 + 8 + 4 + 8 + 4
	recordHeadSize  = 4 + 4 + 4
	// moveMails and moveBytes bound one step of moving bodies.
	moveMails = 256
	moveBytes = 4 << 20
)

func segmentID(name string) (int64, bool) {
	digits, ok := strings.CutPrefix(name, segmentPrefix)
	id, err := strconv.ParseInt(digits, 10, 32)
	return id, ok && err == nil
}

func segmentName(id int64) string       { return segmentPrefix + strconv.FormatInt(id, 10) }
func place(segment, offset int64) int64 { return segment<<32 | offset }
func segmentOf(place int64) int64       { return place >> 32 }
func offsetOf(place int64) int64        { return place & (1<<32 - 1) }

// segments are what is left of them: by number, whether there is something in it
// that was not taken.
type segments struct {
	w    *writer
	left map[int64]bool
}

// takeSegments moves all mail out of the segments. counted is whether the
// counts, and with them the place, had to be made anew.
func (w *writer) takeSegments(counted bool) error {
	s := segments{w, map[int64]bool{}}
	err := w.s.spool.fs.Names(w.s.spool.dir, func(name string) error {
		if id, ok := segmentID(name); ok {
			s.left[id] = false
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.storeMissing(counted); err != nil {
		return err
	}
	if err := s.moveBodies(); err != nil {
		return err
	}
	return s.removeBefore(1 << 31)
}

// storeMissing stores the rows of mails that are not in the database.
func (s *segments) storeMissing(counted bool) error {
	at, err := s.w.conn.Number("SELECT place FROM counts")
	if err != nil || at == 0 && !counted { // nothing was ever logged
		return err
	}
	mails := 0
	for _, id := range slices.Sorted(maps.Keys(s.left)) {
		if id < segmentOf(at) {
			continue
		}
		n, err := s.storeSegment(id, at, counted)
		if err != nil {
			return fmt.Errorf("segment %d: %w", id, err)
		}
		mails += n
	}
	if mails > 0 {
		s.w.s.log.Info("a crash had taken mail from the queue's database; its segments had it", "mails", mails)
	}
	return nil
}

func (s *segments) storeSegment(id, at int64, counted bool) (mails int, err error) {
	f, err := db.OpenFile(s.w.s.spool.path(segmentName(id)), os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // read only
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	offset := int64(0)
	if id == segmentOf(at) {
		offset = offsetOf(at)
	}
	for {
		p, ok, err := readPortion(f, id, offset)
		if err != nil {
			return mails, err
		}
		known := ok && counted && p.first <= s.w.counts.seq
		// Another number is of what a failed transaction left.
		if !ok || p.first != s.w.counts.seq+1 && !counted {
			s.left[id] = offset < info.Size()
			return mails, nil
		}
		if offset = offsetOf(p.end); known {
			continue
		}
		if err := s.storePortion(p); err != nil {
			return mails, err
		}
		mails += len(p.parcels)
	}
}

func (s *segments) storePortion(p portion) error {
	return s.w.alone(func(t *tx) error {
		t.counts.seq = p.first - 1
		if err := t.insertMails(p.parcels); err != nil {
			return err
		}
		_, err := t.change("UPDATE counts SET place = ?", p.end)
		return err
	})
}

// alone runs one change before the writer takes calls.
func (w *writer) alone(f func(t *tx) error) error {
	var g group
	g.add(op{run: f})
	if err := w.transact(&g, true); err != nil {
		return err
	}
	w.s.discard(g.results[0].files)
	return g.results[0].err
}

// moveBodies moves bodies into the database, from the oldest on: they lie in
// the segments in the order of their mails.
func (s *segments) moveBodies() error {
	type body struct{ seq, place, size int64 }
	total := 0
	for after := int64(-1); ; {
		var bodies []body
		size := int64(0)
		err := s.w.conn.Each(func(r row) error {
			if size < moveBytes {
				bodies = append(bodies, body{r.Int(0), r.Int(1), r.Int(2)})
				size += r.Int(2)
			}
			return nil
		}, "SELECT seq, place, size FROM mails WHERE seq > ? AND body = 3 ORDER BY seq LIMIT ?", after, moveMails)
		if err != nil {
			return err
		}
		if len(bodies) == 0 {
			if total > 0 {
				s.w.s.log.Info("mail was moved from the segments of an earlier version into the queue's database", "mails", total)
			}
			return nil
		}
		err = s.w.alone(func(t *tx) error {
			for _, b := range bodies {
				raw, err := t.s.spool.readSegment(b.place, b.size)
				if err != nil {
					return err
				}
				if _, err := t.change("INSERT INTO bodies VALUES (?, ?)", b.seq, raw); err != nil {
					return err
				}
				if _, err := t.change("UPDATE mails SET body = 1, place = 0 WHERE seq = ?", b.seq); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		total += len(bodies)
		after = bodies[len(bodies)-1].seq
		if err := s.removeBefore(segmentOf(bodies[len(bodies)-1].place)); err != nil {
			return err
		}
	}
}

// readSegment reads a body. What the file does not have is left zero, for the
// checksum to find when the mail is read, so that its sender is told.
func (s spool) readSegment(place, size int64) ([]byte, error) {
	body := make([]byte, size)
	f, err := db.OpenFile(s.path(segmentName(segmentOf(place))), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return body, nil
	}
	if err != nil {
		return nil, err
	}
	_, err = f.ReadAt(body, offsetOf(place))
	return body, errors.Join(notEnd(err), f.Close())
}

// removeBefore removes the segments below a number, so that moving needs no more
// room than one takes. One that has what was not taken is set aside.
func (s *segments) removeBefore(id int64) error {
	for _, each := range slices.Sorted(maps.Keys(s.left)) {
		if each >= id {
			return nil
		}
		name := segmentName(each)
		if s.left[each] {
			if err := s.w.s.setAside(name); err != nil {
				return err
			}
		} else if err := s.w.s.spool.remove(name); err != nil {
			return err
		}
		delete(s.left, each)
	}
	return nil
}

// portion is one, with its mails ready to be stored.
type portion struct {
	first   int64 // mails.seq of the first mail; the others follow
	parcels []*parcel
	end     int64 // the place after it
}

// readPortion reads a portion of a segment. It is false when no complete one
// is there.
func readPortion(r io.ReaderAt, segment, offset int64) (portion, bool, error) {
	b := make([]byte, portionHeadSize)
	if _, err := r.ReadAt(b, offset); err != nil {
		return portion{}, false, notEnd(err)
	}
	const sum = portionHeadSize - 4
	number := func(at int) int64 { return int64(binary.BigEndian.Uint64(b[at:])) }
	mails, length := int(binary.BigEndian.Uint32(b[24:])), number(28)
	if string(b[:8]) != portionMagic || int64(binary.BigEndian.Uint32(b[sum:])) != checksum(b[:sum]) || number(8) != segment || length < 0 {
		return portion{}, false, nil
	}
	offset += portionHeadSize
	var content bytes.Buffer // which grows with what is there, whatever the head says
	if _, err := io.Copy(&content, io.NewSectionReader(r, offset, length)); err != nil {
		return portion{}, false, notEnd(err)
	}
	if int64(content.Len()) != length {
		return portion{}, false, nil
	}
	parcels, ok := parsePortion(content.Bytes())
	return portion{first: number(16), parcels: parcels, end: place(segment, offset+length)}, ok && len(parcels) == mails, nil
}

func notEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// parsePortion reads what follows the head of a portion.
func parsePortion(b []byte) (parcels []*parcel, ok bool) {
	for len(b) > 0 {
		if len(b) < recordHeadSize {
			return nil, false
		}
		rows, size := int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint32(b[4:]))
		sum := int64(binary.BigEndian.Uint32(b[8:]))
		b = b[recordHeadSize:]
		if int64(len(b)) < rows+size || checksum(b[:rows]) != sum {
			return nil, false
		}
		p, err := decode(b[:rows])
		if err != nil {
			return nil, false
		}
		raw := b[rows : rows+size]
		if inSegment := p.content && p.spool == ""; inSegment && (size != p.Size || checksum(raw) != p.bodySum) || !inSegment && size > 0 {
			return nil, false
		}
		p.Message.Raw = bytes.Clone(raw)
		b = b[rows+size:]
		parcels = append(parcels, p)
	}
	return parcels, true
}

// decode reads what a mail's rows are made from.
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
		for n := d.number(); n > 0 && d.err == nil; n-- {
			r.History = append(r.History, d.attempt())
		}
		p.Recipients = append(p.Recipients, r)
	}
	if len(d.b) > 0 {
		d.fail()
	}
	p.turn = turnOf(p.Mail)
	return p, d.err
}

var errEncoding = errors.New("not what a segment keeps")

// decoder reads numbers, and texts, each after its length. After its first error
// it gives zeros.
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

func (d *decoder) attempt() queue.Attempt {
	a := queue.Attempt{Started: fromMillis(d.number()), Unknown: d.number() != 0, NotAnAttempt: d.number() != 0}
	a.Outcome = relay.Outcome{Kind: relay.Kind(d.number()), Status: int(d.number()), RetryAfter: time.Duration(d.number()), Took: time.Duration(d.number())}
	a.Outcome.MessageID, a.Outcome.Detail = d.text(), d.text()
	if cause := d.text(); cause != "" {
		a.Outcome.Cause = errors.New(cause)
	}
	return a
}
