package sqlite

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// TestRecordsPlans: what mail or an event waits for must not look at more rows the
// more there are.
func TestRecordsPlans(t *testing.T) {
	s := openRecords(t, t.TempDir(), Options{})
	ctx, now := t.Context(), time.Now()
	e := suppress.Entry{Address: "a@x", Reason: suppress.HardBounce, Source: suppress.Webhook, Since: now, Expires: now}
	must(t, s.Put(ctx, []suppress.Entry{e}))
	_, err := s.TakeEvent(ctx, event(1), "a@x", &e)
	must(t, err)
	_, err = s.Remove(ctx, []string{"a@x"}, now)
	must(t, err)
	_, err = s.Tend(ctx, now, now)
	must(t, err)
	for range recordsSpec().readers {
		_, _, err = s.Entry(ctx, "a@x")
		must(t, err)
		_, _, err = s.BadNews(ctx, now)
		must(t, err)
	}
	checked := 0
	for range recordsSpec().readers {
		c := <-s.readers
		defer func() { s.readers <- c }()
		for q := range c.Statements() {
			if !strings.HasPrefix(q, "SELECT") {
				continue
			}
			checked++
			checkRecordsPlan(t, s, q)
		}
	}
	for q := range s.conn.Statements() { // nothing is under way
		if strings.HasPrefix(q, "SELECT") || strings.HasPrefix(q, "DELETE") {
			checked++
			checkRecordsPlan(t, s, q)
		}
	}
	if checked < 9 {
		t.Errorf("only %d statements were checked", checked)
	}
}

func checkRecordsPlan(t *testing.T, s *Records, q string) {
	t.Helper()
	var plan []string
	err := s.change(t.Context(), func(tx *tx) error {
		r, err := tx.conn.One("EXPLAIN QUERY PLAN "+q, make([]any, strings.Count(q, "?"))...)
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
	s := openRecords(b, b.TempDir(), Options{})
	var entries []suppress.Entry
	for i := range 100_000 {
		entries = append(entries, suppress.Entry{Address: fmt.Sprintf("recipient%d@example%d.net", i, i%1000), Reason: suppress.HardBounce,
			Source: suppress.Webhook, Since: time.Now(), Expires: time.Now(), Event: fmt.Sprintf("evt_%d", i), Detail: "550 5.1.1 no such user"})
	}
	must(b, s.Put(b.Context(), entries))
	for b.Loop() {
		must(b, s.Attach(b.Context(), unwatched{}))
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(len(entries)), "µs/entry")
}

type unwatched struct{}

func (unwatched) Set(suppress.Entry) {}
func (unwatched) Unset(string)       {}
