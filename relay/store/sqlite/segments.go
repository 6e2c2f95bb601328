package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// Up to version 3 mails that came together were appended to a file of some 32 MiB,
// a segment, and their rows were stored without a sync: after a crash the rows
// could be missing, and most bodies were nowhere else. The first start of this
// version takes one segment after the other: it stores the rows that are missing
// and the bodies in one transaction and removes the file. A crash in between
// leaves what the next start goes on with.
//
// A segment is portions, one for each group: a head; then for each mail the
// sizes and the sum of what its rows are made from, that itself, and its body
// unless it has a file of its own. A place is a segment's number << 32 | an
// offset in its file. counts.place is the end of the last portion whose rows are
// in the database, mails.place where a body begins.
const (
	segmentPrefix = "segment-"
	portionMagic  = "s2rqmail"
	portionHead   = 8 + 8 + 8 + 4 + 8 + 4 // magic, segment, first mail, mails, length, sum
	recordHead    = 4 + 4 + 4             // rows, body, sum of the rows
)

func place(segment, offset int64) int64 { return segment<<32 | offset }
func segmentOf(place int64) int64       { return place >> 32 }
func offsetOf(place int64) int64        { return place & (1<<32 - 1) }

// takeSegments moves all mail out of the segments. counted is whether the
// counts, and with them the place, had to be made anew.
func (s *Queue) takeSegments(counted bool) error {
	var ids []int64
	err := s.spool.fs.Names(s.spool.dir, func(name string) error {
		digits, ok := strings.CutPrefix(name, segmentPrefix)
		if id, err := strconv.ParseInt(digits, 10, 32); ok && err == nil {
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	at, err := s.conn.Number("SELECT place FROM counts")
	if err != nil {
		return err
	}
	slices.Sort(ids)
	moved := int64(-1) // the latest mail whose body was
	for _, id := range ids {
		if moved, err = s.takeSegment(id, at, moved, counted); err != nil {
			return fmt.Errorf("segment %d: %w", id, err)
		}
	}
	// A body that is in no file any more is stored as zeros, for the checksum to
	// find when the mail is read, so that its sender is told.
	return s.conn.Script("BEGIN IMMEDIATE; INSERT INTO bodies SELECT seq, zeroblob(size) FROM mails WHERE body = 3; UPDATE mails SET body = 1, place = 0 WHERE body = 3; COMMIT")
}

// takeSegment moves the mail out of one segment. One with something at its end
// that nobody was answered for is set aside.
func (s *Queue) takeSegment(id, at, after int64, counted bool) (moved int64, err error) {
	name := segmentPrefix + strconv.FormatInt(id, 10)
	data, err := readFile(s.spool.path(name))
	if err != nil {
		return after, err
	}
	rest, stored := false, 0
	err = s.first(func(t *tx) (err error) {
		if id >= segmentOf(at) && (at > 0 || counted) { // else nothing was ever logged
			stored, rest = t.storePortions(data, id, at, counted)
		}
		moved, err = t.moveBodies(data, id, after)
		return err
	})
	if err != nil {
		return after, err
	}
	s.log.Info("mail was moved from a segment of an earlier version into the queue's database", "segment", id, "known_to_it_alone", stored)
	if rest {
		return moved, s.setAside(name)
	}
	return moved, s.spool.remove(name)
}

func readFile(path string) ([]byte, error) {
	f, err := db.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	return data, errors.Join(err, f.Close())
}

// storePortions stores the rows of mails that are not in the database. rest is
// whether the segment does not end with them.
func (t *tx) storePortions(data []byte, id, at int64, counted bool) (stored int, rest bool) {
	offset := int64(0)
	if id == segmentOf(at) {
		offset = offsetOf(at)
	}
	for {
		p, ok := readPortion(data, id, offset)
		known := ok && counted && p.first <= t.counts.seq
		// Another number is of what a failed transaction left.
		if !ok || p.first != t.counts.seq+1 && !counted {
			return stored, offset < int64(len(data))
		}
		if offset = offsetOf(p.end); known {
			continue
		}
		t.counts.seq = p.first - 1
		t.insertMails(p.parcels)
		t.exec("UPDATE counts SET place = ?", p.end)
		stored += len(p.parcels)
	}
}

// moveBodies moves a segment's bodies into the database, from those of the mails
// after one on: they lie in the segments in the order of their mails.
func (t *tx) moveBodies(data []byte, id, after int64) (moved int64, err error) {
	type body struct{ seq, offset, size int64 }
	var bodies []body
	err = t.conn.Each(func(r row) error {
		switch of := segmentOf(r.Int(1)); {
		case of > id:
			return errFound
		case of == id:
			bodies = append(bodies, body{r.Int(0), offsetOf(r.Int(1)), r.Int(2)})
		}
		return nil
	}, "SELECT seq, place, size FROM mails WHERE seq > ? AND body = 3 ORDER BY seq", after)
	if err != nil && !errors.Is(err, errFound) {
		return after, err
	}
	for _, b := range bodies {
		raw := make([]byte, b.size)
		if b.offset < int64(len(data)) {
			copy(raw, data[b.offset:])
		}
		t.exec("INSERT INTO bodies VALUES (?, ?)", b.seq, raw)
		t.exec("UPDATE mails SET body = 1, place = 0 WHERE seq = ?", b.seq)
		after = b.seq
	}
	return after, nil
}

// portion is one, with its mails ready to be stored.
type portion struct {
	first   int64 // mails.seq of the first mail; the others follow
	parcels []*parcel
	end     int64 // the place after it
}

// readPortion reads the portion at an offset of a segment. It is false when no
// whole one is there.
func readPortion(data []byte, segment, offset int64) (p portion, ok bool) {
	if offset+portionHead > int64(len(data)) {
		return p, false
	}
	head, rest := data[offset:offset+portionHead], data[offset+portionHead:]
	length := binary.BigEndian.Uint64(head[28:])
	if string(head[:8]) != portionMagic || checksum(head[:36]) != int64(binary.BigEndian.Uint32(head[36:])) ||
		int64(binary.BigEndian.Uint64(head[8:])) != segment || length > uint64(len(rest)) {
		return p, false
	}
	p.first, p.end = int64(binary.BigEndian.Uint64(head[16:])), place(segment, offset+portionHead+int64(length))
	for b := rest[:length]; len(b) > 0; {
		x, size := readRecord(b)
		if x == nil {
			return p, false
		}
		p.parcels, b = append(p.parcels, x), b[size:]
	}
	return p, len(p.parcels) == int(binary.BigEndian.Uint32(head[24:]))
}

// readRecord reads the mail at the beginning of b; nil when it is not whole.
func readRecord(b []byte) (p *parcel, size int) {
	if len(b) < recordHead {
		return nil, 0
	}
	rows := int(binary.BigEndian.Uint32(b))
	body := rows + int(binary.BigEndian.Uint32(b[4:]))
	sum, content := int64(binary.BigEndian.Uint32(b[8:])), b[recordHead:]
	if len(content) < body || checksum(content[:rows]) != sum {
		return nil, 0
	}
	p, raw := decode(content[:rows]), content[rows:body]
	if p == nil {
		return nil, 0
	}
	if inSegment := p.content && p.spool == ""; inSegment && (int64(len(raw)) != p.Size || checksum(raw) != p.bodySum) || !inSegment && len(raw) > 0 {
		return nil, 0
	}
	p.Message.Raw = raw
	return p, recordHead + body
}

// decode reads what a mail's rows are made from; nil when it is not that.
func decode(b []byte) *parcel {
	d := decoder{b: b}
	p := &parcel{}
	p.Message.ID, p.Message.From, p.Lane, p.Domain, p.BounceOf, p.client, p.spool = d.text(), d.text(), d.text(), d.text(), d.text(), d.text(), d.text()
	p.Urgent, p.content = d.number() != 0, d.number() != 0
	p.Message.ReceivedAt, p.Size, p.envelopeSum, p.bodySum = stored.Time(d.number()), d.number(), d.number(), d.number()
	for n := d.number(); n > 0 && !d.bad; n-- {
		r := queue.Recipient{Number: len(p.Recipients), Addr: d.text(), State: stored.StateOf(d.number()), Due: stored.Time(d.number()), Attempts: int(d.number()),
			Since: stored.Time(d.number()), Ended: stored.Time(d.number()), Bounced: d.number() != 0}
		p.addressSums = append(p.addressSums, d.number())
		for n := d.number(); n > 0 && !d.bad; n-- {
			r.History = append(r.History, d.attempt())
		}
		p.Recipients = append(p.Recipients, r)
	}
	if d.bad || len(d.b) > 0 {
		return nil
	}
	return p
}

// decoder reads numbers, and texts, each after its length. Once something is bad
// it gives zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) number() int64 {
	n, size := binary.Varint(d.b)
	if d.bad = d.bad || size <= 0; d.bad {
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) text() string {
	n, size := binary.Uvarint(d.b)
	if d.bad = d.bad || size <= 0 || n > uint64(len(d.b)-size); d.bad {
		return ""
	}
	s := string(d.b[size : size+int(n)])
	d.b = d.b[size+int(n):]
	return s
}

func (d *decoder) attempt() queue.Attempt {
	a := queue.Attempt{Started: stored.Time(d.number()), Unknown: d.number() != 0, NotAnAttempt: d.number() != 0}
	a.Outcome = relay.Outcome{Kind: relay.Kind(d.number()), Status: int(d.number()), RetryAfter: time.Duration(d.number()), Took: time.Duration(d.number())}
	a.Outcome.MessageID, a.Outcome.Detail = d.text(), d.text()
	a.Outcome.Cause = stored.CauseOf(d.text())
	return a
}
