package relay

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"time"
)

// idEncoding is RFC 4648's base32hex: its alphabet is in ASCII order, so that
// ids sort by time, and in lower case it is easy to read out and to type.
var idEncoding = base32.HexEncoding.WithPadding(base32.NoPadding)

// NewID returns a queue id: 20 characters that sort by the millisecond of t
// and carry 52 random bits, so that two relays never mint the same one. It is
// shorter than a UUID because people copy it out of SMTP replies and logs.
func NewID(t time.Time) string {
	var bits [7]byte
	_, _ = rand.Read(bits[:]) // crypto/rand.Read never fails: it ends the process instead
	return IDWith(t, bits)
}

// IDWith is NewID with the first 52 of these bits in place of random ones, for an id that
// is made of what it names.
func IDWith(t time.Time, bits [7]byte) string {
	var b [13]byte
	binary.BigEndian.PutUint64(b[:8], uint64(t.UnixMilli())<<16)
	copy(b[6:], bits[:])
	return strings.ToLower(idEncoding.EncodeToString(b[:]))[:20]
}

// IDTime is when an id was minted, to the millisecond. It is false for what is
// no id, or none of ours.
func IDTime(id string) (time.Time, bool) {
	const timePart = 10 // characters: 48 bits of time and two more
	if len(id) != 20 {
		return time.Time{}, false
	}
	var b [10]byte
	if _, err := idEncoding.Decode(b[:], []byte(strings.ToUpper(id[:timePart]+"000000"))); err != nil {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b[:8]) >> 16)).UTC(), true
}

// ContinueID returns the id of a mail that goes on from the one with the id first:
// that id, a dot, and the end of id, which is from NewID. Its calls have the
// Idempotency-Keys of the first, while the queue, which takes one mail by an id,
// tells them apart.
func ContinueID(first, id string) string { return FirstID(first) + "." + id[max(len(id)-8, 0):] }

// FirstID returns the id of the mail that the one with this id goes on from, or
// the id itself.
func FirstID(id string) string {
	first, _, _ := strings.Cut(id, ".")
	return first
}
