package pace

import "time"

// The tuner's numbers. At first it searches: the rate doubles each second until
// a 429, goes on from the last that was good in small steps until the next, and
// is known. From then on it is cut to nine tenths of what was measured at each
// 429, comes back quickly to just below it, rests, and goes up in small steps
// that grow as long as they succeed: most of the time is spent close to the
// account's rate, and a rate that was raised is found in minutes.
const (
	lowestRate   = 0.1  // calls per second
	highestRate  = 2000 // above it no bucket is needed
	slowStart    = 10   // calls per second when nothing is known
	coarse       = 2.0  // growth each second while the rate is searched,
	fine         = 1.1  // and once it is known to within a factor of two
	backOff      = 4    // divides a first guess that was too high
	cut          = 0.9
	deepCut      = 0.7 // when the last one was not enough
	again        = 10 * time.Second
	nearCeiling  = 0.98
	climb        = 1.03 // growth each second up to there
	restAtTop    = 30 * time.Second
	firstStep    = 0.01
	largestStep  = 1.0
	betweenSteps = 10 * time.Second
	window       = 5 * time.Second // of a measurement, and
	leastAnswers = 10              // more if it takes longer to get so many

	// At the configured rate a 429 says something of the rate when the one
	// before was this near, in time and in calls. Accounts that say 429 now
	// and then for reasons of their own cost their pauses and no more.
	forgivenAfter = time.Minute
	forgivenCalls = 100
)

// tuner finds the account's rate from its answers. With a configured rate it
// starts there, never goes above, and goes below only when 429s come in spite
// of it. The Pacer's mutex guards it.
type tuner struct {
	configured float64 // calls per second; 0: none

	rate    float64 // calls per second; 0: none is needed so far
	ceiling float64 // what was measured when the last 429 came; 0: none came
	step    float64 // growth at the next step
	next    time.Time
	lastCut time.Time

	search float64 // growth each second while the rate is searched; 0: it is not
	good   float64 // the highest rate that lasted a second in this search; 0: none

	lately   int       // answers since the last 429
	begun    time.Time // of the current measurement
	answers  int       // in it
	measured float64   // in the one before; 0: none
}

func (t *tuner) configure(rate float64) { t.configured, t.rate = rate, rate }

// answered counts a call that the account allowed, and goes up when all of the
// rate is used and it is time.
func (t *tuner) answered(now time.Time, saturated bool) {
	if t.begun.IsZero() {
		t.begun = now
	}
	t.answers++
	t.lately++
	if elapsed := now.Sub(t.begun); elapsed >= window && t.answers >= leastAnswers {
		t.measured = float64(t.answers) / elapsed.Seconds()
		t.begun, t.answers = now, 0
	}
	if t.rate == 0 || !saturated || now.Before(t.next) {
		return
	}
	t.grow(now)
	switch {
	case t.configured > 0:
		t.rate = min(t.rate, t.configured)
	case t.rate > highestRate:
		t.rate, t.search = 0, 0
	}
}

func (t *tuner) grow(now time.Time) {
	top := t.ceiling * nearCeiling
	switch {
	case t.search > 0:
		t.good = t.rate
		t.rate *= t.search
		t.next = now.Add(time.Second)
	case t.rate < top:
		t.rate = min(t.rate*climb, top)
		t.next = now.Add(time.Second)
		if t.rate == top {
			t.next = now.Add(restAtTop)
		}
	default:
		t.rate *= 1 + t.step
		t.step = min(t.step*2, largestStep)
		t.next = now.Add(betweenSteps)
	}
}

// limited learns from a 429 what the account allows.
func (t *tuner) limited(now time.Time, saturated bool) {
	switch {
	case t.configured > 0 && t.rate == t.configured && t.forgives(now):
	case t.rate == 0 && t.measured == 0:
		t.startSearch(now, slowStart)
	case t.search > 0 && saturated:
		t.narrow(now)
	default:
		t.settle(now, saturated)
	}
	t.lastCut, t.lately = now, 0
	t.begun, t.answers, t.measured = time.Time{}, 0, 0
}

func (t *tuner) forgives(now time.Time) bool {
	return t.lastCut.IsZero() || now.Sub(t.lastCut) > forgivenAfter || t.lately > forgivenCalls
}

// startSearch begins with nothing known.
func (t *tuner) startSearch(now time.Time, from float64) {
	t.rate, t.ceiling, t.step = from, 0, firstStep
	t.search, t.good, t.next = coarse, 0, now.Add(time.Second)
}

// narrow goes on with the search after a 429.
func (t *tuner) narrow(now time.Time) {
	switch {
	case t.good == 0:
		t.startSearch(now, max(t.rate/backOff, lowestRate))
	case t.search == coarse:
		t.rate, t.search, t.good, t.next = t.good, fine, t.good/coarse, now.Add(time.Second)
	default:
		t.ceiling, t.rate, t.search = t.rate, t.good, 0
		t.next = now.Add(restAtTop)
	}
}

// settle is for a 429 when the rate was known. What was answered lately says
// how far to go back only while all of the rate was used; otherwise somebody
// else used the account as well, and the rate is only cut.
func (t *tuner) settle(now time.Time, saturated bool) {
	factor := cut
	if !t.lastCut.IsZero() && now.Sub(t.lastCut) < again {
		factor = deepCut
	}
	switch {
	case t.rate == 0:
		t.ceiling = t.throughput(now)
	case saturated:
		t.ceiling = min(t.throughput(now), t.rate)
	default:
		t.ceiling = t.rate
	}
	t.ceiling = max(t.ceiling, lowestRate)
	t.rate = max(t.ceiling*factor, lowestRate)
	t.step, t.next, t.search = firstStep, now.Add(time.Second), 0
}

// throughput is how many calls a second the account allowed lately; the rate
// itself when too little was answered since the last 429 to tell.
func (t *tuner) throughput(now time.Time) float64 {
	elapsed := now.Sub(t.begun)
	switch {
	case elapsed < window && t.measured > 0:
		return t.measured
	case t.begun.IsZero() || elapsed < time.Second:
		return t.rate
	default:
		return float64(t.answers) / elapsed.Seconds()
	}
}

// startSlowly is for the end of an outage, when a backlog waits.
func (t *tuner) startSlowly(now time.Time) {
	if t.rate == 0 || t.search > 0 {
		t.startSearch(now, slowStart)
	}
}

// resume goes on with a rate that was found before a restart.
func (t *tuner) resume(now time.Time, found float64) {
	t.rate = min(max(found, lowestRate), highestRate)
	t.ceiling, t.step, t.next = t.rate, firstStep, now.Add(time.Second)
}
