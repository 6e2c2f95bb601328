package pace

import "time"

// The tuner finds the account's rate from the API's answers. It remembers the
// ceiling: the rate at which the last 429 came. After a 429 it continues a tenth
// below the ceiling, comes back to the ceiling within the rest, stays near it for a
// while, and then rises faster and faster until the next 429:
//
//	rate = ceiling × (1 + 0.1 × (used/rest − 1)³)
//
// Here used is the time since the last 429 in which the whole rate was in use.
// Other time does not count: a quiet night, a trickle of mail or a failed call says
// nothing about what the account allows.
//
// The rest says how far the ceiling is trusted. It starts at one second, so that a
// search from 10 calls a second reaches 20 in two seconds and 200 in six. It
// doubles with each 429 that confirms the ceiling, until 429s come once or twice a
// minute.
const (
	lowestRate  = 0.1  // calls per second
	highestRate = 2000 // above this, no bucket is needed
	slowStart   = 10   // calls per second, when nothing is known
	depth       = 0.1  // how far below the ceiling it continues after a 429
	shortRest   = time.Second
	longRest    = 30 * time.Second

	// A 429 at the configured rate only says something about the rate if the one
	// before was this near, in time and in calls. Some accounts answer 429 now and
	// then for other reasons; those cost a pause and nothing else.
	forgivenAfter = time.Minute
	forgivenCalls = 100
)

// tuner holds the rate. With a configured rate it starts there, never exceeds it,
// and goes below only if 429s come nevertheless. The Pacer's mutex guards it.
type tuner struct {
	configured float64 // calls per second; 0: none

	rate    float64 // calls per second; 0: none needed so far
	ceiling float64 // 0: not searching; the rate is the configured one, or none
	rest    time.Duration

	// Since the last 429, or since the search began:
	used    time.Duration // in which the whole rate was in use
	allowed int           // calls that the account allowed in that time
	paused  time.Duration // in which no calls were made
	drained bool          // it began with a 429, so the account had no calls saved up

	last   time.Time // when the last 429 came
	lately int       // answers since then
}

func (t *tuner) configure(rate float64) { t.configured, t.rate = rate, rate }

// answered counts a call that the account allowed. If the whole rate was in use,
// used is the time since the call before.
func (t *tuner) answered(inUse bool, used time.Duration) {
	if inUse {
		t.count(1, 1, used)
	} else {
		t.count(1, 0, 0)
	}
}

// count is answered for several calls, of which the whole rate was in use at some.
func (t *tuner) count(answers, inUse int, used time.Duration) {
	t.lately += answers
	if t.ceiling == 0 || inUse == 0 {
		return
	}
	t.used += used
	t.allowed += inUse
	t.update()
}

// update sets the rate by the time used.
func (t *tuner) update() {
	x := t.used.Seconds()/t.rest.Seconds() - 1
	t.rate = t.ceiling * (1 + depth*x*x*x)
	switch {
	case t.configured > 0 && t.rate >= t.configured:
		t.rate, t.ceiling = t.configured, 0
	case t.rate > highestRate:
		t.rate, t.ceiling = 0, 0
	}
}

// limited learns from a 429 what the account allows. A 429 that comes while the
// rate is not in use has other causes, for example another program that uses the
// same account.
func (t *tuner) limited(now time.Time, inUse bool, retryAfter time.Duration) {
	atConfigured := t.configured > 0 && t.ceiling == 0
	switch {
	case atConfigured && t.forgives(now):
	case t.rate == 0:
		t.search(slowStart, shortRest)
	case inUse:
		if atConfigured {
			t.search(t.configured, shortRest)
		}
		t.cut(retryAfter)
	}
	t.last, t.lately = now, 0
}

func (t *tuner) forgives(now time.Time) bool {
	return t.last.IsZero() || now.Sub(t.last) > forgivenAfter || t.lately > forgivenCalls
}

// cut sets the ceiling. A 429 that comes after the rest confirms the rate in use. A
// 429 that comes sooner says that the ceiling was too high. The calls let through
// since the last 429 say how much too high: exactly, if the account saved up what
// the pause left unused; too much, if it did not. So half of the difference is
// believed.
//
// One call for each Retry-After is what the API itself asks for. The rate does not
// fall below half of that. Otherwise, another program that uses up the account
// would leave nothing to this one.
func (t *tuner) cut(retryAfter time.Duration) {
	t.ceiling = t.rate
	switch {
	case t.used >= t.rest:
		t.rest = min(2*t.rest, longRest)
	case t.drained:
		through := float64(t.allowed) / (t.used + t.paused).Seconds()
		t.ceiling = (t.rate + through) / 2
	}
	least := max(lowestRate, 1/(2*max(retryAfter, minPause).Seconds()))
	t.ceiling = max(t.ceiling, least/(1-depth))
	t.begin(0)
	t.drained = true
}

// search starts to search upward from a rate.
func (t *tuner) search(from float64, rest time.Duration) {
	t.ceiling, t.rest, t.drained = from, rest, false
	t.begin(rest)
}

func (t *tuner) begin(used time.Duration) {
	t.used, t.allowed, t.paused = used, 0, 0
	t.update()
}

// startSlowly limits the rate after an outage, when a backlog waits.
func (t *tuner) startSlowly() {
	if t.rate == 0 {
		t.search(slowStart, shortRest)
	}
}

// resume continues with a rate that was found before a restart. A search may have
// been under way then, so the rate is not trusted far.
func (t *tuner) resume(found float64) {
	t.search(min(max(found, lowestRate), highestRate), 2*shortRest)
}
