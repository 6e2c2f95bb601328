package postgres

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/postgres/pgtest"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// TestLaterOfOneThatIsGone: what a relay settled for later before it was gone is found by
// another one, to which nobody said anything.
func TestLaterOfOneThatIsGone(t *testing.T) {
	s := pgtest.Start(t)
	q := start(t, Options{URL: s.URL(s.Database())})
	due := func() bool {
		some, err := q.someDue(t.Context())
		must(t, err)
		return some
	}
	m := newMail("x@example.com", "1")
	m.Recipients[0].Due = time.Now().Add(time.Hour)
	q.put(t, m)
	if due() {
		t.Error("it is due in an hour")
	}
	q.d.exec(t, "UPDATE smtp2rest.recipients SET due = due - 3600000")
	if !due() {
		t.Error("it is due, and nobody is woken")
	}
}

// TestRenewedMeanwhile: neither a lock in the way of tidying nor one renewal that hangs
// costs a relay its lease.
func TestRenewedMeanwhile(t *testing.T) {
	s := pgtest.Start(t)
	database := s.Database()
	p := newProxy(t, s)
	q := start(t, Options{URL: p.url(database), lease: 12 * time.Second})
	q.put(t, newMail("x@example.com", "1"))
	c := q.claimAll(t, 1)[0]
	blocker, err := pgx.Connect(t.Context(), s.URL(database))
	must(t, err)
	defer func() { must(t, blocker.Close(context.Background())) }()
	_, err = blocker.Exec(t.Context(), "BEGIN; LOCK TABLE smtp2rest.counts IN ACCESS EXCLUSIVE MODE")
	must(t, err)
	p.set(func() { p.hang = "SET heartbeat" })
	for since := time.Now(); time.Since(since) < 14*time.Second; {
		select {
		case <-c.Lost:
			t.Fatalf("lost after %s", time.Since(since))
		case <-time.After(100 * time.Millisecond):
		}
	}
	p.set(func() {
		if p.hang != "" {
			t.Error("no renewal hung")
		}
	})
}

// TestListenHangs: a server that does not answer a LISTEN is left for another connection.
func TestListenHangs(t *testing.T) {
	s := pgtest.Start(t)
	p := newProxy(t, s)
	p.hang = "LISTEN"
	d := connect(t, p.url(s.Database()), Options{})
	lost := make(chan struct{}, 10)
	d.Listen("test", func(string) {}, func() { lost <- struct{}{} })
	select {
	case <-lost:
	case <-time.After(2 * time.Minute):
		t.Error("nobody listens")
	}
}

// TestBounceThatIsThere: the content of a large bounce that is there already is not
// stored a second time.
func TestBounceThatIsThere(t *testing.T) {
	s := pgtest.Start(t)
	q := start(t, Options{URL: s.URL(s.Database())})
	m := newMail("x@example.com", "1")
	q.put(t, m)
	x := done(q.claimAll(t, 1)[0])
	x.Result = queue.GaveUp
	must(t, q.Settle(t.Context(), x))
	bounce := newMail("", "x@example.com")
	bounce.BounceOf, bounce.Message.Raw = m.Message.ID, make([]byte, 2*chunk)
	q.put(t, bounce)
	must(t, q.Bounced(t.Context(), m.Message.ID, []int{0}, &bounce))
	var parts int
	must(t, q.d.do(t.Context(), func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, "SELECT count(*) FROM smtp2rest.bodies WHERE NOT EXISTS (SELECT 1 FROM smtp2rest.mails m WHERE m.seq = bodies.seq)").Scan(&parts)
	}))
	if parts > 0 {
		t.Errorf("%d parts belong to no mail", parts)
	}
}

// TestMuchFarAway: what there may be much of is done in a time that does not grow with it,
// although each answer of the server takes its time.
func TestMuchFarAway(t *testing.T) {
	s := pgtest.Start(t)
	database := s.Database()
	p := newProxy(t, s)
	near, far := connect(t, s.URL(database), Options{}), connect(t, p.url(database), Options{})
	near.exec(t, `INSERT INTO smtp2rest.history_mails SELECT 'm' || i, i, 'app@example.com', 'app@example.com', '', '', '', '', '', 0 FROM generate_series(1, 3500) i`)
	near.exec(t, `INSERT INTO smtp2rest.history_recipients SELECT 'm' || i, 'x@example.net', i, 'x@example.net', '', '', CASE WHEN i % 100 = 0 THEN 'waiting' ELSE 'sent' END, 0, '', ''
		FROM generate_series(1, 3500) i`)
	r := NewRecords(far)
	t.Cleanup(func() { must(t, r.Close()) })
	p.set(func() { p.delay = 5 * time.Millisecond })
	for i := range 3000 {
		r.LearnSoon(suppress.Entry{Address: fmt.Sprintf("%d@example.net", i%2000), Reason: suppress.HardBounce, Source: suppress.API, Since: time.UnixMilli(int64(i) + 1)})
	}
	must(t, r.flushNow(t.Context()))
	all, err := r.Entries(t.Context(), suppress.Filter{Domain: "example.net"})
	if must(t, err); len(all) != 2000 {
		t.Errorf("%d entries were learnt", len(all))
	}
	f, err := r.Forget(t.Context(), "app@example.com", nil)
	if must(t, err); f.Mails != 3500 {
		t.Errorf("%+v was forgotten", f)
	}
	closed := 0
	must(t, r.rows(t.Context(), func(r pgx.Rows) error { return r.Scan(&closed) }, "SELECT count(*) FROM smtp2rest.history_forgotten"))
	if closed != 35 {
		t.Errorf("%d records are kept from coming back", closed)
	}
}

// TestCatchUpInSteps: however much was changed, a relay catches up in steps, and goes on
// where it was when its connection breaks.
func TestCatchUpInSteps(t *testing.T) {
	s := pgtest.Start(t)
	database := s.Database()
	p := newProxy(t, s)
	near, far := connect(t, s.URL(database), Options{}), connect(t, p.url(database), Options{})
	r := NewRecords(far)
	t.Cleanup(func() { must(t, r.Close()) })
	list := newTold()
	must(t, r.Attach(t.Context(), list))
	near.exec(t, `INSERT INTO smtp2rest.suppressions SELECT i || '@example.net', 'hard_bounce', 'api', 1, 0, '', repeat('x', 100), '', nextval('smtp2rest.suppression_seq')
		FROM generate_series(1, 12000) i`)
	near.exec(t, `INSERT INTO smtp2rest.suppressions_gone SELECT i || '@example.com', nextval('smtp2rest.suppression_seq'), now() FROM generate_series(1, 3000) i`)
	p.set(func() { p.most = 1 << 20 })
	p.cut()
	for tries := 0; list.len() < 12000; tries++ {
		if err := r.catchUp(t.Context()); err != nil && tries > 100 {
			t.Fatalf("%d changes came; %v", list.len(), err)
		}
		wait(t.Context(), 100*time.Millisecond)
	}
	p.set(func() { p.most = 0 })
}

func (w *told) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.on)
}

// TestHistoryWrittenTwice: what is written again, together with what came meanwhile, because
// the answer to its commit was lost, is shown once.
func TestHistoryWrittenTwice(t *testing.T) {
	s := pgtest.Start(t)
	p := newProxy(t, s)
	r := records(t, p.url(s.Database()))
	at := time.Now().Round(0)
	step := func(n int) history.Step {
		return history.Step{At: at.Add(time.Duration(n)), What: history.StepTold, Text: "x"}
	}
	change := func(steps ...history.Step) history.Change {
		return history.Change{ID: "1", Received: at, Recipients: []history.RecipientChange{{Addr: "x@example.net", Steps: steps}}}
	}
	if err := p.swallow(t, "commit", func() error { return r.Write(t.Context(), []history.Change{change(step(0), step(1))}) }); err == nil {
		t.Error("an answer that was lost came")
	}
	must(t, r.Write(t.Context(), []history.Change{change(step(0), step(1), step(2))}))
	m, _, err := r.Get(t.Context(), "1")
	if must(t, err); len(m.Recipients[0].Steps) != 3 {
		t.Errorf("%+v", m.Recipients)
	}
}
