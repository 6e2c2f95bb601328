package bounce

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Telling is what came of the wish to tell a sender. The set is closed.
type Telling string

// What it may come to.
const (
	Told    Telling = "told"     // a bounce was queued, or sent
	Nobody  Telling = "nobody"   // there is no sender that can be told
	TooMany Telling = "too_many" // bounce.per_hour is used up
)

// Tally counts mails that were given up for some recipients, by what came of
// the wish to tell their senders. It is safe for concurrent use.
type Tally struct {
	mails *prometheus.CounterVec

	mu     sync.Mutex
	untold int64     // recipients of whose failure nobody was told
	latest time.Time // the latest of them
}

// NewTally returns a Tally at zero. Its metrics go to reg, if that is not nil.
func NewTally(reg prometheus.Registerer) *Tally {
	t := &Tally{mails: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "smtp2rest_bounces_total",
		Help: "Mails that were given up for some recipients, by whether the sender was told: told (a bounce was queued, or sent), " +
			"nobody (no sender that could be told, and no postmaster), too_many (bounce.per_hour).",
	}, []string{"sender"})}
	for _, came := range []Telling{Told, Nobody, TooMany} {
		t.mails.WithLabelValues(string(came))
	}
	return t
}

// Count counts one mail, which so many recipients did not get.
func (t *Tally) Count(came Telling, recipients int, now time.Time) {
	t.mails.WithLabelValues(string(came)).Inc()
	if came == Told {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.untold += int64(recipients)
	t.latest = now
}

// Untold is of how many failed recipients nobody was told, and when that last
// happened.
func (t *Tally) Untold() (recipients int64, latest time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.untold, t.latest
}
