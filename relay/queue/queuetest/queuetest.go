// Package queuetest holds a backend of relay/queue to its contract. A
// backend's test calls Run and nothing else; every sentence of the contract
// that a program can check is checked here, and a backend must pass all of it.
package queuetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// TB is what a backend gets of the test it serves; testing.TB and rapid's T
// have it.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

// Backend is one empty store to test.
type Backend struct {
	// Open opens the store; after a Close it opens the same data again.
	Open func(o queue.Options) (queue.Queue, error)
	// Damage changes a byte of a mail's stored content behind the queue's back.
	// The queue is closed.
	Damage func(id string) error
	// Remove removes the store, which is closed. It may be nil.
	Remove func()
}

// Run runs the whole suite. open makes a new, empty store.
func Run(t *testing.T, open func(t TB) Backend) {
	groups := []struct {
		name  string
		tests []test
	}{
		{"Enqueue", enqueueTests},
		{"Claim", claimTests},
		{"Settle", settleTests},
		{"Bounce", bounceTests},
		{"Operator", operatorTests},
		{"List", listTests},
		{"Account", accountTests},
		{"Marks", markTests},
		{"Life", lifeTests},
	}
	for _, g := range groups {
		for _, tt := range g.tests {
			t.Run(g.name+"/"+tt.name, func(t *testing.T) {
				s := newSuite(t, open(t), tt.options)
				defer s.end()
				tt.run(s)
			})
		}
	}
	t.Run("Model", func(t *testing.T) { runModel(t, open) })
}

type test struct {
	name    string
	options queue.Options
	run     func(s *suite)
}

// suite is one test's queue with short words for what tests do.
type suite struct {
	TB
	queue.Queue
	backend Backend
	options queue.Options
	ctx     context.Context
	now     time.Time
	serial  int
}

// noon is when every test begins. Times are whole milliseconds.
var noon = time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC)

func newSuite(t TB, b Backend, o queue.Options) *suite {
	s := &suite{TB: t, backend: b, options: o, ctx: context.Background(), now: noon}
	s.open()
	return s
}

func (s *suite) open() {
	s.Helper()
	q, err := s.backend.Open(s.options)
	s.must(err)
	s.Queue = q
}

func (s *suite) end() {
	s.Helper()
	s.must(s.Close())
	if s.backend.Remove != nil {
		s.backend.Remove()
	}
}

// reopen closes the queue and opens it again.
func (s *suite) reopen() {
	s.Helper()
	s.must(s.Close())
	s.open()
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatalf("unexpected error: %v", err)
	}
}

func (s *suite) wantErr(err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Fatalf("error %v, want %v", err, want)
	}
}

func (s *suite) equal(what string, got, want any) {
	s.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		s.Fatalf("%s:\n got %s\nwant %s", what, g, w)
	}
}

// mail is a mail of a lane to recipients, not yet enqueued.
func (s *suite) mail(lane string, recipients ...string) queue.Mail {
	s.serial++
	_, domain, _ := strings.Cut(lane, "@")
	m := queue.NewMail(relay.Message{
		ID:         fmt.Sprintf("%s%04d", relay.NewID(s.now), s.serial)[:20],
		From:       lane,
		Recipients: recipients,
		Raw:        fmt.Appendf(nil, "Subject: mail %d\r\n\r\nhello\r\n", s.serial),
		ReceivedAt: s.now,
		Client:     relay.Client{Addr: "127.0.0.1:1", Helo: "app", User: "u", Listener: "127.0.0.1:25", Session: "s1"},
	})
	m.Lane, m.Domain = lane, domain
	return m
}

// put enqueues a mail and returns its id.
func (s *suite) put(lane string, recipients ...string) string {
	s.Helper()
	m := s.mail(lane, recipients...)
	s.must(s.Enqueue(s.ctx, m))
	return m.Message.ID
}

func (s *suite) claim(max int) []queue.Claim {
	s.Helper()
	return s.claimLimited(max, nil)
}

func (s *suite) claimLimited(max int, limits map[string]int) []queue.Claim {
	s.Helper()
	c, err := s.Claim(s.ctx, queue.ClaimRequest{Now: s.now, Max: max, Limits: limits})
	s.must(err)
	return c
}

// claimOne claims the one recipient that is due.
func (s *suite) claimOne() queue.Claim {
	s.Helper()
	c := s.claim(2)
	if len(c) != 1 {
		s.Fatalf("%d claims, want 1: %s", len(c), addrs(c))
	}
	return c[0]
}

func addrs(claims []queue.Claim) string {
	var a []string
	for _, c := range claims {
		a = append(a, c.Addr)
	}
	return strings.Join(a, " ")
}

func (s *suite) done(c queue.Claim) queue.Settlement {
	return queue.Settlement{Token: c.Token, Result: queue.Done, At: s.now,
		Outcome: relay.Outcome{Kind: relay.Accepted, Status: 200, MessageID: "msg_" + c.Addr}}
}

func (s *suite) later(c queue.Claim, due time.Time) queue.Settlement {
	return queue.Settlement{Token: c.Token, Result: queue.Later, At: s.now, Due: due,
		Outcome: relay.Outcome{Kind: relay.Unavailable, Status: 503, Detail: "busy", Cause: errors.New("private"), Took: time.Second}}
}

func (s *suite) gaveUp(c queue.Claim) queue.Settlement {
	return queue.Settlement{Token: c.Token, Result: queue.GaveUp, At: s.now,
		Outcome: relay.Outcome{Kind: relay.Refused, Status: 422, Detail: "no"}}
}

func (s *suite) get(id string) queue.Mail {
	s.Helper()
	m, err := s.Get(s.ctx, id)
	s.must(err)
	return m
}

func (s *suite) raw(id string) (string, error) {
	s.Helper()
	r, err := s.Raw(s.ctx, id)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	s.must(r.Close())
	return string(b), err
}

// states is the state of each recipient of a mail in one line.
func (s *suite) states(id string) string {
	s.Helper()
	var words []string
	for _, r := range s.get(id).Recipients {
		words = append(words, r.State.String())
	}
	return strings.Join(words, " ")
}

// count is what Stats says in one line.
func (s *suite) count() string {
	s.Helper()
	st, err := s.Stats(s.ctx)
	s.must(err)
	if len(st.Recipients) != len(queue.States()) {
		s.Fatalf("Stats has %d states", len(st.Recipients))
	}
	line := ""
	for _, state := range queue.States() {
		line += fmt.Sprintf("%s %d, ", state, st.Recipients[state])
	}
	return line + fmt.Sprintf("mails %d, unbounced %d", st.Mails, st.Unbounced)
}

// woken reports whether Wake has something, and takes it.
func (s *suite) woken() bool {
	select {
	case <-s.Wake():
		return true
	default:
		return false
	}
}
