package deliver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// textOf returns the text of a call.
func textOf(t *testing.T, c sandbox.Call) string {
	t.Helper()
	var body struct{ Text string }
	if err := json.Unmarshal(c.Body, &body); err != nil {
		t.Fatal(err)
	}
	return body.Text
}

// bounces returns the calls that carry a bounce.
func (r *rig) bounces() []sandbox.Call {
	var all []sandbox.Call
	for _, c := range r.calls("") {
		if c.Subject == "Your mail could not be delivered" {
			all = append(all, c)
		}
	}
	return all
}

// One bounce names all recipients that failed, with the reason of each, and no others.
func TestOneBounceForAllThatFailed(t *testing.T) {
	inBubble(t, plan{}, func(r *rig) {
		id := r.keep(shop, "Order 4711", "suppressed@example.net", "bob@example.net", "invalid@example.net", "toolarge@example.net", "slow+5s@example.net")
		r.pass(time.Minute)
		r.wantStates(id, "failed sent failed failed sent")
		bounces := r.bounces()
		if len(bounces) != 1 {
			r.t.Fatalf("%d bounces, want 1", len(bounces))
		}
		text := textOf(t, bounces[0])
		if bounces[0].To != shop || bounces[0].From != "relay@sandbox.example" {
			t.Errorf("from %s to %s", bounces[0].From, bounces[0].To)
		}
		for _, want := range []string{
			"<suppressed@example.net>", "suppression list",
			"<invalid@example.net>", "to.email does not accept mail",
			"<toolarge@example.net>", "larger than the mail provider takes",
			"Subject: Order 4711", id,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("the bounce has no %q:\n%s", want, text)
			}
		}
		for _, not := range []string{"bob@example.net", "slow+5s@example.net", "It is on its way"} {
			if strings.Contains(text, not) {
				t.Errorf("the bounce has %q:\n%s", not, text)
			}
		}
		for _, rcpt := range r.mail(id).Recipients {
			if rcpt.Bounced != (rcpt.State == queue.Failed) {
				t.Errorf("%s: %s, bounced %v", rcpt.Addr, rcpt.State, rcpt.Bounced)
			}
		}
		r.pass(3 * time.Hour)
		if n := len(r.bounces()); n != 1 {
			t.Errorf("%d bounces in the end", n)
		}
	})
}

// The bounce of a mail that was too old says how often it was tried and what the last
// outcome was.
func TestTheBounceOfWhatBecameTooOld(t *testing.T) {
	inBubble(t, plan{schedule: hours(6)}, func(r *rig) {
		id := r.keep(shop, "patience", "unavailable@example.net")
		r.pass(6*time.Hour - time.Second)
		r.wantStates(id, "waiting")
		r.pass(6 * time.Minute) // it is alone, so the breaker is open: a probe at least every minute
		r.wantStates(id, "failed")
		rcpt := r.mail(id).Recipients[0]
		if age := rcpt.Ended.Sub(rcpt.Since); age < 6*time.Hour || age > 6*time.Hour+5*time.Minute {
			t.Errorf("it was given up after %s", age)
		}
		r.pass(6 * time.Minute) // the bounce is the next probe
		bounces := r.bounces()
		if len(bounces) != 1 {
			r.t.Fatalf("%d bounces, want 1", len(bounces))
		}
		want := fmt.Sprintf("tried %d times", len(r.calls("unavailable@example.net")))
		if text := textOf(t, bounces[0]); !strings.Contains(text, want) || !strings.Contains(text, "(503)") {
			t.Errorf("the bounce has no %q or no (503):\n%s", want, text)
		}
	})
}

// Who gets the bounce, if anybody.
func TestWhoIsTold(t *testing.T) {
	tests := []struct {
		name, from, postmaster, raw, to string
	}{
		{"the sender", "app@sandbox.example", "", "", "app@sandbox.example"},
		{"nobody, for the null sender", "", "postmaster@sandbox.example", "", ""},
		{"nobody, for an automatic answer", shop, "postmaster@sandbox.example", "From: shop@sandbox.example\r\nAuto-Submitted: auto-replied\r\nSubject: s\r\n\r\nb\r\n", ""},
		{"postmaster, for root", "root@localhost", "postmaster@sandbox.example", "", "postmaster@sandbox.example"},
		{"nobody, for root without a postmaster", "root@localhost", "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, plan{postmaster: tt.postmaster}, func(r *rig) {
				m := message(tt.from, "s", "suppressed@example.net")
				if tt.raw != "" {
					m.Raw = []byte(tt.raw)
				}
				r.must(r.engine.Keep(r.t.Context(), relay.Remainder{Message: m, Outcomes: untried(1)}))
				r.pass(time.Minute)
				r.wantStates(m.ID, "failed")
				if !r.mail(m.ID).Recipients[0].Bounced {
					t.Error("it is not settled who is told")
				}
				bounces := r.bounces()
				switch {
				case tt.to == "" && len(bounces) > 0:
					t.Errorf("%s is told", bounces[0].To)
				case tt.to == "" && r.log.count("nobody can be told") != 1:
					t.Error("the log does not say that nobody is told")
				case tt.to != "" && (len(bounces) != 1 || bounces[0].To != tt.to):
					t.Errorf("bounces %v, want one to %s", bounces, tt.to)
				}
			})
		})
	}
}

// A bounce that fails is never bounced.
func TestABounceDoesNotBounce(t *testing.T) {
	inBubble(t, plan{postmaster: "postmaster@sandbox.example"}, func(r *rig) {
		id := r.keep("suppressed@sandbox.example", "s", "invalid@example.net")
		r.pass(3 * time.Hour)
		if n := len(r.bounces()); n != 1 {
			t.Errorf("%d bounces, want the one that failed", n)
		}
		b := r.mail(queue.BounceID(id, []int{0}))
		if b.BounceOf != id || b.Recipients[0].State != queue.Failed || !b.Recipients[0].Bounced {
			t.Errorf("the bounce is of %q and stands at %+v", b.BounceOf, b.Recipients[0])
		}
	})
}

// The sender is told when no recipient of the mail is open any more, or when the grace
// is over. The sender is told of each recipient once.
func TestGrace(t *testing.T) {
	inBubble(t, plan{grace: time.Hour, schedule: hours(4)}, func(r *rig) {
		soon := r.keep(shop, "soon", "suppressed@example.net", "down+3@example.net")
		never := r.keep("app@sandbox.example", "never", "suppressed@example.net", "down@example.net", "invalid@example.net")
		r.pass(20 * time.Minute)
		r.wantStates(soon, "failed sent")
		r.wantStates(never, "failed waiting failed")
		if b := r.bounces(); len(b) != 1 || b[0].To != shop {
			t.Errorf("bounces after 20 min: %v, want one to %s", b, shop)
		}
		r.pass(42 * time.Minute)
		if b := r.bounces(); len(b) != 2 || b[1].To != "app@sandbox.example" {
			r.t.Fatalf("bounces after the grace: %v", b)
		}
		r.pass(4 * time.Hour)
		r.wantStates(never, "failed failed failed")
		b := r.bounces()
		if len(b) != 3 {
			r.t.Fatalf("%d bounces in the end, want 3", len(b))
		}
		if text := textOf(t, b[2]); strings.Contains(text, "invalid@") || !strings.Contains(text, "<down@example.net>") {
			t.Errorf("the last bounce tells again what was told, or not what is new:\n%s", text)
		}
	})
}

// BouncesPerHour counts for each address, whatever its case.
func TestBouncesPerHour(t *testing.T) {
	inBubble(t, plan{perHour: 3}, func(r *rig) {
		fail := func(from string, n int) {
			for range n {
				r.keep(from, "s", "suppressed@example.net")
				r.pass(time.Second)
			}
			r.pass(time.Minute)
		}
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour))) // a whole hour before us
		fail(shop, 5)
		fail("shop@SANDBOX.example", 5)
		fail("app@sandbox.example", 2)
		if n := len(r.bounces()); n != 5 {
			t.Errorf("%d bounces, want 3 and 2", n)
		}
		if n := r.log.count("too many failures"); n != 7 {
			t.Errorf("the log has %d lines of what is not told, want 7", n)
		}
		r.pass(time.Hour)
		fail(shop, 1)
		if n := len(r.bounces()); n != 6 {
			t.Errorf("%d bounces after an hour, want 6", n)
		}
	})
}

// badBounced is a queue whose Bounced fails, before or after it took effect.
type badBounced struct {
	queue.Queue
	fail  int
	after bool
}

func (q *badBounced) Bounced(ctx context.Context, id string, n []int, m *queue.Mail) error {
	if q.fail--; q.fail < 0 {
		return q.Queue.Bounced(ctx, id, n, m)
	}
	if q.after {
		if err := q.Queue.Bounced(ctx, id, n, m); err != nil {
			return err
		}
	}
	return errors.New("the disk is on fire")
}

// A crash between any two steps causes exactly one bounce.
func TestABounceIsMadeOnceWhateverFails(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("after=%v", after), func(t *testing.T) {
			bad := &badBounced{fail: 3, after: after}
			wrap := func(q queue.Queue) queue.Queue { bad.Queue = q; return bad }
			inBubble(t, plan{wrap: wrap, perHour: 2}, func(r *rig) { // a failure is no bounce
				id := r.keep(shop, "s", "suppressed@example.net", "invalid@example.net")
				r.pass(10 * time.Minute)
				r.restart()
				r.pass(10 * time.Minute)
				if n := len(r.bounces()); n != 1 {
					t.Errorf("%d bounces, want 1", n)
				}
				if rcpt := r.mail(id).Recipients; !rcpt[0].Bounced || !rcpt[1].Bounced {
					t.Errorf("not settled: %+v", rcpt)
				}
				bad.fail = 0
				again := queue.NewMail(*message("", "again", shop))
				// A process that does not know that the call was made makes it again.
				r.must(r.store.Bounced(r.t.Context(), id, []int{0, 1}, &again))
				r.pass(time.Minute)
				if n := len(r.calls(shop)); n != 1 {
					t.Errorf("%d mails to the sender, want 1", n)
				}
			})
		})
	}
}

// Bounces for mail that was given up before a restart are sent after it.
func TestABounceAfterARestart(t *testing.T) {
	bad := &badBounced{fail: 1 << 30}
	wrap := func(q queue.Queue) queue.Queue { bad.Queue = q; return bad }
	inBubble(t, plan{wrap: wrap}, func(r *rig) {
		r.keep(shop, "s", "suppressed@example.net")
		r.pass(time.Minute)
		if n := len(r.bounces()); n != 0 {
			r.t.Fatalf("%d bounces before", n)
		}
		bad.fail = 0
		r.restart()
		r.pass(time.Second)
		if n := len(r.bounces()); n != 1 {
			t.Errorf("%d bounces at the start, want 1", n)
		}
	})
}

// If an operator drops a recipient, the numbers of a mail's recipients have a gap. The
// bounce must still name those that failed.
func TestTheBounceOfAMailOfWhichSomeWasDropped(t *testing.T) {
	inBubble(t, plan{}, func(r *rig) {
		r.must(r.box.SetOutage(sandbox.OutageUnavailable))
		id := r.keep(shop, "Order 4711", "dropped@example.net", "bob@example.net", "invalid@example.net")
		r.pass(time.Second)
		n, err := r.store.Drop(context.Background(), queue.Filter{ID: id, Recipient: "dropped@example.net"})
		r.must(err)
		if n != 1 {
			t.Fatalf("dropped %d", n)
		}
		r.must(r.box.SetOutage(sandbox.OutageNone))
		r.pass(time.Hour)
		r.wantStates(id, "sent failed")
		bounces := r.bounces()
		if len(bounces) != 1 || !strings.Contains(textOf(t, bounces[0]), "<invalid@example.net>") {
			t.Errorf("bounces: %v", bounces)
		}
		stats, err := r.store.Stats(context.Background())
		r.must(err)
		if stats.Unbounced != 0 {
			t.Errorf("%d failures of which nobody was told", stats.Unbounced)
		}
	})
}
