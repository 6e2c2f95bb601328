package pace

import "time"

// The tuner's numbers. A cut to nine tenths of what was measured, a quick way
// back to just below it, a rest, and then small steps upward that grow as long
// as they succeed: most of the time is spent close to the account's rate, and
// a rate that was raised is found in minutes.
const (
	lowestRate   = 0.1  // calls per second
	highestRate  = 2000 // above it no bucket is needed
	slowStart    = 10   // calls per second when nothing is known
	cut          = 0.9
	deepCut      = 0.7 // when the last one was not enough
	again        = 10 * time.Second
	nearCeiling  = 0.98
	restAtTop    = 30 * time.Second
	firstStep    = 0.01
	largestStep  = 1.0
	betweenSteps = 10 * time.Second
	window       = 5 * time.Second
)

// tuner finds the account's rate from its answers. The Pacer's mutex guards it.
type tuner struct {
	rate    float64 // calls per second; 0: none is needed so far
	ceiling float64 // what was measured when the last 429 came; 0: none came
	step    float64 // growth at the next step
	next    time.Time
	lastCut time.Time

	begun    time.Time // of the current measurement
	answers  int       // in it
	measured float64   // in the one before
}

// answered counts a call that the account allowed, and goes up when all of the
// rate is used and it is time.
func (t *tuner) answered(now time.Time, saturated bool) {
	if t.begun.IsZero() {
		t.begun = now
	}
	t.answers++
	if elapsed := now.Sub(t.begun); elapsed >= window {
		t.measured = float64(t.answers) / elapsed.Seconds()
		t.begun, t.answers = now, 0
	}
	if t.rate == 0 || !saturated || now.Before(t.next) {
		return
	}
	t.grow(now)
}

func (t *tuner) grow(now time.Time) {
	top := t.ceiling * nearCeiling
	switch {
	case t.ceiling > 0 && t.rate < top:
		t.rate = min(t.rate*1.03, top)
		t.next = now.Add(time.Second)
		if t.rate == top {
			t.next = now.Add(restAtTop)
		}
	default:
		t.rate *= 1 + t.step
		t.step = min(t.step*2, largestStep)
		t.next = now.Add(betweenSteps)
		if t.ceiling == 0 {
			t.next = now.Add(time.Second) // nothing is known yet: find it fast
		}
	}
	if t.rate > highestRate {
		t.rate = 0
	}
}

// limited learns from a 429 what the account allows. What was answered lately
// says so only while all of the rate was used; otherwise somebody else used
// the account as well, and the rate is only cut.
func (t *tuner) limited(now time.Time, saturated bool) {
	factor := cut
	if !t.lastCut.IsZero() && now.Sub(t.lastCut) < again {
		factor = deepCut
	}
	switch {
	case t.rate == 0:
		t.ceiling = max(t.throughput(now), slowStart)
	case saturated:
		t.ceiling = min(t.throughput(now), t.rate)
	default:
		t.ceiling = t.rate
	}
	t.ceiling = max(t.ceiling, lowestRate)
	t.rate = max(t.ceiling*factor, lowestRate)
	t.step, t.lastCut, t.next = firstStep, now, now.Add(time.Second)
	t.begun, t.answers, t.measured = time.Time{}, 0, 0
}

// throughput is how many calls a second the account allowed lately.
func (t *tuner) throughput(now time.Time) float64 {
	elapsed := now.Sub(t.begun)
	switch {
	case t.begun.IsZero():
		return t.rate // nothing was answered since the last cut
	case elapsed < window && t.measured > 0:
		return t.measured
	default:
		// A burst at the start, within a second, counts as a second's worth.
		return float64(t.answers) / max(elapsed, time.Second).Seconds()
	}
}

// startSlowly is for the end of an outage, when a backlog waits.
func (t *tuner) startSlowly(now time.Time) {
	if t.rate > 0 && t.ceiling > 0 {
		return // the rate is known
	}
	t.rate, t.ceiling, t.step, t.next = slowStart, 0, largestStep, now.Add(time.Second)
}

// resume goes on with a rate that was found before a restart.
func (t *tuner) resume(now time.Time, found float64) {
	t.rate = min(max(found, lowestRate), highestRate)
	t.ceiling, t.step, t.next = t.rate, firstStep, now.Add(time.Second)
}
