package attempt

import (
	"crypto/sha256"
	"encoding/hex"
)

// IdempotencyKey names one mail to one recipient for the API. It is the same
// for every attempt and over restarts, because it is derived from nothing but
// the two. The address is hashed: headers end up in the logs of proxies.
func IdempotencyKey(id, to string) string {
	sum := sha256.Sum256([]byte(to))
	return id + "-" + hex.EncodeToString(sum[:8])
}
