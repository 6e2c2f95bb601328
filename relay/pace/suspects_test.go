package pace

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

var forbid = relay.Outcome{Kind: relay.Unauthorized, Status: 403}

// callFor makes a call for a mail when the breaker lets it pass.
func callFor(t *testing.T, p *Pacer, mail, sender string, out relay.Outcome) {
	t.Helper()
	if b := p.State().Breaker; b.Open {
		time.Sleep(time.Until(b.ProbeAt))
	}
	pass, err := p.Enter(t.Context())
	if err != nil {
		t.Fatalf("Enter: %v", err)
	}
	pass.For(mail, sender)
	pass.Leave(out)
}

// If a mail failed while others got through, its next failure says nothing about the
// API. If all failed, it does.
func TestAMailThatFailsAlone(t *testing.T) {
	for _, bad := range []relay.Outcome{broken, down, ambiguous, forbid} {
		synctest.Test(t, func(t *testing.T) {
			p := newPacer(Options{Settings: Settings{Concurrency: 1}, Failures: 1})
			callFor(t, p, "bad", "a@x", bad)
			if !p.State().Breaker.Open || !slices.Equal(p.Suspects(), []string{"bad"}) || p.FailsAlone("bad") {
				t.Fatalf("%+v: suspects %v", p.State().Breaker, p.Suspects())
			}
			callFor(t, p, "good", "b@x", accepted)
			if p.State().Breaker.Open || len(p.Suspects()) > 0 || !p.FailsAlone("bad") {
				t.Fatalf("%+v: suspects %v", p.State().Breaker, p.Suspects())
			}
			for range 10 {
				callFor(t, p, "bad", "a@x", bad)
			}
			if p.State().Breaker.Open {
				t.Fatal("a mail that fails alone opened the breaker")
			}
			callFor(t, p, "bad", "a@x", accepted)
			callFor(t, p, "bad", "c@x", bad)
			if !p.State().Breaker.Open {
				t.Error("a mail that got through is suspect for ever")
			}
		})
	}
}

// After a 403 new mail does not wait until the mail that was refused has been tried
// again and again: the next probe is made with it soon. With a key that may send
// nothing the probes grow rarer all the same.
func TestNewMailAfterA403(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Concurrency: 1}, Failures: 5})
		callFor(t, p, "bad", "a@x", forbid)
		for range 6 {
			callFor(t, p, "bad", "a@x", forbid)
		}
		if wait := time.Until(p.State().Breaker.ProbeAt); wait != maxGap {
			t.Fatal(wait)
		}
		for i, want := range []time.Duration{firstGap, 2 * firstGap, 4 * firstGap, 8 * firstGap} {
			if down := p.Down(); down == nil || down.Wait != want {
				t.Fatalf("with %d refused: %+v, want %s", i+1, down, want)
			}
			callFor(t, p, fmt.Sprint("new", i), "a@x", forbid)
		}
		time.Sleep(maxGap)
		if down := p.Down(); down.Wait != minPause { // it is due, and not overdue
			t.Errorf("%+v", down)
		}
		callFor(t, p, "good", "a@x", accepted)
		if got := p.Forbidden(); p.Down() != nil || !slices.Equal(got, []string{"bad", "new0", "new1", "new2", "new3"}) {
			t.Errorf("%v", got)
		}
		callFor(t, p, "bad", "a@x", accepted)
		if got := p.Forbidden(); !slices.Equal(got, []string{"new0", "new1", "new2", "new3"}) {
			t.Errorf("%v", got)
		}

		callFor(t, p, "x", "a@x", wrongKey)
		for range 6 {
			callFor(t, p, "x", "a@x", wrongKey)
		}
		if down := p.Down(); down == nil || down.Wait != maxGap {
			t.Errorf("a 401 is about the key: %+v", down)
		}
	})
}

// A 401 is about the key. No mail is suspected for it.
func TestARefusedKeyIsNoMailsFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Concurrency: 1}})
		for range 3 {
			callFor(t, p, "mail", "a@x", wrongKey)
		}
		callFor(t, p, "other", "a@x", accepted)
		if len(p.Suspects()) > 0 || p.FailsAlone("mail") {
			t.Errorf("suspects %v", p.Suspects())
		}
		callFor(t, p, "mail", "a@x", wrongKey)
		if !p.State().Breaker.Open {
			t.Error("a refused key did not open the breaker")
		}
	})
}

// One 403 opens the breaker. If it was found to be about one sender, that sender's
// next ones count like any failure, and nobody else's do.
func TestASenderThatIsForbidden(t *testing.T) {
	tests := []struct {
		name   string
		sender string
		calls  int
		open   bool
	}{
		{"its next mail", "a@x", 1, false},
		{"its next mails, in a row", "a@x", 4, false},
		{"as many as of any failure", "a@x", 5, true},
		{"another's mail", "b@x", 1, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPacer(Options{Settings: Settings{Concurrency: 1}, Failures: 5})
				callFor(t, p, "m", "a@x", forbid)
				callFor(t, p, "good", "b@x", accepted)
				for i := range tt.calls {
					if p.State().Breaker.Open {
						t.Fatalf("open after %d", i)
					}
					callFor(t, p, fmt.Sprint(i), tt.sender, forbid)
				}
				if got := p.State().Breaker.Open; got != tt.open {
					t.Errorf("open: %v", got)
				}
			})
		})
	}
}

// An application that writes as a new sender each time, and is always forbidden, does
// not open the breaker with each mail once that is known of some.
func TestManySendersThatAreForbidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Concurrency: 1}, Failures: 5})
		opened := 0
		for i := range 100 {
			callFor(t, p, fmt.Sprint("bad", i), fmt.Sprint(i, "@x"), forbid)
			if p.State().Breaker.Open {
				opened++
			}
			callFor(t, p, fmt.Sprint("good", i), "good@x", accepted)
		}
		if opened != manyForbidden {
			t.Errorf("opened %d times", opened)
		}
		for i := range 5 {
			callFor(t, p, fmt.Sprint("last", i), fmt.Sprint("last", i, "@x"), forbid)
		}
		if !p.State().Breaker.Open {
			t.Error("a key that is refused by 403 does not open it any more")
		}
	})
}

// People can read why and since when mail waits now. That may be another reason than
// the one for which the breaker opened.
func TestTheReasonOfNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Concurrency: 1}, Failures: 1})
		opened := time.Now()
		since := opened
		for i, tt := range []struct {
			out  relay.Outcome
			want Why
		}{{broken, Down}, {down, Down}, {wrongKey, KeyBad}, {wrongKey, KeyBad}, {forbid, Forbidden}, {broken, Down}} {
			if i == 2 || i > 3 {
				since = time.Now()
			}
			callFor(t, p, fmt.Sprint(i), "a@x", tt.out)
			b := p.State().Breaker
			if !b.Open || b.Why != tt.want || !b.Since.Equal(since) || !b.Opened.Equal(opened) || b.Last.Status != tt.out.Status {
				t.Errorf("after call %d: %+v, want %s since %s", i, b, tt.want, since)
			}
			time.Sleep(time.Minute)
		}
	})
}

// If a probe with a suspect gets through, the API was the cause.
func TestASuspectThatIsCleared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Concurrency: 1}, Failures: 1})
		callFor(t, p, "m", "a@x", broken)
		callFor(t, p, "m", "a@x", accepted)
		if p.State().Breaker.Open || p.FailsAlone("m") {
			t.Errorf("%+v, alone: %v", p.State().Breaker, p.FailsAlone("m"))
		}
	})
}

// A week's outage, with many probes, costs a bounded list.
func TestSuspectsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(Options{Settings: Settings{Concurrency: 1}, Failures: 1})
		for round := range 3 {
			for i := range 2 * maxSuspects {
				callFor(t, p, fmt.Sprint(round, i), fmt.Sprint(i), forbid)
			}
			ids := p.Suspects()
			if last := fmt.Sprint(round, 2*maxSuspects-1); len(ids) != maxSuspects || ids[len(ids)-1] != last {
				t.Fatalf("%d suspects, the last is %s", len(ids), ids[len(ids)-1])
			}
			callFor(t, p, "good", "a@x", accepted)
		}
		if n, m := p.suspects.alone.Len(), p.suspects.senders.Len(); n > maxSuspects || m > maxSuspects {
			t.Errorf("%d mails, %d senders", n, m)
		}
	})
}
