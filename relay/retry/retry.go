// Package retry decides when a recipient is tried again and when it is given up.
// It is pure. relay/deliver asks it after each attempt.
package retry

import "time"

// Schedule is an exponential backoff: First after the first attempt, then twice as
// long after each further one, at most Max. MaxAge counts from the acceptance of a
// mail. First is above 0 and Max not below it. internal/settings explains the tags.
type Schedule struct {
	First  time.Duration `toml:"retry_first" default:"5s" range:"1ms..1d" doc:"The time between a failed first attempt and the second one. Each further time is twice as long as the one before, less up to half by chance."`
	Max    time.Duration `toml:"retry_max" default:"15m" range:"1ms..7d" doc:"The longest time between two attempts."`
	MaxAge time.Duration `toml:"max_age" default:"2d" range:"1s..366d" doc:"How long a mail is tried before the relay gives up and tells its sender."`
}

// fewest is how often a mail is tried at least, however old it is. A mail may have
// waited for days, because the API was down or its domain is being warmed, and
// must not be given up after one bad moment.
const fewest = 3

// Delay returns how long to wait after the given attempt, counted from 1. jitter,
// from 0 to below 1, takes away up to half of it, so that mail which failed
// together does not come back together. The result never exceeds Max.
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

// Next returns when to try again after an attempt that ended now. It returns false
// if the mail is too old: then it is given up.
func (s Schedule) Next(since, now time.Time, attempt int, jitter float64) (time.Time, bool) {
	end := since.Add(s.MaxAge)
	old := !now.Before(end)
	if old && attempt >= fewest {
		return time.Time{}, false
	}
	next := now.Add(s.Delay(attempt, jitter))
	if !old && next.After(end) {
		next = end // one last attempt at the end, instead of giving up early
	}
	return next, true
}
