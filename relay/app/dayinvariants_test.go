package app

import (
	"slices"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
)

// check holds all calls so far against what is promised. The sandbox saw them
// from the other side, so nothing that the relay believes is asked.
func (d *day) check() {
	d.t.Helper()
	calls := d.box.Calls()
	slices.SortStableFunc(calls, func(a, b sandbox.Call) int { return a.Time.Compare(b.Time) })
	d.checkRate(calls)
	d.checkGate(calls)
	byTo := map[string][]sandbox.Call{}
	for _, c := range calls {
		if c.To != "" {
			byTo[c.To] = append(byTo[c.To], c)
		}
	}
	d.checkCopies(byTo)
	d.checkOrder(byTo)
	d.checkKept()
}

func (d *day) at(t time.Time) time.Duration { return t.Sub(d.begin) }

// checkRate: no span of time has more calls than the rate times its length,
// and a burst. Each process begins with a burst of its own.
func (d *day) checkRate(calls []sandbox.Call) {
	tokens, last, life := 0.0, time.Time{}, -1
	for _, c := range calls {
		for life+1 < len(d.boots) && !d.boots[life+1].After(c.Time) {
			life++
			tokens, last = dayBurst, d.boots[life]
		}
		tokens = min(tokens+c.Time.Sub(last).Seconds()*dayRate, dayBurst) - 1
		last = c.Time
		if tokens < -1e-6 {
			d.t.Errorf("RATE: the call at %s was %.3f too many", d.at(c.Time), -tokens)
			return
		}
	}
}

// checkGate: from a 429's answer until its Retry-After has passed nobody begins
// a call, whatever became of the process.
func (d *day) checkGate(calls []sandbox.Call) {
	for i, c := range calls {
		if c.Status != 429 {
			continue
		}
		end := c.Time.Add(c.Took)
		if d.nobodyHeard(c) {
			continue
		}
		open := end.Add(d.retryAfter(c.Time))
		for _, later := range calls[i+1:] {
			if !later.Time.Before(open) {
				break
			}
			if later.Time.After(end) {
				d.t.Errorf("GATE: a call at %s; the 429 at %s closed it until %s", d.at(later.Time), d.at(end), d.at(open))
				return
			}
		}
	}
}

// retryAfter is what a 429 to a call of that time said at least: the storm's,
// or the second of the now and then.
func (d *day) retryAfter(at time.Time) time.Duration {
	for _, s := range d.storms {
		if !at.Before(s.from) && at.Before(s.until) {
			return s.after
		}
	}
	return time.Second
}

// nobodyHeard: the answer to a call can have been lost, because it came too
// late or because the process ended before.
func (d *day) nobodyHeard(c sandbox.Call) bool {
	if c.Status == 0 || c.Took >= dayTimeout {
		return true
	}
	for _, h := range d.halts {
		// A process that stops in order hears the answers of its last seconds.
		if !c.Time.After(h.until) && !c.Time.Add(c.Took).Before(h.from) {
			return true
		}
	}
	return false
}

// checkCopies: a mail is tried again after it was taken only if that could not
// be known, and every time with the same key.
func (d *day) checkCopies(byTo map[string][]sandbox.Call) {
	for to, calls := range byTo {
		for i, c := range calls {
			if c.Subject == "Your mail could not be delivered" {
				continue // many bounces go to one address
			}
			if c.IdempotencyKey == "" || c.IdempotencyKey != calls[0].IdempotencyKey {
				d.t.Errorf("KEY: %s was tried with %q and %q", to, calls[0].IdempotencyKey, c.IdempotencyKey)
			}
			if i+1 < len(calls) && c.MessageID != "" && !d.nobodyHeard(c) {
				d.t.Errorf("COPY: %s was taken at %s and tried again at %s", to, d.at(c.Time), d.at(calls[i+1].Time))
			}
		}
	}
}

// checkOrder: of one sender's queued mails that had no trouble of their own,
// none is overtaken while it could have been tried.
func (d *day) checkOrder(byTo map[string][]sandbox.Call) {
	type sent struct {
		l           *letter
		ready, went time.Time
	}
	lanes := map[string][]sent{}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.letters {
		if !l.kept() {
			continue
		}
		s := sent{l: l, ready: l.replied}
		clean := true
		for _, c := range byTo[l.to] {
			switch {
			case c.MessageID != "" && s.went.IsZero():
				s.went = c.Time
			case c.Status == 429 || c.Status == 401 && !d.nobodyHeard(c):
				s.ready = later(s.ready, c.Time.Add(c.Took))
			default:
				clean = false
			}
		}
		if clean && s.went.After(l.replied) { // it went from the queue
			lanes[l.from] = append(lanes[l.from], s)
		}
	}
	for from, all := range lanes {
		slices.SortStableFunc(all, func(a, b sent) int { return a.l.replied.Compare(b.l.replied) })
		for i, a := range all {
			for _, b := range all[i+1:] {
				if b.l.replied.After(a.l.replied) && b.went.Before(a.went) && b.went.After(a.ready) {
					d.t.Errorf("ORDER: of %s, %s went at %s, before %s, which was kept at %s, ready at %s and went at %s",
						from, b.l.to, d.at(b.went), a.l.to, d.at(a.l.replied), d.at(a.ready), d.at(a.went))
					return
				}
			}
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// checkKept: what was acknowledged is in the queue, or was taken.
func (d *day) checkKept() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ; d.looked < len(d.letters); d.looked++ {
		l := d.letters[d.looked]
		if !l.kept() || d.box.AcceptedFor(l.to) > 0 {
			continue
		}
		if _, err := d.now.kept.queue.Get(d.t.Context(), l.id()); err != nil {
			d.t.Errorf("LOST: %s, to whom the reply was %q, after %s: %v", l.to, l.reply, d.last, err)
		}
	}
}
