package deliver

import (
	"time"

	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/retry"
)

// Settings are the Options that Configure can change.
type Settings struct {
	Mapping  provider.Mapping
	Schedule retry.Schedule

	Workers  int           // attempts of queued mail at once; at least 1
	KeepSent time.Duration // how long sent mail stays listed

	Bounce         bounce.Options
	BounceGrace    time.Duration // at most this long after the first failure the sender is told
	BouncesPerHour int           // to one address; 0 is no bound
}

// Prepare makes ready to go on with other settings, and to look at the queue
// apiChanged: there may be something to do by them. Attempts that are under way end by
// the old ones. Times at which mail is due were decided when it was tried and
// stay. It never fails.
func (e *Engine) Prepare(s Settings) (apply func(), err error) { return func() { e.use(s) }, nil }

func (e *Engine) use(s Settings) {
	e.set.Store(&s)
	e.slots.Resize(s.Workers)
	e.bodies.configure(s.Mapping)
	signal(e.dueSooner)
	e.pendingBounces.checkAll()
	signal(e.apiChanged)
}
