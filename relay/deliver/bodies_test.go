package deliver

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// ledger is a Memory that counts.
type ledger struct {
	held, most, shares int64
	refuse             atomic.Bool
}

type ledgerShare struct {
	l    *ledger
	held int64
}

func (l *ledger) share() Memory {
	l.shares++
	return &ledgerShare{l: l}
}

func (s *ledgerShare) Hold(_ context.Context, n int64) error {
	if s.l.refuse.Load() {
		return errors.New("no memory")
	}
	s.l.held += n - s.held
	s.held = n
	s.l.most = max(s.l.most, s.l.held)
	return nil
}

func (s *ledgerShare) Release() {
	s.l.held -= s.held
	s.l.shares--
	s.held = 0
}

// Memory is held for mails that are being sent and for the latest one. It is returned
// however they end.
func TestBodiesHoldMemory(t *testing.T) {
	inBubbleStopped(t, plan{}, func(r *rig) {
		l := &ledger{}
		b := r.engine.bodies
		b.memory = l.share
		mails := make([]queue.Mail, 2)
		for i := range mails {
			m := queue.NewMail(*message("shop@sandbox.example", "hello", "bob@example.net"))
			if err := r.store.Enqueue(context.Background(), m); err != nil {
				t.Fatal(err)
			}
			var err error
			if mails[i], err = r.store.Get(context.Background(), m.Message.ID); err != nil {
				t.Fatal(err)
			}
		}
		get := func(i int) *mapped {
			m, err := b.get(context.Background(), mails[i])
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		first := get(0)
		if again := get(0); again != first || l.shares != 1 {
			t.Errorf("mapped twice, %d shares", l.shares)
		}
		if least := mails[0].Size + mail.MostCost(mails[0].Size); l.most < least || l.most > 2*least || l.held != first.body.Len("") {
			t.Errorf("%d held at most, want %d or somewhat more; then %d", l.most, least, l.held)
		}
		second := get(1)
		if l.shares != 2 {
			t.Errorf("%d shares while two are sent", l.shares)
		}
		b.put(first)
		b.put(first)
		b.put(second)
		if l.shares != 1 || l.held != second.body.Len("") {
			t.Errorf("%d shares and %d bytes for the latest alone", l.shares, l.held)
		}
		l.refuse.Store(true)
		if _, err := b.get(context.Background(), mails[0]); err == nil || l.shares != 0 || l.held != 0 {
			t.Errorf("%v, %d shares and %d bytes left", err, l.shares, l.held)
		}
	})
}

// The mail that was sent last is dropped when nothing else is due.
func TestIdleHoldsNoMemory(t *testing.T) {
	inBubble(t, plan{}, func(r *rig) {
		l := &ledger{}
		r.engine.bodies.mu.Lock()
		r.engine.bodies.memory = l.share
		r.engine.bodies.mu.Unlock()
		r.keep(shop, "s", "bob@example.net")
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		if l.most == 0 || l.shares != 0 || l.held != 0 {
			t.Errorf("of %d bytes %d are held by %d shares", l.most, l.held, l.shares)
		}
	})
}

// Attempts at one mail that begin at the same time map it once and share its memory.
// If that fails, the next attempt maps it again.
func TestBodiesAreMappedOnce(t *testing.T) {
	inBubbleStopped(t, plan{}, func(r *rig) {
		id := r.keep(shop, "s", "bob@example.net")
		l := &ledger{}
		b := r.engine.bodies
		b.memory = l.share
		encode, calls, goOn := b.encode, 0, make(chan error)
		b.encode = func(raw []byte, m *relay.Message, o provider.Mapping) (provider.Body, error) {
			calls++
			if err := <-goOn; err != nil {
				return nil, err
			}
			return encode(raw, m, o)
		}
		for round, want := range []error{errors.New("no"), nil} {
			var all sync.WaitGroup
			for range 5 {
				all.Go(func() {
					one, err := b.get(context.Background(), r.mail(id))
					if !errors.Is(err, want) {
						t.Errorf("round %d: %v, want %v", round, err, want)
					}
					if err == nil {
						b.put(one)
					}
				})
			}
			synctest.Wait()
			goOn <- want
			all.Wait()
			if shares := int64(round); calls != round+1 || l.shares != shares {
				t.Errorf("round %d: mapped %d times in all, %d shares of memory are left", round, calls, l.shares)
			}
		}
	})
}

// A mail that got no memory is tried again soon, and that does not count against it.
func TestNoMemoryForAMail(t *testing.T) {
	inBubbleStopped(t, plan{}, func(r *rig) {
		id := r.keep(shop, "s", "bob@example.net")
		l := &ledger{}
		l.refuse.Store(true)
		r.engine.bodies.memory = l.share
		r.engine.Start()
		r.pass(time.Second)
		rcpt := r.mail(id).Recipients[0]
		if last, _ := rcpt.Last(); rcpt.Attempts != 0 || last.Outcome.Kind != relay.Unavailable || r.log.count("level=ERROR") != 0 {
			t.Errorf("%+v", rcpt)
		}
		l.refuse.Store(false)
		r.pass(memoryPause)
		r.wantStates(id, "sent")
	})
}
