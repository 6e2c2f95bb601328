package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/forward"
)

// forwardSettings are the endpoints to which events are posted.
func forwardSettings(c *config.Config) (to []forward.To) {
	for _, f := range c.Forwards {
		to = append(to, forward.To{Endpoint: f.Endpoint, Secret: f.Secret.Reveal()})
	}
	return to
}

// errNoForwards is for a store whose engine cannot keep events. relay/config refuses such a
// configuration with the same words.
var errNoForwards = errors.New("forward: is there, and store.url is set: a database cannot keep events until they are posted; leave [[forward]] out, or leave store.url out and keep the queue in queue.data_dir")

// buildForwarder makes the Forwarder, which has to be started. It returns nil if s is nil:
// the engine keeps no events.
func (d *daemon) buildForwarder(s forward.Store) (*forward.Forwarder, error) {
	if s == nil {
		if len(d.config().Forwards) > 0 {
			return nil, errNoForwards
		}
		return nil, nil
	}
	f := forward.New(forward.Options{To: forwardSettings(d.config()), Store: s, Version: d.opt.Version, Log: d.opt.Log, Metrics: d.metrics, Dial: d.opt.dial})
	d.onStop(func(context.Context) error { f.Stop(); return nil })
	onReload(d, "forward", forwardSettings, f.Prepare)
	d.onStatus(func(ctx context.Context, now time.Time) []admin.Warning {
		return forwardWarnings(ctx, s, f.Trouble(), d.config().Forwards, now)
	})
	return f, nil
}

// forwardWarnings are about endpoints that do not take events, or lose some.
func forwardWarnings(ctx context.Context, s forward.Store, troubles []forward.Trouble, configured []config.Forward, now time.Time) []admin.Warning {
	counts, err := s.CountForwards(ctx)
	if err != nil {
		return nil // another warning says that the records cannot be read
	}
	var warnings []admin.Warning
	warn := func(endpoint, cause, what, why, do string, count int64, since time.Time) {
		warnings = append(warnings, admin.Warning{Level: admin.LevelWarning, Cause: cause, Endpoint: endpoint, What: what, Why: why, Do: do, Count: count, Since: since})
	}
	for _, t := range troubles {
		c := counts[t.Name]
		if t.Err != nil {
			warn(t.Name, admin.CauseForward, fmt.Sprintf("%s for %s wait", events(c.Pending), t.Name), "the endpoint takes none: "+t.Err.Error(),
				"check the endpoint, and its url and secret in [[forward]]; the events are posted when it answers again", c.Pending, t.Since.Round(0).UTC())
		}
		if t.Lost > 0 && now.Sub(t.LostAt) < untoldFor {
			warn(t.Name, admin.CauseForwardLost, fmt.Sprintf("%s for %s were lost since the start", events(int64(t.Lost)), t.Name), "forward.max_pending of them waited",
				"check the endpoint, or raise max_pending; the history still has what was lost", int64(t.Lost), time.Time{})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		c := counts[name]
		if c.Dead > 0 {
			warn(name, admin.CauseForwardDead, fmt.Sprintf("%s for %s are dead letters", events(c.Dead), name), "the endpoint refused them",
				"'smtp2rest forward list --dead' says why; then retry or drop them", c.Dead, time.Time{})
		}
		if !slices.ContainsFunc(configured, func(f config.Forward) bool { return f.Name == name }) {
			warn(name, admin.CauseForward, fmt.Sprintf("%s wait", events(c.Pending+c.Dead)), "they are for endpoint "+strconv.Quote(name)+", which is not in the configuration",
				"put it back, or drop them: 'smtp2rest forward drop --to "+name+"'", c.Pending+c.Dead, time.Time{})
		}
	}
	return warnings
}

func events(n int64) string {
	if n == 1 {
		return "1 event"
	}
	return fmt.Sprintf("%d events", n)
}
