package pace

import "time"

// The tuner finds the account's rate from its answers. It remembers the ceiling:
// the rate that was being used when the last 429 came. After a 429 it goes on a
// tenth below the ceiling, comes back to it within the rest, stays near it for a
// while, and then goes up faster and faster until the next 429:
//
//	rate = ceiling × (1 + 0.1 × (used/rest − 1)³)
//
// used is the time since the last 429 in which all of the rate was used, and
// nothing else counts: a quiet night, a trickle of mail or a call that failed
// says nothing about what the account allows.
//
// The rest says how far the ceiling is to be trusted. It is a second when
// nothing is known, so that the search from 10 calls a second comes to 20 in two
// seconds and to 200 in six. It doubles with each 429 that confirms the ceiling,
// until 429s come once or twice a minute.
const (
	lowestRate  = 0.1  // calls per second
	highestRate = 2000 // above it no bucket is needed
	slowStart   = 10   // calls per second when nothing is known
	depth       = 0.1  // how far below the ceiling it goes on after a 429
	shortRest   = time.Second
	longRest    = 30 * time.Second

	// At the configured rate a 429 says something of the rate when the one
	// before was this near, in time and in calls. Accounts that say 429 now
	// and then for reasons of their own cost their pauses and no more.
	forgivenAfter = time.Minute
	forgivenCalls = 100
)

// tuner holds the rate. With a configured rate it starts there, never goes
// above, and goes below only when 429s come in spite of it. The Pacer's mutex
// guards it.
type tuner struct {
	configured float64 // calls per second; 0: none

	rate    float64 // calls per second; 0: none is needed so far
	ceiling float64 // 0: the rate is the configured one, or none
	rest    time.Duration

	// Since the last 429, or since the search began:
	used    time.Duration // in which all of the rate was used
	allowed int           // calls that the account allowed in that time
	paused  time.Duration // for which the API was left alone
	drained bool          // it was a 429, which left the account nothing saved up

	last   time.Time // when the last 429 came
	lately int       // answers since then
}

func (t *tuner) configure(rate float64) { t.configured, t.rate = rate, rate }

// answered counts a call that the account allowed. When all of the rate was in
// use, used is the time since the call before.
func (t *tuner) answered(inUse bool, used time.Duration) {
	t.lately++
	if t.ceiling == 0 || !inUse {
		return
	}
	t.used += used
	t.allowed++
	t.follow()
}

// follow sets the rate to what it is after the time used.
func (t *tuner) follow() {
	x := t.used.Seconds()/t.rest.Seconds() - 1
	t.rate = t.ceiling * (1 + depth*x*x*x)
	switch {
	case t.configured > 0 && t.rate >= t.configured:
		t.rate, t.ceiling = t.configured, 0
	case t.rate > highestRate:
		t.rate, t.ceiling = 0, 0
	}
}

// limited learns from a 429 what the account allows. One that comes while the
// rate is not in use has other reasons, such as another program at work with the
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

// cut sets the ceiling. A 429 that comes after the rest confirms the rate that
// was used. One that comes sooner says that the ceiling was too high, and what
// was let through since the one before says how far: exactly so when the account
// saved up what the pause left unused, and too little when it did not, so half
// of the difference is believed.
//
// A call each Retry-After is what the API itself takes for right. Half as many
// are the least, or an account that another program uses up would leave nothing
// to this one.
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

// search goes up from a rate that nothing speaks against so far.
func (t *tuner) search(from float64, rest time.Duration) {
	t.ceiling, t.rest, t.drained = from, rest, false
	t.begin(rest)
}

func (t *tuner) begin(used time.Duration) {
	t.used, t.allowed, t.paused = used, 0, 0
	t.follow()
}

// startSlowly is for the end of an outage, when a backlog waits.
func (t *tuner) startSlowly() {
	if t.rate == 0 {
		t.search(slowStart, shortRest)
	}
}

// resume goes on with a rate that was found before a restart. A search may have
// been on its way then, so the rate is not trusted far.
func (t *tuner) resume(found float64) {
	t.search(min(max(found, lowestRate), highestRate), 2*shortRest)
}
