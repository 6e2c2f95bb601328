package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// A segment is portions, one after the other. Each is the mails that came
// together in one transaction, or the part of them that was there when it
// began: a head, and then for each mail the sizes and the sum of what its rows
// are made from, that itself, and its body if it is in no file of its own.
// A portion counts if all of it is there; a loss of power can leave a part.

const (
	portionMagic    = "s2rqmail"
	portionHeadSize = 8 + 8 + 8 + 4 + 8 + 4
	recordHeadSize  = 4 + 4 + 4
)

// portionHead begins a portion. Segment and first tell it from one that a
// failed transaction left, or that was copied from elsewhere.
type portionHead struct {
	segment int64 // its number
	first   int64 // mails.seq of the first mail; the others follow
	mails   int
	length  int64 // of what follows
}

func (h portionHead) encode() []byte {
	b := append(make([]byte, 0, portionHeadSize), portionMagic...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.segment))
	b = binary.BigEndian.AppendUint64(b, uint64(h.first))
	b = binary.BigEndian.AppendUint32(b, uint32(h.mails))
	b = binary.BigEndian.AppendUint64(b, uint64(h.length))
	return binary.BigEndian.AppendUint32(b, uint32(checksum(b)))
}

func decodeHead(b []byte) (portionHead, bool) {
	sum := len(b) - 4
	if string(b[:8]) != portionMagic || int64(binary.BigEndian.Uint32(b[sum:])) != checksum(b[:sum]) {
		return portionHead{}, false
	}
	return portionHead{
		segment: int64(binary.BigEndian.Uint64(b[8:])),
		first:   int64(binary.BigEndian.Uint64(b[16:])),
		mails:   int(binary.BigEndian.Uint32(b[24:])),
		length:  int64(binary.BigEndian.Uint64(b[28:])),
	}, true
}

// seal makes what a segment keeps of a parcel beside its body.
func (p *parcel) seal() {
	size := int64(0)
	if p.inSegment() {
		size = p.Size
	}
	rows := p.encode()
	b := make([]byte, 0, recordHeadSize+len(rows))
	b = binary.BigEndian.AppendUint32(b, uint32(len(rows)))
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	b = binary.BigEndian.AppendUint32(b, uint32(checksum(rows)))
	p.record = append(b, rows...)
}

// inSegment: its body is in the segment as well, if it is logged.
func (p *parcel) inSegment() bool { return p.content && p.spool == "" }

func writePortion(w io.Writer, head portionHead, parcels []*parcel) error {
	if _, err := w.Write(head.encode()); err != nil {
		return err
	}
	for _, p := range parcels {
		if _, err := w.Write(p.record); err != nil {
			return err
		}
		if !p.inSegment() {
			continue
		}
		if _, err := w.Write(p.Message.Raw); err != nil {
			return err
		}
	}
	return nil
}

// portion is one, without the bodies.
type portion struct {
	first   int64
	parcels []*parcel
	begin   int64 // a place,
	end     int64 // and the one after it
}

// readPortion reads a portion of a segment. It is false when no complete one
// is there.
func readPortion(r io.ReaderAt, segment, offset int64) (portion, bool, error) {
	b := make([]byte, portionHeadSize)
	if _, err := r.ReadAt(b, offset); err != nil {
		return portion{}, false, notEnd(err)
	}
	head, ok := decodeHead(b)
	if !ok || head.segment != segment || head.length < 0 {
		return portion{}, false, nil
	}
	begin := offset
	offset += portionHeadSize
	var content bytes.Buffer // which grows with what is there, whatever the head says
	if _, err := io.Copy(&content, io.NewSectionReader(r, offset, head.length)); err != nil {
		return portion{}, false, notEnd(err)
	}
	parcels, ok := parsePortion(content.Bytes(), head, offset)
	return portion{first: head.first, parcels: parcels, begin: place(segment, begin), end: place(segment, offset+head.length)}, ok, nil
}

func notEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// parsePortion reads what follows the head of a portion, from an offset on.
func parsePortion(b []byte, head portionHead, offset int64) ([]*parcel, bool) {
	if int64(len(b)) != head.length {
		return nil, false
	}
	var parcels []*parcel
	for at := int64(0); at < head.length; {
		if head.length-at < recordHeadSize {
			return nil, false
		}
		rows, size := int64(binary.BigEndian.Uint32(b[at:])), int64(binary.BigEndian.Uint32(b[at+4:]))
		sum := int64(binary.BigEndian.Uint32(b[at+8:]))
		at += recordHeadSize
		if head.length-at < rows+size || checksum(b[at:at+rows]) != sum {
			return nil, false
		}
		p, err := decode(b[at : at+rows])
		at += rows
		if err != nil {
			return nil, false
		}
		if p.inSegment() {
			if size != p.Size || checksum(b[at:at+size]) != p.bodySum {
				return nil, false
			}
			p.place = place(head.segment, offset+at)
		} else if size > 0 {
			return nil, false
		}
		at += size
		parcels = append(parcels, p)
	}
	return parcels, len(parcels) == head.mails
}
