package sqlite

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// TestDamagedAmongOthers: whatever of the addresses and envelopes is changed
// behind the queue's back, nothing of it is claimed, nothing that failed is, and
// the counts stay those of the tables.
func TestDamagedAmongOthers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		must := func(_ *testing.T, err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		dir, err := os.MkdirTemp(t.TempDir(), "")
		must(t, err)
		s, err := OpenQueue(Options{Dir: dir, Log: quiet()})
		must(t, err)
		defer func() { must(t, s.Close()) }()
		changed := map[string]bool{} // addresses, which are all different
		now := time.Now()
		for i := range rapid.IntRange(1, 3).Draw(rt, "mails") {
			m := testMail(10)
			m.Recipients = nil
			for n := range rapid.IntRange(1, 5).Draw(rt, "recipients") {
				m.Recipients = append(m.Recipients, queue.Recipient{Addr: fmt.Sprintf("%d.%d@y", i, n)})
			}
			must(t, s.Enqueue(ctx, m))
		}
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			if rapid.Bool().Draw(rt, "damage") {
				seq, n := rapid.IntRange(1, 3).Draw(rt, "mail"), rapid.IntRange(0, 4).Draw(rt, "recipient")
				changed[fmt.Sprintf("%d.%d@y", seq-1, n)] = true
				must(t, s.change(ctx, func(t *tx) error {
					t.exec("UPDATE recipients SET addr = 'eve@evil' WHERE mail = (SELECT min(seq) FROM mails) + ? AND n = ?", seq-1, n)
					return nil
				}))
			}
			claims, err := s.Claim(ctx, queue.ClaimRequest{Now: now, Max: rapid.IntRange(1, 20).Draw(rt, "max")})
			must(t, err)
			for _, c := range claims {
				m, err := s.Get(ctx, c.Token.Mail)
				must(t, err)
				r := m.Recipients[slices.IndexFunc(m.Recipients, func(r queue.Recipient) bool { return r.Number == c.Token.Recipient })]
				if c.Addr == "eve@evil" || changed[c.Addr] || r.State != queue.Claimed {
					rt.Fatalf("%s of a mail that is damaged (%v) was claimed and is %s", c.Addr, m.Damaged, r.State)
				}
				x := queue.Settlement{Token: c.Token, At: now, Due: now, Result: rapid.SampledFrom([]queue.Result{queue.Done, queue.Later, queue.GaveUp}).Draw(rt, "result")}
				must(t, s.Settle(ctx, x))
			}
			_, err = s.Retry(ctx, queue.Filter{}, now)
			must(t, err)
			if n := s.published.Load(); slices.Min(n.state[:]) < 0 || n.unbounced < 0 {
				rt.Fatalf("counts below none: %+v", n)
			}
		}
		checkConsistent(t, s)
	})
}
