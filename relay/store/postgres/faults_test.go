package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/postgres/pgtest"
)

// proxy is between a relay and its server, on TCP.
type proxy struct {
	net.Listener
	socket string

	mu    sync.Mutex
	conns []net.Conn
	word  string        // the next statement that has it gets no answer, and its connection is cut
	deaf  int           // how many did
	hang  string        // the next statement that has it gets no answer, and its connection stays
	delay time.Duration // of each answer
	most  int           // bytes of answers, after which a connection is cut; 0: no limit
	wait  sync.WaitGroup
}

func newProxy(t testing.TB, s *pgtest.Server) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{Listener: l, socket: s.SocketFile()}
	p.wait.Go(p.serve)
	t.Cleanup(func() {
		_ = l.Close()
		p.cut()
		p.wait.Wait()
	})
	return p
}

func (p *proxy) url(database string) string {
	return (&url.URL{Scheme: "postgres", User: url.User("postgres"), Host: p.Addr().String(), Path: database, RawQuery: "sslmode=disable"}).String()
}

func (p *proxy) serve() {
	for {
		client, err := p.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", p.socket)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		a := &asking{Conn: server, p: p}
		p.wait.Go(func() { _, _ = io.Copy(a, client); _ = server.Close() })
		p.wait.Go(func() { p.answers(client, a); _ = client.Close() })
	}
}

// asking is the way to a server on which a word is looked for.
type asking struct {
	net.Conn
	p          *proxy
	mute, hung atomic.Bool
}

func (a *asking) Write(b []byte) (int, error) {
	a.p.mu.Lock()
	if a.p.word != "" && bytes.Contains(b, []byte(a.p.word)) {
		a.p.word = ""
		a.mute.Store(true)
	}
	if a.p.hang != "" && bytes.Contains(b, []byte(a.p.hang)) {
		a.p.hang = ""
		a.hung.Store(true)
	}
	a.p.mu.Unlock()
	return a.Conn.Write(b)
}

// answers carries what the server says, unless it is to be swallowed: the server has done
// what it was asked for, and nobody hears of it.
func (p *proxy) answers(client net.Conn, server *asking) {
	buf := make([]byte, 64<<10)
	for sent := 0; ; {
		n, err := server.Read(buf)
		if err == nil && server.hung.Load() {
			continue
		}
		p.mu.Lock()
		delay, most := p.delay, p.most
		p.mu.Unlock()
		if delay > 0 {
			wait(context.Background(), delay)
		}
		if sent += n; most > 0 && sent > most {
			return
		}
		if err == nil && server.mute.Load() {
			p.mu.Lock()
			p.deaf++
			p.mu.Unlock()
			return
		}
		if err != nil {
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// swallow has the answer to the next statement that has a word get lost while f runs.
func (p *proxy) swallow(t *testing.T, word string, f func() error) error {
	t.Helper()
	p.mu.Lock()
	p.word, p.deaf = word, 0
	p.mu.Unlock()
	err := f()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deaf != 1 {
		t.Errorf("%s: %d answers were lost", word, p.deaf)
	}
	return err
}

// set changes what the proxy does.
func (p *proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// TestAnswerLost: the connection is cut between the commit and its answer. An enqueue is
// neither lost nor stored twice; a settlement counts once; and what was claimed so
// is claimed again.
func TestAnswerLost(t *testing.T) {
	s := pgtest.Start(t)
	database := s.Database()
	direct := start(t, Options{URL: s.URL(database), Queue: queue.Options{ForgetSent: true}})
	p := newProxy(t, s)
	q := start(t, Options{URL: p.url(database), Queue: queue.Options{ForgetSent: true}})
	m := newMail("x@example.com", "1")
	must(t, p.swallow(t, "enqueue_1", func() error { return q.Enqueue(t.Context(), m) }))
	st, err := direct.Stats(t.Context())
	must(t, err)
	if st.Mails != 1 || st.Recipients[queue.Waiting] != 1 {
		t.Fatalf("after an enqueue: %+v", st)
	}
	err = p.swallow(t, "claim_1", func() error {
		_, err := q.Claim(t.Context(), queue.ClaimRequest{Now: time.Now(), Max: 1})
		return err
	})
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a claim without an answer: %v", err)
	}
	q.lease.tidy(t.Context())
	claims := q.claimAll(t, 1)
	if len(claims) != 1 || claims[0].Attempt != 1 {
		t.Fatalf("claims: %+v", claims)
	}
	x := done(claims[0])
	x.Count = "warm"
	must(t, p.swallow(t, "settle_1", func() error { return q.Settle(t.Context(), x) }))
	if st, err = direct.Stats(t.Context()); err != nil || st.Mails != 0 {
		t.Fatalf("after a settlement: %+v, %v", st, err)
	}
	if mark, err := direct.Mark(t.Context(), "warm"); err != nil || mark != "1" {
		t.Errorf("it counted %q, %v", mark, err)
	}
}

// TestServerKilled: the server is killed again and again while mail comes and goes,
// and connections are cut. What was acknowledged is there, and nothing is handed out
// twice while a lease holds.
func TestServerKilled(t *testing.T) {
	s := pgtest.Start(t)
	database := s.Database()
	p := newProxy(t, s)
	// A lease that outlives all outages: no recipient may come a second time, unless its
	// claim had no answer.
	q := start(t, Options{URL: p.url(database), lease: 10 * time.Minute})
	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	acknowledged, tried, settled := map[string]bool{}, map[queue.Token]int{}, map[queue.Token]bool{}
	var work sync.WaitGroup
	for w := range 4 {
		work.Go(func() {
			for ctx.Err() == nil {
				m := newMail(fmt.Sprintf("%d@example.com", w), "1", "2")
				if q.Enqueue(ctx, m) == nil {
					mu.Lock()
					acknowledged[m.Message.ID] = true
					mu.Unlock()
				}
			}
		})
	}
	for range 2 {
		work.Go(func() {
			for ctx.Err() == nil {
				claims, err := q.Claim(ctx, queue.ClaimRequest{Now: time.Now(), Max: 10})
				if err != nil {
					wait(ctx, 10*time.Millisecond)
				}
				for _, c := range claims {
					key := queue.Token{Mail: c.Token.Mail, Recipient: c.Token.Recipient}
					mu.Lock()
					tried[key]++
					mu.Unlock()
					for ctx.Err() == nil {
						if err := q.Settle(ctx, done(c)); err == nil {
							mu.Lock()
							settled[key] = true
							mu.Unlock()
							break
						}
						wait(ctx, 10*time.Millisecond)
					}
				}
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(settled)
	}
	for round := range 4 {
		for want := count() + 20; count() < want; { // it works
			wait(t.Context(), 10*time.Millisecond)
		}
		switch round {
		case 0:
			p.cut()
		case 1, 3:
			s.Stop()
			s.Restart()
		case 2:
			s.Kill()
			s.Restart()
		}
	}
	for want := count() + 20; count() < want; {
		wait(t.Context(), 10*time.Millisecond)
	}
	stop()
	work.Wait()
	for token, n := range tried {
		if n > 1 {
			t.Errorf("%v was handed out %d times", token, n)
		}
	}
	for id := range acknowledged {
		m, err := q.Get(t.Context(), id)
		if err != nil {
			t.Fatalf("mail %s, which was acknowledged: %v", id, err)
		}
		for _, r := range m.Recipients {
			if key := (queue.Token{Mail: id, Recipient: r.Number}); settled[key] && r.State != queue.Sent {
				t.Errorf("%v was settled and is %s", key, r.State)
			}
		}
	}
	st, err := q.Stats(t.Context())
	must(t, err)
	counted(t, q, st)
	t.Logf("%d mails acknowledged, %d recipients settled", len(acknowledged), len(settled))
}

// counted holds the counts to what is there.
func counted(t *testing.T, q opened, st queue.Stats) {
	t.Helper()
	seen := map[queue.State]int64{}
	f := queue.Filter{Limit: 1000}
	for {
		entries, next, err := q.List(t.Context(), f)
		must(t, err)
		for _, e := range entries {
			seen[e.Recipient.State]++
		}
		if f.Cursor = next; next == "" {
			break
		}
	}
	for _, state := range queue.States() {
		if seen[state] != st.Recipients[state] {
			t.Errorf("%d %s, counted as %d", seen[state], state, st.Recipients[state])
		}
	}
}
