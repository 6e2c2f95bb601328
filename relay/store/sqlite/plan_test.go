package sqlite

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// TestPlans: no statement may look at more rows the more there are. It runs
// everything once and asks SQLite how it does each statement that was run.
func TestPlans(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenQueue(Options{Dir: dir, Log: quiet()})
	must(t, err)
	must(t, s.Close()) // with what makes the tables, once
	s = openQueue(t, dir, Options{})
	exercise(t, s)
	conns := []*conn{s.conn}
	for range cap(s.readers) {
		conns = append(conns, <-s.readers)
	}
	defer func() {
		for _, c := range conns[1:] {
			s.readers <- c
		}
	}()
	checked := 0
	for _, c := range conns {
		for q := range c.Statements() {
			if verb, _, _ := strings.Cut(q, " "); verb != "SELECT" && verb != "UPDATE" && verb != "DELETE" {
				continue
			}
			checked++
			checkPlan(t, c, q)
		}
	}
	if checked < 30 {
		t.Errorf("only %d statements were checked", checked)
	}
}

func checkPlan(t *testing.T, c *conn, q string) {
	t.Helper()
	args := make([]any, strings.Count(q, "?"))
	for n := 3; n > 0; n-- {
		if strings.Contains(q, fmt.Sprint("?", n)) {
			args = make([]any, n)
			break
		}
	}
	var plan []string
	err := c.Each(func(r row) error {
		plan = append(plan, r.Text(3))
		return nil
	}, "EXPLAIN QUERY PLAN "+q, args...)
	if err != nil {
		t.Fatalf("%v in %s", err, q)
	}
	small := []string{"SCAN counts", "SCAN CONSTANT ROW"} // one row, and none
	for _, step := range plan {
		scans := strings.HasPrefix(step, "SCAN") && !slices.Contains(small, step) && !strings.HasPrefix(step, "SCAN (subquery")
		if scans && !strings.Contains(step, "USING") || strings.Contains(step, "TEMP B-TREE") {
			t.Errorf("%s\n\t%s", q, strings.Join(plan, "\n\t"))
			return
		}
	}
}

// exercise makes the store run every statement it has, but for those of a
// damage.
func exercise(t *testing.T, s *Queue) {
	t.Helper()
	ctx, now := context.Background(), time.Now()
	m := queue.NewMail(relay.Message{ID: "id", From: "a@b", Recipients: []string{"1", "2", "3", "4"}, ReceivedAt: now})
	must(t, s.Enqueue(ctx, m))
	for i, result := range []queue.Result{queue.Done, queue.GaveUp, queue.Later} {
		limits := map[string]int{"": 5 - 5*(i%2)}
		_, _, err := s.NextDue(ctx, queue.ClaimRequest{Now: now, Limits: limits, MaxWait: time.Hour})
		must(t, err)
		_, err = s.Claim(ctx, queue.ClaimRequest{Now: now, Max: 1, MaxWait: time.Nanosecond, Limits: limits, PassOver: []string{"x"}, Latest: true})
		must(t, err)
		claims, err := s.Claim(ctx, queue.ClaimRequest{Now: now, Max: 1})
		must(t, err)
		for _, c := range claims {
			must(t, s.Settle(ctx, queue.Settlement{Token: c.Token, Result: result, At: now, Due: now}))
		}
		now = now.Add(time.Minute)
	}
	for _, f := range []queue.Filter{{}, {ID: "id"}, {States: []queue.State{queue.Held}}, {States: []queue.State{queue.Failed}}, {Sender: "x", Recipient: "y"}} {
		_, _, err := s.List(ctx, f)
		must(t, err)
	}
	_, err := s.Hold(ctx, queue.Filter{ID: "id"})
	must(t, err)
	_, err = s.Release(ctx, queue.Filter{ID: "id"})
	must(t, err)
	_, err = s.BouncesDue(ctx, now, 0, 10)
	must(t, err)
	must(t, s.Bounced(ctx, "id", []int{1}, nil))
	_, err = s.Reassign(ctx, queue.Filter{ID: "id"}, "shop")
	must(t, err)
	_, err = s.Accounts(ctx)
	must(t, err)
	_, err = s.Stats(ctx)
	must(t, err)
	_, err = s.Drop(ctx, queue.Filter{ID: "id"})
	must(t, err)
	must(t, s.Enqueue(ctx, testMails(4, 10)...))
	_, err = s.Purge(ctx, now, 1)
	must(t, err)
	_, err = s.Marks(ctx, "a")
	must(t, err)
	_, err = s.AddMark(ctx, "a", 1)
	must(t, err)
}
