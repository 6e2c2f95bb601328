package mail_test

import (
	"bytes"
	"flag"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var (
	mailsDir = flag.String("mails", "testdata", "`directory` with the mails that TestMutations damages, at any depth")
	rounds   = flag.Int("rounds", 1, "how often it damages each")
)

// TestMutations checks the invariants on mails that were damaged at random. With
// -mails it takes the mails of other projects, which are not in this repository; see
// scripts/corpora.
func TestMutations(t *testing.T) {
	var mails [][]byte
	err := filepath.WalkDir(*mailsDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".eml" {
			return err
		}
		raw, err := os.ReadFile(path)
		if err == nil && len(raw) < 200_000 {
			mails = append(mails, raw)
		}
		return err
	})
	if err != nil || len(mails) == 0 {
		t.Fatal("no mails", err)
	}
	rnd := rand.New(rand.NewPCG(4, 4)) // the same damage each time
	var slowest time.Duration
	for i := range *rounds * len(mails) {
		damaged := damage(rnd, mails[i%len(mails)], mails[rnd.IntN(len(mails))])
		start := time.Now()
		checkInvariants(t, damaged)
		slowest = max(slowest, time.Since(start))
		if t.Failed() {
			t.Fatalf("mail %d of %s: %q", i%len(mails), *mailsDir, damaged[:min(len(damaged), 2000)])
		}
	}
	t.Logf("%d damaged mails, the slowest took %v under all three policies and all checks", *rounds*len(mails), slowest)
	if slowest > 20*time.Second {
		t.Error("a mail hangs")
	}
}

// tokens are what a parser looks for. They do more harm than random bytes.
var tokens = []string{
	"\r\n", "\n\n", "\r", "\x00", "--", "\r\n--", "=?", "?=", "=?utf-8?b?", "\"", "(", "<", ">", ";", ":", "=", "\xff", "\x1b$B",
	"Content-Type: multipart/mixed; boundary=x\r\n", "Content-Type: message/rfc822\r\n", "Content-Transfer-Encoding: base64\r\n",
	"begin 644 x\n", "<html>", "<body", "</body>", "cid:",
}

// damage changes a mail in a few places.
func damage(rnd *rand.Rand, raw, other []byte) []byte {
	b := bytes.Clone(raw)
	for range 1 + rnd.IntN(8) {
		at := rnd.IntN(len(b) + 1)
		end := at + rnd.IntN(min(len(b)-at, 400)+1)
		switch rnd.IntN(6) {
		case 0:
			b = slices.Insert(b, at, []byte(tokens[rnd.IntN(len(tokens))])...)
		case 1:
			b = slices.Delete(b, at, end)
		case 2:
			b = slices.Insert(b, at, bytes.Clone(b[at:end])...)
		case 3:
			for i := range b[at:min(end, at+8)] {
				b[at+i] = byte(rnd.Uint32())
			}
		case 4:
			from := rnd.IntN(len(other) + 1)
			b = slices.Insert(b, at, other[from:min(len(other), from+4000)]...)
		case 5:
			b = b[:at]
		}
	}
	return b
}
