package deliver

import (
	"time"

	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/retry"
)

// Settings are the options that a reload can change.
type Settings struct {
	Mapping  provider.Mapping
	Schedule retry.Schedule

	Workers  int           // concurrent attempts of queued mail; at least 1
	KeepSent time.Duration // how long sent mail stays listed

	Bounce bounce.Options
	Bounces
}

// Bounces says when senders are told. internal/settings explains the tags.
type Bounces struct {
	PerHour int           `toml:"per_hour" default:"20" range:"0..1000000" doc:"The most bounces to one address in an hour. 0 is no bound."`
	Grace   time.Duration `toml:"grace" default:"4h" range:"0s..7d" doc:"A mail's failed recipients are told of together, once none is waiting any more, and at the latest after this time."`
}

// Prepare returns a function that puts s into force and looks at the queue again, in
// case something can be done now. Attempts under way end by the old settings. Due times
// that were decided before stay. Prepare never fails.
func (e *Engine) Prepare(s Settings) (apply func(), err error) { return func() { e.use(s) }, nil }

func (e *Engine) use(s Settings) {
	e.set.Store(&s)
	e.slots.Resize(s.Workers)
	e.bodies.configure(s.Mapping)
	signal(e.dueSooner)
	e.pendingBounces.checkAll()
	signal(e.apiChanged)
}
