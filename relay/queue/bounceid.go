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
	var cause []byte
	for _, n := range sorted {
		cause = binary.BigEndian.AppendUint64(cause, uint64(n))
	}
	return bounceID(id, cause)
}

// LateBounceID is the id of the bounce for a recipient that failed after the
// provider had taken the mail. The address is normalised by the caller.
func LateBounceID(id, address string) string { return bounceID(id, []byte("late "+address)) }

func bounceID(id string, cause []byte) string {
	h := sha256.New()
	h.Write([]byte(id))
	h.Write(cause)
	enc := base32.HexEncoding.WithPadding(base32.NoPadding)
	sum := strings.ToLower(enc.EncodeToString(h.Sum(nil)))
	const timePart = 10 // characters of an id that hold its time
	if len(id) < timePart {
		return sum[:20]
	}
	return id[:timePart] + sum[:20-timePart]
}
