package notify

import (
	"maps"
	"slices"
	"time"
)

const (
	// quiet is how long a cause must be gone before it is said to be over. One that
	// comes and goes is one trouble, and no news each time.
	quiet = 5 * time.Minute
	// remind is when a cause that lasts is told again.
	remind = 24 * time.Hour
	// forgetAfter is how long it is known when a cause that is over was told.
	forgetAfter = 24 * time.Hour
)

// entry is what one channel knows of a cause that it was told of.
type entry struct {
	Cause Cause     `json:"cause"` // as it was when it was seen last
	Told  time.Time `json:"told"`  // when it was told last that there is the cause
	On    bool      `json:"on"`    // it was told, and not that it is over
	Count int64     `json:"count,omitempty"`

	gone time.Time // since when it is not there; zero while it is
}

// ledger is what one channel was told, by Cause.key. It is kept over restarts, so that
// a restart repeats nothing.
type ledger map[string]*entry

// due returns what is to be told now, given the causes that there are. again is the
// shortest time between two notifications of one cause.
func (l ledger) due(causes []Cause, now time.Time, again time.Duration) []News {
	var news []News
	there := map[string]bool{}
	for _, c := range causes {
		there[c.key()] = true
		if state := l.stateOf(c, now, again); state != "" {
			news = append(news, News{State: state, Cause: c})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(l)) {
		e := l[key]
		if there[key] {
			continue
		}
		if e.gone.IsZero() || e.gone.After(now) {
			e.gone = now
		}
		switch {
		case e.On && e.Cause.Count > 0: // what failed is no state that ends
			e.On = false
		case e.On && now.Sub(e.gone) >= quiet:
			c := e.Cause
			c.Until = e.gone
			news = append(news, News{State: Over, Cause: c})
		case !e.On && now.Sub(e.Told) >= max(again, forgetAfter):
			delete(l, key)
		}
	}
	return news
}

// stateOf is what is to be told of a cause that is there; "" is nothing.
func (l ledger) stateOf(c Cause, now time.Time, again time.Duration) State {
	e := l[c.key()]
	if e == nil {
		return Begins
	}
	if e.Told.After(now) { // the clock was set back
		e.Told = now
	}
	e.gone, e.Count = time.Time{}, min(e.Count, c.Count)
	switch since := now.Sub(e.Told); {
	case since < again:
		e.Cause = c
		return ""
	case !e.On, c.Count > e.Count:
		return Begins
	case c.Count == 0 && since >= max(again, remind):
		return Lasts
	}
	e.Cause = c
	return ""
}

// told notes that the channel was told.
func (l ledger) told(news []News, now time.Time) {
	for _, n := range news {
		key := n.Cause.key()
		if n.State == Over {
			if e := l[key]; e != nil {
				e.On = false
			}
			continue
		}
		l[key] = &entry{Cause: n.Cause, Told: now, On: true, Count: n.Cause.Count}
	}
}
