package records

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/relay/suppress/suppresstest"
)

func TestSuppressContract(t *testing.T) {
	base := t.TempDir()
	suppresstest.Run(t, func(t *testing.T) suppresstest.Backend {
		dir, err := os.MkdirTemp(base, "")
		must(t, err)
		s := openTest(t, dir, Options{})
		return suppresstest.Backend{
			Store: s,
			Reopen: func() suppress.Store {
				must(t, s.Close())
				s = openTest(t, dir, Options{})
				return s
			},
			Flush: func() { must(t, s.Flush(t.Context())) },
			Close: func() { must(t, errors.Join(s.Close(), os.RemoveAll(dir))) },
		}
	})
}

// TestPlans: what mail or an event waits for must not look at more rows the
// more there are.
func TestPlans(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	ctx, now := t.Context(), time.Now()
	e := suppress.Entry{Address: "a@x", Reason: suppress.HardBounce, Source: suppress.Webhook, Since: now, Expires: now}
	must(t, s.Put(ctx, []suppress.Entry{e}))
	_, err := s.TakeEvent(ctx, event(1), "a@x", &e)
	must(t, err)
	_, err = s.Remove(ctx, []string{"a@x"}, now)
	must(t, err)
	_, err = s.Tend(ctx, now, now)
	must(t, err)
	_, err = s.ForgetEventsOf(ctx, "a@x")
	must(t, err)
	for range readers {
		_, _, err = s.Entry(ctx, "a@x")
		must(t, err)
		_, err = s.EventsOfMessage(ctx, "m", 1)
		must(t, err)
		_, err = s.EventsOfAddress(ctx, "a@x", 1)
		must(t, err)
		_, _, err = s.Event(ctx, "e")
		must(t, err)
		_, _, err = s.BadNews(ctx, now)
		must(t, err)
	}
	checked := 0
	for range readers {
		c := <-s.readers
		defer func() { s.readers <- c }()
		for q := range c.Statements() {
			if !strings.HasPrefix(q, "SELECT") {
				continue
			}
			checked++
			checkPlan(t, s, q)
		}
	}
	for q := range s.writer.conn.Statements() { // nothing is under way
		if strings.HasPrefix(q, "SELECT") || strings.HasPrefix(q, "DELETE") {
			checked++
			checkPlan(t, s, q)
		}
	}
	if checked < 12 {
		t.Errorf("only %d statements were checked", checked)
	}
}

func checkPlan(t *testing.T, s *Store, q string) {
	t.Helper()
	var plan []string
	err := s.durable(t.Context(), func(tx *tx) error {
		r, err := tx.One("EXPLAIN QUERY PLAN "+q, make([]any, strings.Count(q, "?"))...)
		if err == nil {
			plan = append(plan, r.Text(3))
		}
		return err
	})
	must(t, err)
	// The oldest events are the table's first rows: a scan that LIMIT ends.
	if got := strings.Join(plan, "; "); strings.HasPrefix(got, "SCAN") && !strings.Contains(q, "ORDER BY seq LIMIT") {
		t.Errorf("%s\n\t%s", q, got)
	}
}

// BenchmarkAttach is what a start reads.
func BenchmarkAttach(b *testing.B) {
	s := openTest(b, b.TempDir(), Options{})
	var entries []suppress.Entry
	for i := range 100_000 {
		entries = append(entries, suppress.Entry{Address: fmt.Sprintf("recipient%d@example%d.net", i, i%1000), Reason: suppress.HardBounce,
			Source: suppress.Webhook, Since: time.Now(), Expires: time.Now(), Event: fmt.Sprintf("evt_%d", i), Detail: "550 5.1.1 no such user"})
	}
	must(b, s.Put(b.Context(), entries))
	for b.Loop() {
		must(b, s.Attach(b.Context(), nothing{}))
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(len(entries)), "µs/entry")
}

type nothing struct{}

func (nothing) Set(suppress.Entry) {}
func (nothing) Unset(string)       {}
