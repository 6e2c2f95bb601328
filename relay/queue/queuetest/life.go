package queuetest

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

var markTests = []test{
	{"set, read, remove", queue.Options{}, marks},
	{"add", queue.Options{}, addMark},
	{"long", queue.Options{}, longMarks},
	{"concurrent", queue.Options{}, concurrentMarks},
}

var lifeTests = []test{
	{"restart", queue.Options{}, restart},
	{"closed", queue.Options{}, closed},
	{"close waits", queue.Options{}, closeWaits},
	{"a reader survives its mail", queue.Options{}, readerSurvives},
}

func marks(s *suite) {
	s.must(s.SetMark(s.ctx, "gate/until", "12:00"))
	s.must(s.SetMark(s.ctx, "gate/row", "3"))
	s.must(s.SetMark(s.ctx, "gatf", "x"))
	s.reopen()
	for name, want := range map[string]string{"gate/until": "12:00", "gate/row": "3", "none": ""} {
		v, err := s.Mark(s.ctx, name)
		s.must(err)
		s.equal(name, v, want)
	}
	all, err := s.Marks(s.ctx, "gate")
	s.must(err)
	s.equal("marks", all, map[string]string{"gate/until": "12:00", "gate/row": "3"})
	s.must(s.SetMark(s.ctx, "gate/row", ""))
	s.must(s.SetMark(s.ctx, "gate/until", "13:00"))
	all, err = s.Marks(s.ctx, "")
	s.must(err)
	s.equal("marks", all, map[string]string{"gate/until": "13:00", "gatf": "x"})
}

func addMark(s *suite) {
	s.must(s.SetMark(s.ctx, "text", "not a number"))
	for _, tt := range []struct {
		name string
		n    int64
		want int64
	}{{"c", 2, 2}, {"c", 3, 5}, {"c", -6, -1}, {"text", 1, 1}} {
		sum, err := s.AddMark(s.ctx, tt.name, tt.n)
		s.must(err)
		s.equal(tt.name, sum, tt.want)
	}
	s.reopen()
	v, err := s.Mark(s.ctx, "c")
	s.must(err)
	s.equal("c", v, "-1")
}

func longMarks(s *suite) {
	long := strings.Repeat("0123456789", 30_000)
	s.must(s.SetMark(s.ctx, "long/1", long))
	s.reopen()
	got, err := s.Mark(s.ctx, "long/1")
	s.must(err)
	if got != long {
		s.Fatalf("a value of %d bytes came back as one of %d", len(long), len(got))
	}
	for i := range 100 {
		s.must(s.SetMark(s.ctx, fmt.Sprintf("many/%d", i), "x"))
	}
	many, err := s.Marks(s.ctx, "many/")
	s.must(err)
	s.equal("marks", len(many), 100)
}

func concurrentMarks(s *suite) {
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for w := range errs {
		wg.Go(func() {
			for range 25 {
				_, err := s.AddMark(s.ctx, "c", 1)
				errs[w] = errors.Join(errs[w], err)
			}
		})
	}
	wg.Wait()
	s.must(errors.Join(errs...))
	v, err := s.Mark(s.ctx, "c")
	s.must(err)
	s.equal("c", v, "100")
}

func restart(s *suite) {
	id := s.put("a@b", "claimed", "later", "waiting")
	claims := s.claim(2)
	s.must(s.Settle(s.ctx, s.later(claims[1], s.now.Add(time.Hour))))
	before := claims[0]
	s.reopen()
	got := s.claim(9)
	s.equal("claims", addrs(got), "claimed waiting")
	if !got[0].Unknown || got[0].Attempt != 2 || got[0].Token.Fence <= before.Token.Fence || got[1].Unknown {
		s.Fatalf("claims: %+v", got)
	}
	s.wantErr(s.Settle(s.ctx, s.done(before)), queue.ErrStale)
	s.now = s.now.Add(time.Hour)
	s.must(s.Settle(s.ctx, s.done(got[0]), s.done(got[1])))
	s.equal("claims", addrs(s.claim(9)), "later")
	s.equal("states", s.states(id), "sent sending sent")
}

func closed(s *suite) {
	id := s.put("a@b", "x@y")
	s.must(s.Close())
	s.must(s.Close())
	_, claimErr := s.Claim(s.ctx, queue.ClaimRequest{Now: s.now, Max: 1})
	_, rawErr := s.Raw(s.ctx, id)
	_, getErr := s.Get(s.ctx, id)
	_, holdErr := s.Hold(s.ctx, queue.Filter{})
	_, purgeErr := s.Purge(s.ctx, s.now, 1)
	for i, err := range []error{s.Enqueue(s.ctx, s.mail("a@b", "x@y")), claimErr, rawErr, getErr, holdErr, purgeErr,
		s.Settle(s.ctx), s.Bounced(s.ctx, id, nil, nil), s.SetMark(s.ctx, "a", "b")} {
		if !errors.Is(err, queue.ErrClosed) {
			s.Fatalf("call %d after Close: %v", i, err)
		}
	}
	s.open()
	s.equal("states", s.states(id), "waiting")
}

func closeWaits(s *suite) {
	id := s.put("a@b", "x@y")
	r, err := s.Raw(s.ctx, id)
	s.must(err)
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	for { // until Close has begun
		if _, err := s.Get(s.ctx, id); errors.Is(err, queue.ErrClosed) {
			break
		}
	}
	select {
	case err := <-closed:
		s.Fatalf("Close returned while a reader is open: %v", err)
	default:
	}
	if _, err := io.ReadAll(r); err != nil {
		s.Fatalf("reading while Close waits: %v", err)
	}
	s.must(r.Close())
	s.must(<-closed)
	s.open()
}

func readerSurvives(s *suite) {
	for _, size := range []int{100, 1 << 20} {
		m := s.mail("a@b", "x@y")
		m.Message.Raw = make([]byte, size)
		s.must(s.Enqueue(s.ctx, m))
		r, err := s.Raw(s.ctx, m.Message.ID)
		s.must(err)
		n, err := s.Drop(s.ctx, queue.Filter{ID: m.Message.ID})
		s.applied(n, err, 1)
		b, err := io.ReadAll(r)
		s.must(err)
		s.must(r.Close())
		s.equal(fmt.Sprint("size of ", size), len(b), size)
	}
}
