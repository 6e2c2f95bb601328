package app

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

var daySeed = flag.Uint64("day.seed", 1, "of the day of trouble")

const (
	dayRate    = 5.0 // calls a second, as configured
	dayBurst   = 10
	dayTimeout = 10 * time.Second // of a call
)

// A whole day of trouble: every way the API can fail, a key that is rotated,
// restarts and kills, with mail coming in all the time. After every change the
// sandbox's record of all calls is held against what is promised (see
// dayinvariants_test.go); in the end the fate of every mail is.
//
//	go test ./relay/app -run TestADayOfTrouble -v -day.seed=7
func TestADayOfTrouble(t *testing.T) {
	inVirtualTime(t, fmt.Sprintf(`
[api]
rate = %v
burst = %d
timeout = "%s"
concurrency = 16
[delivery]
max_age = "6h"
[bounce]
grace = "30m"
per_hour = 0
`, dayRate, dayBurst, dayTimeout), func(w *world) {
		d := &day{world: w, begin: time.Now(), dice: rand.New(rand.NewPCG(*daySeed, 0))}
		var senders sync.WaitGroup
		d.senders(&senders)
		for _, e := range d.plan() {
			w.pass(time.Until(d.begin.Add(e.at)))
			e.do()
			d.last = e.name
			d.check()
			if t.Failed() {
				t.Logf("seed %d: this was found %s into the day, at %q", *daySeed, e.at, e.name)
				break
			}
		}
		senders.Wait()
		if w.now == nil {
			w.boot()
		}
		w.must(w.box.SetFaults(sandbox.Faults{Key: "planted-key"}))
		w.pass(8 * time.Hour) // for what has to become too old
		d.check()
		d.fates()
	})
}

// day is one run.
type day struct {
	*world
	begin time.Time
	dice  *rand.Rand // of the plan
	last  string     // event

	storms []storm
	halts  []halt
	cut    int // calls that were under way when a process ended
	looked int // letters that checkKept saw

	mu      sync.Mutex
	letters []*letter
}

// storm is a time in which a 429 says so long.
type storm struct {
	from, until time.Time
	after       time.Duration
}

// halt is a time without a process.
type halt struct{ from, until time.Time }

// letter is one mail. Its recipient is nobody else's.
type letter struct {
	from, to string
	reply    string // "" while there is none
	replied  time.Time
}

func (l *letter) kept() bool { return strings.HasPrefix(l.reply, "250 ") }

// id is the queue id that the reply names.
func (l *letter) id() string {
	f := strings.Fields(l.reply)
	return f[3]
}

// event is something that happens at a time of the day.
type event struct {
	at   time.Duration
	name string
	do   func()
}

// senders sends through the day: each sender at a rate of its own, and one in
// bulk now and then.
func (d *day) senders(wg *sync.WaitGroup) {
	seldom := float64(harness.Scaled(3, 1))
	for i, mean := range []time.Duration{time.Minute, 3 * time.Minute, 6 * time.Minute, 15 * time.Minute, 4 * time.Hour} {
		from := fmt.Sprintf("sender%d@sandbox.example", i)
		dice := rand.New(rand.NewPCG(*daySeed, uint64(i+1)))
		wg.Go(func() {
			for n := 0; time.Since(d.begin) < 24*time.Hour; {
				time.Sleep(time.Duration(dice.ExpFloat64() * float64(mean) * seldom))
				bulk := 1
				if mean > time.Hour {
					bulk = 100
				}
				for range bulk {
					n++
					to := recipient(dice, fmt.Sprintf("s%dm%d", i, n))
					wg.Go(func() { d.send(from, to) })
				}
			}
		})
	}
}

// recipient is one that nobody else is; a few can never be reached.
func recipient(dice *rand.Rand, unique string) string {
	switch x := dice.Float64(); {
	case x < 0.01:
		return "suppressed+" + unique + "@example.net"
	case x < 0.02:
		return "invalid+" + unique + "@example.net"
	case x < 0.025:
		return "down+" + unique + "@example.net"
	}
	return unique + "@example.net"
}

func (d *day) send(from, to string) {
	l := &letter{from: from, to: to}
	reply := d.hand(from, "for "+to, to)
	d.mu.Lock()
	defer d.mu.Unlock()
	l.reply, l.replied = reply, time.Now()
	d.letters = append(d.letters, l)
}

// plan is the day's events in their order.
func (d *day) plan() []event {
	var events []event
	var troubles []event
	var calms, storms []time.Duration
	rotated := false
	for at := time.Duration(0); at < 24*time.Hour; {
		at += minutes(d.dice, 10, 30)
		if !rotated && at > 8*time.Hour {
			rotated = true
			events = append(events,
				event{at, "the key is rotated", func() { d.must(d.box.SetKey("rotated")) }},
				event{at + 2*time.Hour, "the key works again", func() { d.must(d.box.SetKey("planted-key")) }})
			at += 2 * time.Hour
			continue
		}
		if len(troubles) == 0 {
			troubles = d.troubles()
			d.dice.Shuffle(len(troubles), func(i, j int) { troubles[i], troubles[j] = troubles[j], troubles[i] })
		}
		trouble := troubles[0]
		troubles = troubles[1:]
		trouble.at = at
		at += minutes(d.dice, 1, 30)
		events = append(events, trouble, event{at, "calm after " + trouble.name, d.calm})
		calms = append(calms, at)
		if strings.HasPrefix(trouble.name, "429") {
			storms = append(storms, trouble.at)
		}
	}
	for i := range 12 {
		at := time.Duration(d.dice.Float64() * float64(24*time.Hour))
		switch i % 4 {
		case 0, 1: // in the midst of some trouble
			at = events[d.dice.IntN(len(events))].at + minutes(d.dice, 0, 2)
		case 2: // while the gate is closed
			at = storms[i/4%len(storms)] + minutes(d.dice, 1, 3)
		}
		down := time.Duration(d.dice.IntN(60)) * time.Second
		name := []string{"stop", "stop at once", "kill"}[i%3]
		events = append(events, event{at, name, func() { d.halt(name, down) }})
	}
	for i := range 4 {
		name := []string{"stop at once", "kill"}[i%2]
		at := calms[d.dice.IntN(len(calms))] + 6*time.Minute // an open breaker is probed at least every minute
		events = append(events, event{at, name + " in the midst of calls", func() { d.haltInCalls(name, i) }})
	}
	for i := range 24 {
		events = append(events, event{time.Duration(i) * time.Hour, "a look", func() {}})
	}
	slices.SortStableFunc(events, func(a, b event) int { return int(a.at - b.at) })
	return events
}

func minutes(dice *rand.Rand, from, to int) time.Duration {
	return time.Duration(from*60+dice.IntN((to-from)*60)) * time.Second
}

// troubles is each kind once.
func (d *day) troubles() []event {
	faults := func(name string, f sandbox.Faults) event {
		f.Key = "planted-key"
		return event{name: name, do: func() { d.must(d.box.SetFaults(f)) }}
	}
	storm := func(name string, date bool) event {
		seconds := 5 + d.dice.IntN(300)
		e := faults(name, sandbox.Faults{Outage: sandbox.Outage(fmt.Sprintf("ratelimited+0x%d", seconds)), RetryAfterDate: date})
		set := e.do
		e.do = func() { set(); d.storm(time.Duration(seconds) * time.Second) }
		return e
	}
	list := []event{
		storm("429 with seconds", false), storm("429 with a date", true),
		faults("slow", sandbox.Faults{Latency: time.Duration(1+d.dice.IntN(8)) * time.Second}),
		faults("slower than the time-out", sandbox.Faults{Latency: 12 * time.Second}),
		faults("now and then", sandbox.Faults{Fail429: 0.05, Fail500: 0.1}),
		faults("now and then, slowly", sandbox.Faults{Fail429: 0.05, Fail500: 0.1, Latency: 3 * time.Second}),
	}
	for _, o := range []sandbox.Outage{
		sandbox.OutageError, sandbox.OutageUnavailable, sandbox.OutageHang, sandbox.OutageReset, sandbox.OutageLost,
		sandbox.OutageGarbage, sandbox.OutageNoID, sandbox.OutageRedirect, "forbidden",
	} {
		list = append(list, faults(string(o), sandbox.Faults{Outage: o}))
	}
	return list
}

func (d *day) storm(after time.Duration) {
	d.storms = append(d.storms, storm{from: time.Now(), until: time.Now().Add(1000 * time.Hour), after: after})
}

func (d *day) calm() {
	d.must(d.box.SetFaults(sandbox.Faults{Key: "planted-key"}))
	if n := len(d.storms); n > 0 && d.storms[n-1].until.After(time.Now()) {
		d.storms[n-1].until = time.Now()
	}
}

// halt ends the process in one of three ways and begins the next one.
func (d *day) halt(how string, down time.Duration) {
	from := time.Now()
	switch how {
	case "stop":
		d.stop(30 * time.Second)
	case "stop at once":
		d.stop(0)
	default:
		d.kill()
	}
	time.Sleep(down)
	d.halts = append(d.halts, halt{from, time.Now()})
	d.boot()
}

// haltInCalls ends the process while clients wait and queued mail is tried.
func (d *day) haltInCalls(how string, i int) {
	d.must(d.box.SetFaults(sandbox.Faults{Key: "planted-key", Latency: 5 * time.Second}))
	var clients sync.WaitGroup
	for n := range 60 {
		to := fmt.Sprintf("h%dm%d@example.net", i, n)
		clients.Go(func() { d.send("sender5@sandbox.example", to) })
	}
	d.pass(8 * time.Second)
	d.cut += d.box.Stats().InFlight
	d.halt(how, time.Second)
	clients.Wait()
	d.calm()
}

// fates holds what became of every mail against its reply.
func (d *day) fates() {
	var tally struct{ accepted, queued, sent, failed, refused, unanswered, notTaken int }
	bounced := d.bounced()
	for _, l := range d.letters {
		switch {
		case l.reply == "":
			tally.unanswered++
		case strings.HasPrefix(l.reply, "5"):
			tally.refused++
			if n := d.box.AcceptedFor(l.to); n > 0 {
				d.t.Errorf("%s was refused with %q and sent %d times", l.to, l.reply, n)
			}
		case !l.kept():
			tally.notTaken++
		case strings.HasPrefix(l.reply, "250 2.0.0 accepted"):
			tally.accepted++
			if d.box.AcceptedFor(l.to) == 0 {
				d.t.Errorf("LOST: %s, to whom the reply was %q", l.to, l.reply)
			}
		default:
			tally.queued++
			if d.fate(l, bounced) == queue.Sent {
				tally.sent++
			} else {
				tally.failed++
			}
		}
	}
	s := d.box.Stats()
	d.t.Logf("seed %d: %d mails: %d accepted at once, %d queued (%d sent, %d failed and bounced), %d refused, %d not taken, %d without a reply",
		*daySeed, len(d.letters), tally.accepted, tally.queued, tally.sent, tally.failed, tally.refused, tally.notTaken, tally.unanswered)
	d.t.Logf("%d calls, answered %v; %d accepted, %d of them for a second time; %d lives of the daemon, %d calls cut off",
		s.Calls, s.ByStatus, s.Accepted, s.Accepted-s.Keys, len(d.boots), d.cut)
	if d.cut == 0 || tally.queued < 300 || tally.failed < 3 || tally.accepted < 300 || s.Duplicates == 0 || s.KeyConflicts != 0 || s.WithoutKey != 0 {
		d.t.Errorf("the day was no trouble: %+v, %+v", tally, s)
	}
}

// fate holds one queued mail against what is promised of it.
func (d *day) fate(l *letter, bounced map[string]int) queue.State {
	m, err := d.now.kept.queue.Get(context.Background(), l.id())
	if err != nil {
		d.t.Errorf("LOST: %s, to whom the reply was %q: %v", l.to, l.reply, err)
		return queue.Failed
	}
	r := m.Recipients[0]
	switch sent := d.box.AcceptedFor(l.to); {
	case r.State == queue.Sent && sent == 0:
		d.t.Errorf("LOST: %s is said to be sent", l.to)
	case r.State == queue.Failed && !strings.Contains(l.to, "+"):
		last, _ := r.Last()
		d.t.Errorf("%s was given up after %d attempts: %+v", l.to, r.Attempts, last)
	case r.State == queue.Failed && (!r.Bounced || bounced[l.id()] != 1):
		d.t.Errorf("%s failed and its sender was told %d times", l.to, bounced[l.id()])
	case r.State.Open():
		d.t.Errorf("%s is still %s, due %s", l.to, r.State, r.Due)
	}
	return r.State
}

// bounced counts the bounces that were sent, each once, by the id they name.
func (d *day) bounced() map[string]int {
	counts, seen := map[string]int{}, map[string]bool{}
	for _, c := range d.box.Calls() {
		if c.MessageID == "" || c.Subject != "Your mail could not be delivered" || seen[c.IdempotencyKey] {
			continue
		}
		seen[c.IdempotencyKey] = true
		_, after, _ := strings.Cut(string(c.Body), "Its id here is ")
		id, _, _ := strings.Cut(after, ".")
		counts[id]++
	}
	return counts
}
