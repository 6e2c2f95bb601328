package queue

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"slices"
	"strings"
)

// BounceID is the id of the bounce for these recipients of a mail: the same
// for the same cause, so that a bounce made twice is one mail. Like relay.NewID
// it has 20 characters; it sorts next to the mail it reports on.
func BounceID(id string, recipients []int) string {
	sorted := slices.Clone(recipients)
	slices.Sort(sorted)
	h := sha256.New()
	h.Write([]byte(id))
	for _, n := range sorted {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
	}
	enc := base32.HexEncoding.WithPadding(base32.NoPadding)
	sum := strings.ToLower(enc.EncodeToString(h.Sum(nil)))
	const timePart = 10 // characters of an id that hold its time
	if len(id) < timePart {
		return sum[:20]
	}
	return id[:timePart] + sum[:20-timePart]
}
