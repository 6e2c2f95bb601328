package pace

import (
	"encoding/json"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

// record is what the relays that use an account know of it together. It is written as
// JSON into a Ledger, by whose clock its times are.
type record struct {
	Until    time.Time         `json:"until,omitzero"` // the gate
	Closings int               `json:"closings"`
	InARow   int               `json:"in_a_row"`
	Tuner    writtenTuner      `json:"tuner"`
	Breaker  writtenBreaker    `json:"breaker"`
	Relays   map[string]member `json:"relays"`
}

// member is a relay that uses the account. Whatever it holds is free again when its
// lease ends.
type member struct {
	Ends  time.Time `json:"ends"`  // its lease
	Rate  float64   `json:"rate"`  // as it is configured there; 0: not
	Share float64   `json:"share"` // calls per second
	want
}

// writtenTuner is a tuner as it is written.
type writtenTuner struct {
	Configured float64       `json:"configured"`
	Rate       float64       `json:"rate"`
	Ceiling    float64       `json:"ceiling"`
	Rest       time.Duration `json:"rest"`
	Used       time.Duration `json:"used"`
	Allowed    int           `json:"allowed"`
	Paused     time.Duration `json:"paused"`
	Drained    bool          `json:"drained"`
	Last       time.Time     `json:"last,omitzero"`
	Lately     int           `json:"lately"`
}

func (w writtenTuner) tuner() tuner {
	return tuner{configured: w.Configured, rate: w.Rate, ceiling: w.Ceiling, rest: w.Rest, used: w.Used,
		allowed: w.Allowed, paused: w.Paused, drained: w.Drained, last: w.Last, lately: w.Lately}
}

func (t tuner) written() writtenTuner {
	return writtenTuner{t.configured, t.rate, t.ceiling, t.rest, t.used, t.allowed, t.paused, t.drained, t.last, t.lately}
}

// writtenBreaker is an open breaker; the zero value is a closed one.
type writtenBreaker struct {
	Open     bool          `json:"open"`
	Opened   time.Time     `json:"opened,omitzero"`
	Why      Why           `json:"why,omitempty"`
	Since    time.Time     `json:"since,omitzero"`
	Last     writtenCall   `json:"last,omitzero"`
	Gap      time.Duration `json:"gap,omitempty"`
	FailedAt time.Time     `json:"failed_at,omitzero"`
	ProbeAt  time.Time     `json:"probe_at,omitzero"`
	Prober   string        `json:"prober,omitempty"`       // the relay that makes the next probe
	Probing  time.Time     `json:"probing_until,omitzero"` // until when it may
}

// writtenCall is an outcome as it is written: what people are told of it.
type writtenCall struct {
	Kind   relay.Kind `json:"kind"`
	Status int        `json:"status"`
	Detail string     `json:"detail,omitempty"`
}

// clocks are the ledger's and this relay's, at about the same moment. The ledger's was
// read between asked and now.
type clocks struct {
	ledger     time.Time
	asked, now time.Time
}

// written returns a time of this relay by the ledger's clock, or one that is a little later.
func (c clocks) written(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return c.ledger.Add(t.Sub(c.asked))
}

// read returns a time of the ledger by this relay's clock, or one that is a little later.
func (c clocks) read(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return c.now.Add(t.Sub(c.ledger))
}

// ends returns when a lease ends by this relay's clock, or a little earlier.
func (c clocks) ends(t time.Time) time.Time { return c.asked.Add(t.Sub(c.ledger)) }

// readRecord reads what is written. What cannot be read is as good as nothing: it is
// written anew within a second, and the API says again what it allows.
func readRecord(written []byte) (a record, there bool) {
	there = len(written) > 0 && json.Unmarshal(written, &a) == nil
	if !there {
		a = record{}
	}
	if a.Relays == nil {
		a.Relays = map[string]member{}
	}
	return a, there
}

// configure takes over the rate that the relays are configured with; if they differ, the
// lowest. One that is not configured with any follows the others.
func (a *record) configure() {
	least := 0.0
	for _, m := range a.Relays {
		if m.Rate > 0 && (least == 0 || m.Rate < least) {
			least = m.Rate
		}
	}
	if least == a.Tuner.Configured {
		return
	}
	t := tuner{}
	if least > 0 {
		t.configure(least)
	} else {
		t.resume(a.Tuner.Rate)
	}
	a.Tuner = t.written()
}

// written returns what to write of the breaker.
func (b *breaker) written(c clocks) writtenBreaker {
	if !b.open {
		return writtenBreaker{}
	}
	return writtenBreaker{
		Open: true, Opened: c.written(b.opened), Why: b.why, Since: c.written(b.since),
		Last: writtenCall{b.last.Kind, b.last.Status, b.last.Detail},
		Gap:  b.gap, FailedAt: c.written(b.failedAt), ProbeAt: c.written(b.probeAt),
	}
}

// take takes over an open breaker.
func (b *breaker) take(w writtenBreaker, c clocks) {
	b.open, b.opened, b.why, b.since = true, c.read(w.Opened), w.Why, c.read(w.Since)
	b.last = relay.Outcome{Kind: w.Last.Kind, Status: w.Last.Status, Detail: w.Last.Detail}
	b.gap, b.failedAt, b.probeAt = w.Gap, c.read(w.FailedAt), c.read(w.ProbeAt)
}
