package pace

import "time"

// gate is what a 429 closes, for all calls.
type gate struct {
	until    time.Time // it is closed until then
	closings int       // counts how often it was closed
	inARow   int       // 429s in a row, counted once for each time it was closed
}

// rejection is a call that was answered 429.
type rejection struct {
	at         time.Time
	closings   int  // of the gate, when the call began
	inUse      bool // the whole rate was in use then
	retryAfter time.Duration
}

// close closes the gate for at most the given time, and tells the tuner. Calls that
// were in flight together get their 429s together. So a 429 only counts as a further
// one in a row, and doubles the pause, if its call began after the last pause: began.
// longer reports whether the pause ends later than before.
func (g *gate) close(r rejection, most time.Duration, t *tuner) (began, longer bool) {
	pause := min(max(r.retryAfter, minPause), most)
	if began = r.closings >= g.closings; began {
		for range min(g.inARow, doublings) {
			pause = min(pause*2, most)
		}
		// Only the first 429 in a row says something about the rate: after
		// a pause there was just one call.
		if g.inARow == 0 {
			t.limited(r.at, r.inUse, r.retryAfter)
		}
		g.inARow++
		g.closings++
	}
	until := r.at.Add(pause)
	if until.Before(g.until) {
		return began, false
	}
	if r.at.Before(g.until) {
		pause = until.Sub(g.until)
	}
	t.paused += pause
	g.until = until
	return began, true
}
