package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// partly is an outcome of intake's attempt: the first recipient has the mail, the
// others were refused.
func partly(m *relay.Message) relay.Remainder {
	r := relay.Remainder{Message: m, Domain: "sandbox.example", Outcomes: []relay.Outcome{{Kind: relay.Accepted, Status: 200, MessageID: "msg_1"}}}
	for range m.Recipients[1:] {
		r.Outcomes = append(r.Outcomes, relay.Outcome{Kind: relay.Suppressed, Status: 422})
	}
	return r
}

// badRaw is a queue that cannot read some of its mails.
type badRaw struct {
	queue.Queue
	unreadable sync.Map
}

func (q *badRaw) Raw(ctx context.Context, id string) (io.ReadCloser, error) {
	if _, bad := q.unreadable.Load(id); bad {
		return nil, errors.New("input/output error")
	}
	return q.Queue.Raw(ctx, id)
}

// A mail that cannot be read does not delay other bounces. Its own bounce is sent in
// the end, without the header.
func TestMailThatCannotBeReadHoldsUpNoBounce(t *testing.T) {
	for _, unreadable := range []int{1, 2 * bouncesAtOnce} {
		t.Run(fmt.Sprint(unreadable), func(t *testing.T) {
			bad := &badRaw{}
			wrap := func(q queue.Queue) queue.Queue { bad.Queue = q; return bad }
			inBubble(t, plan{wrap: wrap}, func(r *rig) {
				ctx := context.Background()
				for range unreadable {
					m := message(shop, "unreadable", "bob@example.net", "suppressed@example.net")
					bad.unreadable.Store(m.ID, true)
					r.must(r.engine.Keep(ctx, partly(m)))
				}
				r.must(r.engine.Keep(ctx, partly(message("app@sandbox.example", "good", "bob@example.net", "suppressed@example.net"))))
				r.pass(time.Second)
				if b := r.bounces(); len(b) != 1 || b[0].To != "app@sandbox.example" {
					t.Errorf("%d bounces beside mail that cannot be read, want one", len(b))
				}
				r.pass(10 * time.Minute)
				b := r.bounces()
				if len(b) != 1+unreadable {
					r.t.Fatalf("%d bounces in the end, want %d", len(b), 1+unreadable)
				}
				if text := textOf(t, b[1]); !strings.Contains(text, "<suppressed@example.net>") || strings.Contains(text, "Subject:") {
					t.Errorf("the bounce of a mail that cannot be read:\n%s", text)
				}
			})
		})
	}
}

// If the mail can be read again soon, the bounce has the header.
func TestMailThatCanBeReadAgainIsQuoted(t *testing.T) {
	bad := &badRaw{}
	wrap := func(q queue.Queue) queue.Queue { bad.Queue = q; return bad }
	inBubble(t, plan{wrap: wrap}, func(r *rig) {
		m := message(shop, "Order 4711", "bob@example.net", "suppressed@example.net")
		bad.unreadable.Store(m.ID, true)
		r.must(r.engine.Keep(context.Background(), partly(m)))
		r.pass(90 * time.Second)
		bad.unreadable.Delete(m.ID)
		r.pass(time.Minute)
		if b := r.bounces(); len(b) != 1 || !strings.Contains(textOf(t, b[0]), "Subject: Order 4711") {
			t.Errorf("%d bounces, or without the header", len(b))
		}
	})
}

// The sender is told as soon as the last recipient has the mail.
func TestASuccessEndsTheWaitForABounce(t *testing.T) {
	inBubble(t, plan{}, func(r *rig) {
		id := r.keep(shop, "s", "suppressed@example.net", "down+1@example.net")
		for r.states(id) != "failed sent" {
			r.pass(100 * time.Millisecond)
		}
		r.pass(100 * time.Millisecond)
		if n := len(r.bounces()); n != 1 {
			t.Errorf("%d bounces when the last recipient has the mail, want 1", n)
		}
	})
}

// Failures from before a restart are known after it.
func TestASuccessEndsTheWaitForABounceAfterARestart(t *testing.T) {
	inBubble(t, plan{}, func(r *rig) {
		id := r.keep(shop, "s", "suppressed@example.net", "down+1@example.net")
		r.pass(100 * time.Millisecond)
		r.wantStates(id, "failed waiting")
		r.restart()
		for r.states(id) != "failed sent" {
			r.pass(100 * time.Millisecond)
		}
		r.pass(100 * time.Millisecond)
		if n := len(r.bounces()); n != 1 {
			t.Errorf("%d bounces when the last recipient has the mail, want 1", n)
		}
	})
}

// A failure that the engine was not told of is found within a minute. Whoever reads a
// damaged mail gives it up.
func TestAFailureByOthersIsTold(t *testing.T) {
	inBubble(t, plan{}, func(r *rig) {
		r.pass(time.Hour)
		mail := queue.NewMail(*message(shop, "s", "bob@example.net"))
		mail.Recipients[0].State, mail.Recipients[0].Ended = queue.Failed, time.Now()
		r.must(r.store.Enqueue(context.Background(), mail))
		r.pass(graceCheck + time.Second)
		if n := len(r.bounces()); n != 1 {
			t.Errorf("%d bounces, want 1", n)
		}
	})
}

// If a full queue has no room for a mail of which only a bounce is left, it has room
// for the bounce.
func TestAFullQueueKeepsTheBounce(t *testing.T) {
	inBubble(t, plan{queue: queue.Options{MaxMails: 1}, perHour: 2}, func(r *rig) {
		ctx := context.Background()
		r.keep("app@sandbox.example", "full", "down@example.net")
		r.must(r.box.SetOutage(sandbox.OutageUnavailable))
		m := message(shop, "Order 4711", "bob@example.net", "suppressed@example.net", "down@example.net")
		unsettled := partly(m)
		unsettled.Outcomes[2] = relay.Outcome{Kind: relay.Unavailable}
		if err := r.engine.Keep(ctx, unsettled); !errors.Is(err, queue.ErrFull) {
			t.Errorf("a mail that is still to be sent to somebody: %v", err)
		}
		for range 2 {
			r.must(r.engine.Keep(ctx, partly(message(shop, "Order 4711", "bob@example.net", "suppressed@example.net"))))
		}
		r.restart()
		r.must(r.box.SetOutage(sandbox.OutageNone))
		r.pass(10 * time.Minute)
		b := r.bounces()
		if n := r.box.AcceptedFor(shop); n != 2 {
			r.t.Fatalf("%d bounces to %s, want 2", n, shop)
		}
		for _, want := range []string{"<suppressed@example.net>", "suppression list", "Subject: Order 4711"} {
			if text := textOf(t, b[0]); !strings.Contains(text, want) {
				t.Errorf("the bounce has no %q:\n%s", want, text)
			}
		}
		// bounce.per_hour also applies here.
		for range 4 {
			r.must(r.engine.Keep(ctx, partly(message(shop, "Order 4711", "bob@example.net", "suppressed@example.net"))))
		}
		if n := r.log.count("too many failures"); n == 0 || n == 4 {
			t.Errorf("%d of 4 are too many, with two an hour", n)
		}
		if err := r.engine.Keep(ctx, partly(message("root@localhost", "s", "bob@example.net", "suppressed@example.net"))); !errors.Is(err, queue.ErrFull) {
			t.Errorf("nobody can be told: %v", err)
		}
	})
}
