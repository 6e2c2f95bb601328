package sqlite

import (
	"bytes"
	"testing"
)

// FuzzReadPortion: whatever is in a segment, a start takes a portion of it that is
// whole, or none, and what it takes is what would be written of it.
func FuzzReadPortion(f *testing.F) {
	var all []*parcel
	for _, m := range testMails(3, 40) {
		p := &parcel{Mail: m, content: true, bodySum: checksum(m.Message.Raw), addressSums: make([]int64, len(m.Recipients))}
		p.seal()
		all = append(all, p)
	}
	head := portionHead{segment: 7, first: 1, mails: len(all)}
	for _, p := range all {
		head.length += int64(len(p.record)) + p.Size
	}
	var whole bytes.Buffer
	if err := writePortion(&whole, head, all); err != nil {
		f.Fatal(err)
	}
	if _, ok, err := readPortion(bytes.NewReader(whole.Bytes()), 7, 0); !ok || err != nil {
		f.Fatalf("the seed is no portion: %v, %v", ok, err)
	}
	f.Add(whole.Bytes())
	f.Add(whole.Bytes()[:whole.Len()-1])
	f.Add([]byte(portionMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok, err := readPortion(bytes.NewReader(b), 7, 0)
		if err != nil {
			t.Fatalf("bytes in memory cannot be read: %v", err)
		}
		if !ok {
			return
		}
		if offsetOf(p.end) > int64(len(b)) || segmentOf(p.end) != 7 {
			t.Fatalf("it ends at %d of %d", offsetOf(p.end), len(b))
		}
		for _, x := range p.parcels {
			if x.inSegment() && (offsetOf(x.place) < portionHeadSize || offsetOf(x.place)+x.Size > offsetOf(p.end)) {
				t.Fatalf("a body at %d, of %d bytes", offsetOf(x.place), x.Size)
			}
			again, err := decode(x.encode())
			if err != nil || !bytes.Equal(again.encode(), x.encode()) {
				t.Fatalf("%+v became %+v: %v", x, again, err)
			}
		}
	})
}
