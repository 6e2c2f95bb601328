package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/retry"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// What an operator can do to a recipient whose call is under way.
func TestHoldAndDropDuringAnAttempt(t *testing.T) {
	hold := func(r *rig, f queue.Filter) (int, error) { return r.store.Hold(r.t.Context(), f) }
	drop := func(r *rig, f queue.Filter) (int, error) { return r.store.Drop(r.t.Context(), f) }
	tests := []struct {
		name, to string
		do       func(*rig, queue.Filter) (int, error)
		state    string // after the call; "" is gone
		released string // after Release
	}{
		{"held, and the call succeeds", "slow+5s@example.net", hold, "sent", "sent"},
		{"held, and the call fails", "timeout+1@example.net", hold, "held", "sent"},
		{"dropped, and the call succeeds", "slow+5s@example.net", drop, "", ""},
		{"dropped, and the call fails", "timeout+1@example.net", drop, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, plan{}, func(r *rig) {
				id := r.keep(shop, "s", tt.to)
				r.pass(time.Second)
				r.wantStates(id, "sending")
				filter := queue.Filter{ID: id}
				if n, err := tt.do(r, filter); n != 1 || err != nil {
					r.t.Fatalf("applied to %d, %v", n, err)
				}
				r.pass(time.Hour)
				if tt.state == "" {
					if _, err := r.store.Get(r.t.Context(), id); !errors.Is(err, queue.ErrNotFound) {
						t.Errorf("after the drop: %v", err)
					}
					if n := r.log.count("another claim has settled it"); n != 1 {
						t.Errorf("%d log lines tell of the stale settlement", n)
					}
				} else {
					r.wantStates(id, tt.state)
					if _, err := r.store.Release(r.t.Context(), filter); err != nil {
						r.t.Fatal(err)
					}
					r.pass(time.Hour)
					r.wantStates(id, tt.released)
				}
				if n := len(r.bounces()); n != 0 {
					t.Errorf("%d bounces", n)
				}
			})
		})
	}
}

// A stored body that was changed is not sent, and its sender is told.
func TestDamagedMailIsNotSent(t *testing.T) {
	inBubbleStopped(t, plan{}, func(r *rig) {
		m := message(shop, "large", "bob@example.net", "ann@example.net")
		m.Raw = append(m.Raw, strings.Repeat("A line of a large mail.\r\n", 50_000)...)
		r.must(r.engine.Keep(r.t.Context(), relay.Remainder{Message: m, Outcomes: untried(2)}))
		whole := r.keep(shop, "whole", "bob@example.net")
		files, err := filepath.Glob(filepath.Join(r.dir, "spool", "*"))
		if err != nil || len(files) != 1 {
			r.t.Fatalf("the spool has %v, %v", files, err)
		}
		raw, err := os.ReadFile(files[0])
		r.must(err)
		raw[len(raw)/2] ^= 1
		r.must(os.WriteFile(files[0], raw, 0o600))
		r.engine.Start()
		r.pass(time.Minute)
		r.wantStates(m.ID, "failed failed")
		r.wantStates(whole, "sent")
		if n := len(r.calls("ann@example.net")); n != 0 {
			t.Errorf("%d calls with damaged mail", n)
		}
		bounces := r.bounces()
		if len(bounces) != 1 {
			r.t.Fatalf("%d bounces, want 1", len(bounces))
		}
		text := textOf(t, bounces[0])
		for _, want := range []string{"<bob@example.net>", "<ann@example.net>"} {
			if !strings.Contains(text, want) {
				t.Errorf("the bounce has no %q:\n%s", want, text)
			}
		}
		if r.log.count("level=ERROR", m.ID, "damaged") == 0 {
			t.Error("the log does not tell of it")
		}
	})
}

const withAttachment = "From: shop@sandbox.example\r\nSubject: s\r\nMIME-Version: 1.0\r\n" +
	"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n" +
	"--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n\r\npdf\r\n--b--\r\n"

// Queued mail is mapped by the settings in force. What they refuse now fails for good
// and says so; what they allow now is sent.
func TestTheSettingsInForceDecide(t *testing.T) {
	mapping := mail.Options{Default: relay.Address{Email: "relay@sandbox.example"}, Domains: []string{"sandbox.example"}}
	for _, policy := range []mail.AttachmentPolicy{mail.RefuseAttachments, mail.StripAttachments} {
		mapping.Attachments = policy
		inBubble(t, plan{mapping: mapping}, func(r *rig) {
			m := message(shop, "s", "bob@example.net")
			m.Raw = []byte(withAttachment)
			r.must(r.engine.Keep(r.t.Context(), relay.Remainder{Message: m, Outcomes: untried(1)}))
			r.pass(time.Minute)
			if policy == mail.StripAttachments {
				r.wantStates(m.ID, "sent")
				return
			}
			r.wantStates(m.ID, "failed")
			if n := len(r.calls("bob@example.net")); n != 0 {
				t.Errorf("%d calls", n)
			}
			if b := r.bounces(); len(b) != 1 || !strings.Contains(textOf(t, b[0]), "attachment") {
				t.Errorf("the bounce does not tell why: %v", b)
			}
			if r.pace.State().InFlight != 0 {
				t.Error("the place of the call that was not made is not free")
			}
		})
	}
}

// faulty is a queue whose calls fail while fail says so.
type faulty struct {
	queue.Queue
	fail   atomic.Pointer[string] // the call that fails
	failed atomic.Int64
}

func (q *faulty) bad(call string) error {
	if f := q.fail.Load(); f != nil && *f == call {
		q.failed.Add(1)
		return errors.New("the disk is on fire")
	}
	return nil
}

func (q *faulty) set(call string) { q.fail.Store(&call) }

func (q *faulty) Settle(ctx context.Context, s ...queue.Settlement) error {
	if err := q.bad("Settle"); err != nil {
		return err
	}
	return q.Queue.Settle(ctx, s...)
}

func (q *faulty) Claim(ctx context.Context, c queue.ClaimRequest) ([]queue.Claim, error) {
	if err := q.bad("Claim"); err != nil {
		return nil, err
	}
	return q.Queue.Claim(ctx, c)
}

func (q *faulty) NextDue(ctx context.Context, r queue.ClaimRequest) (time.Time, bool, error) {
	if err := q.bad("NextDue"); err != nil {
		return time.Time{}, false, err
	}
	return q.Queue.NextDue(ctx, r)
}

func (q *faulty) Raw(ctx context.Context, id string) (io.ReadCloser, error) {
	if err := q.bad("Raw"); err != nil {
		return nil, err
	}
	return q.Queue.Raw(ctx, id)
}

func (q *faulty) BouncesDue(ctx context.Context, now time.Time, grace time.Duration, limit int) ([]queue.Bounce, error) {
	if err := q.bad("BouncesDue"); err != nil {
		return nil, err
	}
	return q.Queue.BouncesDue(ctx, now, grace, limit)
}

// A storage that fails for a while costs no mail, no attempt and no second copy. It is
// not asked in a hot loop, and the failure is logged.
func TestAStorageThatFailsForAWhile(t *testing.T) {
	tests := []struct {
		call  string
		mails int // more than there are workers, or fewer
	}{{"NextDue", 10}, {"Claim", 10}, {"Raw", 10}, {"Settle", 10}, {"Settle", 2}}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s of %d", tt.call, tt.mails), func(t *testing.T) {
			bad := &faulty{}
			inBubbleStopped(t, plan{wrap: func(q queue.Queue) queue.Queue { bad.Queue = q; return bad }}, func(r *rig) {
				var ids []string
				for range tt.mails {
					ids = append(ids, r.keep(shop, "s", "bob@example.net"))
				}
				bad.set(tt.call)
				r.engine.Start()
				r.pass(10 * time.Minute)
				if n := bad.failed.Load(); n < 2 || n > 10*2*60 {
					t.Errorf("the storage was asked %d times in ten minutes", n)
				}
				if r.log.count("level=ERROR", "the disk is on fire") == 0 {
					t.Error("the log does not tell of it")
				}
				// The mail's own record reports a body that cannot be read.
				if since, err := r.engine.Trouble(); (err == nil) != (tt.call == "Raw") || err != nil && time.Since(since).Round(time.Second) != 10*time.Minute {
					t.Errorf("trouble since %s: %v", since, err)
				}
				bad.set("")
				r.pass(10 * time.Minute)
				if since, err := r.engine.Trouble(); err != nil {
					t.Errorf("trouble since %s when all is well: %v", since, err)
				}
				for _, id := range ids {
					r.wantStates(id, "sent")
					if n := r.mail(id).Recipients[0].Attempts; n != 1 {
						t.Errorf("%d attempts, want 1", n)
					}
				}
				if s := r.box.Stats(); s.Accepted != tt.mails || s.Calls != tt.mails {
					t.Errorf("%d calls, %d accepted, want %d", s.Calls, s.Accepted, tt.mails)
				}
			})
		})
	}
}

// A bounce that cannot be written now is written when it can be.
func TestBouncesOutliveAStorageThatFails(t *testing.T) {
	bad := &faulty{}
	bad.set("BouncesDue")
	inBubble(t, plan{wrap: func(q queue.Queue) queue.Queue { bad.Queue = q; return bad }}, func(r *rig) {
		r.keep(shop, "s", "suppressed@example.net")
		r.pass(time.Hour)
		if n := bad.failed.Load(); n < 30 || n > 120 {
			t.Errorf("asked %d times in an hour", n)
		}
		bad.set("")
		r.pass(2 * time.Minute)
		if n := len(r.bounces()); n != 1 {
			t.Errorf("%d bounces, want 1", n)
		}
	})
}

// If the mapping panics at a mail, that affects this mail only. It is tried later and
// later, and its sender is told in the end.
func TestAMappingThatPanics(t *testing.T) {
	inBubbleStopped(t, plan{schedule: hours(6)}, func(r *rig) {
		encode := r.engine.bodies.encode
		r.engine.bodies.encode = func(raw []byte, m *relay.Message, o provider.Mapping) (provider.Body, error) {
			if strings.Contains(string(raw), "\r\nSubject: poison") {
				panic("index out of range")
			}
			return encode(raw, m, o)
		}
		poison := r.keep(shop, "poison", "bob@example.net", "ann@example.net")
		good := r.keep(shop, "good", "bob@example.net")
		r.engine.Start()
		r.pass(time.Minute)
		r.wantStates(good, "sent")
		r.wantStates(poison, "waiting waiting")
		if r.log.count("level=ERROR", poison, "index out of range") == 0 {
			t.Error("the log does not tell of the panic")
		}
		r.pass(7 * time.Hour)
		r.wantStates(poison, "failed failed")
		if n := r.mail(poison).Recipients[0].Attempts; n < 5 || n > 50 {
			t.Errorf("given up after %d attempts", n)
		}
		bounces := r.bounces()
		if len(bounces) != 1 || !strings.Contains(textOf(t, bounces[0]), "cannot read the mail") {
			t.Errorf("bounces: %v", bounces)
		}
		if n := r.pace.State().InFlight; n != 0 {
			t.Errorf("%d places are not free", n)
		}
	})
}

// The idempotency key is the same for every attempt, across restarts, and different
// for each recipient.
func TestTheIdempotencyKeyStays(t *testing.T) {
	inBubble(t, plan{}, func(r *rig) {
		id := r.keep(shop, "s", "lost+2@example.net", "lost+2@example.org")
		r.pass(time.Second)
		r.restart()
		r.pass(time.Hour)
		r.wantStates(id, "sent sent")
		keys := map[string]map[string]int{}
		for _, c := range r.calls("") {
			if keys[c.To] == nil {
				keys[c.To] = map[string]int{}
			}
			keys[c.To][c.IdempotencyKey]++
		}
		seen := map[string]bool{}
		for to, k := range keys {
			if len(k) != 1 {
				t.Errorf("%s was tried with the keys %v", to, k)
			}
			for one, n := range k {
				if seen[one] || n != 3 {
					t.Errorf("%s: key %q, %d calls", to, one, n)
				}
				seen[one] = true
			}
		}
	})
}

// Sent mail is removed from the list after KeepSent.
func TestPurge(t *testing.T) {
	inBubble(t, plan{keepSent: time.Hour}, func(r *rig) {
		sent := r.keep(shop, "s", "bob@example.net")
		failed := r.keep("", "s", "suppressed@example.net")
		r.pass(50 * time.Minute)
		r.wantStates(sent, "sent")
		r.pass(21 * time.Minute)
		if _, err := r.store.Get(r.t.Context(), sent); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("after its time: %v", err)
		}
		r.wantStates(failed, "failed")
	})
}

// Failed mail is removed after KeepFailed, in steps, and a line says how many there were.
func TestPurgeFailed(t *testing.T) {
	inBubble(t, plan{keepFailed: time.Hour}, func(r *rig) {
		var failed []string
		for range failedStep + 20 {
			failed = append(failed, r.keep("", "s", "suppressed@example.net"))
		}
		r.pass(50 * time.Minute)
		late := r.keep("", "s", "suppressed@example.net")
		r.pass(21 * time.Minute)
		for _, id := range failed {
			if _, err := r.store.Get(r.t.Context(), id); !errors.Is(err, queue.ErrNotFound) {
				t.Fatalf("after its time: %v", err)
			}
		}
		r.wantStates(late, "failed")
		if n := r.log.count(fmt.Sprintf(`"removed mail that failed long ago" mails=%d kept_for=1h0m0s`, len(failed))); n != 1 {
			t.Errorf("%d lines", n)
		}
	})
}

// The next attempt is made when it is due, even if nothing else happens in the queue.
func TestTheNextTryIsWhenItIsDue(t *testing.T) {
	tests := []struct {
		name, to string
		gaps     []time.Duration // at least, and about twice as much at most
	}{
		{"after failures", "down+3@example.net", []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}},
		{"after 429s", "ratelimited+3x2@example.net", []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second}},
		{"after a refused key", "forbidden+2@example.net", []time.Duration{2 * time.Second, 4 * time.Second}},
		{"after no answer", "timeout+1@example.net", []time.Duration{apiTimeout + time.Second}},
	}
	schedule := retry.Schedule{First: 2 * time.Second, Max: time.Minute, MaxAge: time.Hour}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, plan{schedule: schedule, rate: 100}, func(r *rig) {
				id := r.keep(shop, "s", tt.to)
				r.pass(30 * time.Minute)
				r.wantStates(id, "sent")
				got := gaps(r.calls(""))
				if len(got) != len(tt.gaps) {
					r.t.Fatalf("the gaps are %v, want about %v", got, tt.gaps)
				}
				for i, want := range tt.gaps {
					if got[i] < want || got[i] > want*2+time.Second {
						t.Errorf("the gaps are %v, want about %v", got, tt.gaps)
						break
					}
				}
			})
		})
	}
}

// If an address is found to be suppressed while its mail waits, it is not called for
// any more. The sender is told, and the others get the mail.
func TestSuppressedWhileItWaited(t *testing.T) {
	inBubbleStopped(t, plan{}, func(r *rig) {
		id := r.keep(shop, "s", "Gone@Example.net", "bob@example.net")
		r.suppressed.Learn("gone@example.net", suppress.HardBounce, "", time.Now())
		r.engine.Start()
		r.pass(2 * time.Minute)
		r.wantStates(id, "failed sent")
		if n := len(r.calls("Gone@Example.net")); n != 0 {
			t.Errorf("%d calls for it", n)
		}
		if n := len(r.bounces()); n != 1 {
			t.Errorf("%d bounces", n)
		}
		if r.log.count("outcome=suppressed", "untried=true") != 1 {
			t.Error("the log does not say so")
		}
	})
}

// A recipient that was suppressed while the client waited has failed, and the API is
// not asked again.
func TestSuppressedBeforeItIsKept(t *testing.T) {
	inBubbleStopped(t, plan{}, func(r *rig) {
		m := message(shop, "s", "gone@example.net", "bob@example.net")
		r.must(r.engine.Keep(r.t.Context(), relay.Remainder{Message: m, Domain: "sandbox.example", Outcomes: []relay.Outcome{
			{Kind: relay.Suppressed, Untried: true}, {Kind: relay.RateLimited, Untried: true},
		}}))
		r.wantStates(m.ID, "failed waiting")
	})
}
