package sqlite

import (
	"io"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

func TestSmoke(t *testing.T) {
	s, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	m := queue.NewMail(relay.Message{ID: "abc", From: "a@b", Recipients: []string{"x@y", "z@y"}, Raw: []byte("hello"), ReceivedAt: time.Now()})
	if err := s.Enqueue(ctx, m); err != nil {
		t.Fatal(err)
	}
	c, err := s.Claim(ctx, queue.ClaimRequest{Now: time.Now(), Max: 10, Lease: time.Minute})
	t.Logf("%+v %v", c, err)
	r, err := s.Raw(ctx, "abc")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(r)
	t.Logf("%q", b)
	r.Close()
	for _, x := range c {
		if err := s.Settle(ctx, queue.Settlement{Token: x.Token, Result: queue.Done, At: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	g, err := s.Get(ctx, "abc")
	t.Logf("%+v %v", g, err)
	st, err := s.Stats(ctx)
	t.Logf("%+v %v", st, err)
	l, n, err := s.List(ctx, queue.Filter{})
	t.Logf("%+v %v %v", l, n, err)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
