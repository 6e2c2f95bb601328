// Package retry decides when a recipient is tried again and when it is given
// up. It is pure: relay/deliver asks it after each attempt.
package retry

import "time"

// Schedule is exponential: First after the first attempt, twice as long after
// each further one, never longer than Max.
type Schedule struct {
	First time.Duration // above 0
	Max   time.Duration // not below First
	// MaxAge is how long after it was accepted a mail is given up.
	MaxAge time.Duration
}

// fewest is how often a mail is tried at least before its age counts: one that
// could not be tried for days, because the API was down or its domain is being
// warmed, must not end by one bad moment.
const fewest = 3

// Delay is how long to wait after the given attempt, counted from 1. jitter,
// from 0 up to but not including 1, takes up to half of it away, so that mail
// which failed together does not come back together; the result never exceeds
// Max.
func (s Schedule) Delay(attempt int, jitter float64) time.Duration {
	delay := s.First
	for n := 1; n < attempt && delay < s.Max; n++ {
		if delay > s.Max/2 { // doubling would exceed Max, or overflow
			delay = s.Max
			break
		}
		delay *= 2
	}
	delay = min(delay, s.Max)
	return delay - time.Duration(float64(delay)*min(max(jitter, 0), 1)/2)
}

// Next is when to try again after an attempt that ended now. It is false when
// the mail is too old to be tried again: then it is given up.
func (s Schedule) Next(since, now time.Time, attempt int, jitter float64) (time.Time, bool) {
	end := since.Add(s.MaxAge)
	old := !now.Before(end)
	if old && attempt >= fewest {
		return time.Time{}, false
	}
	next := now.Add(s.Delay(attempt, jitter))
	if !old && next.After(end) {
		next = end // one last attempt at the end, rather than giving up early
	}
	return next, true
}
