package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"golang.org/x/time/rate"
)

// Faults is what can be changed while the sandbox runs. See Options for the
// fields.
type Faults struct {
	Key            string
	Rate           float64
	Burst          int
	RetryAfterDate bool
	Fail429        float64
	Fail500        float64
	Latency        time.Duration
	Outage         Outage
	Idempotent     bool
}

// faultsJSON is Faults on the wire, with the latency as Go writes it ("250ms").
type faultsJSON struct {
	Key            string  `json:"key,omitempty"`
	Rate           float64 `json:"rate"`
	Burst          int     `json:"burst"`
	RetryAfterDate bool    `json:"retry_after_date"`
	Fail429        float64 `json:"fail_429"`
	Fail500        float64 `json:"fail_500"`
	Latency        string  `json:"latency"`
	Outage         Outage  `json:"outage"`
	Idempotent     bool    `json:"idempotent"`
}

// MarshalJSON implements json.Marshaler. It leaves out the key, which may be
// somebody's real one.
func (f Faults) MarshalJSON() ([]byte, error) {
	f.Key = ""
	return json.Marshal(f.wire())
}

func (f Faults) wire() faultsJSON {
	return faultsJSON{f.Key, f.Rate, f.Burst, f.RetryAfterDate, f.Fail429, f.Fail500,
		f.Latency.String(), f.Outage, f.Idempotent}
}

func (j faultsJSON) faults() (Faults, error) {
	d, err := time.ParseDuration(j.Latency)
	if err != nil {
		return Faults{}, fmt.Errorf("latency %q is no duration such as 250ms", j.Latency)
	}
	return Faults{j.Key, j.Rate, j.Burst, j.RetryAfterDate, j.Fail429, j.Fail500,
		d, j.Outage, j.Idempotent}, nil
}

// check returns what is wrong with the settings.
func (f Faults) check() error {
	switch {
	case f.Key == "":
		return errors.New("the key is empty")
	case !(f.Rate >= 0) || math.IsInf(f.Rate, 0): // NaN too
		return errors.New("the rate must be 0 or more calls a second")
	case f.Burst < 0:
		return errors.New("the burst must be 0 or more calls")
	case !(f.Fail429 >= 0) || !(f.Fail500 >= 0) || f.Fail429+f.Fail500 > 1:
		return errors.New("the fractions of failures must be 0 to 1 together")
	case f.Latency < 0:
		return errors.New("the latency must be 0 or more")
	}
	return nil
}

// limiter makes the account's token bucket, full; nil is no limit.
func (f Faults) limiter() *rate.Limiter {
	if f.Rate == 0 {
		return nil
	}
	burst := f.Burst
	if burst == 0 {
		burst = int(max(1, math.Ceil(f.Rate)))
	}
	return rate.NewLimiter(rate.Limit(f.Rate), burst)
}

// setting is everything a call is judged by. It never changes once in force.
type setting struct {
	Faults
	bearer  []byte
	limiter *rate.Limiter // nil is no limit
	outage  *answer       // nil is none
}

// dice decides which calls fail. The n-th call it is asked about has the same
// fate in every run with the same seed.
type dice struct{ r *rand.Rand }

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 0))} }

// Faults returns the settings in force.
func (s *Server) Faults() Faults { return s.setting.Load().Faults }

// SetFaults puts settings into force for the calls that come from now on. The
// token bucket starts full when its rate or burst has changed.
func (s *Server) SetFaults(f Faults) error {
	return s.change(func(old *Faults) { *old = f })
}

// SetKey changes the API key that calls must bring.
func (s *Server) SetKey(key string) error {
	return s.change(func(f *Faults) { f.Key = key })
}

// SetOutage begins an outage, or ends it with OutageNone.
func (s *Server) SetOutage(o Outage) error {
	return s.change(func(f *Faults) { f.Outage = o })
}

// SetRate changes the account's rate in calls a second and its burst. A rate
// of 0 is no limit, a burst of 0 is as many calls as come in a second.
func (s *Server) SetRate(rate float64, burst int) error {
	return s.change(func(f *Faults) { f.Rate, f.Burst = rate, burst })
}

// SetFractions changes the fractions, 0 to 1, of calls answered 429 and 500.
func (s *Server) SetFractions(fail429, fail500 float64) error {
	return s.change(func(f *Faults) { f.Fail429, f.Fail500 = fail429, fail500 })
}

// SetLatency changes how long each call takes.
func (s *Server) SetLatency(d time.Duration) error {
	return s.change(func(f *Faults) { f.Latency = d })
}

// change makes a new setting from the one in force.
func (s *Server) change(edit func(*Faults)) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	old := s.setting.Load()
	f := old.Faults
	edit(&f)
	n, err := s.newSetting(f)
	if err != nil {
		return err
	}
	if f.Rate == old.Rate && f.Burst == old.Burst {
		n.limiter = old.limiter
	}
	s.setting.Store(n)
	return nil
}

func (s *Server) newSetting(f Faults) (*setting, error) {
	outage, err := s.spells.of(f.Outage)
	if err == nil {
		err = f.check()
	}
	return &setting{Faults: f, bearer: []byte(f.Key), limiter: f.limiter(), outage: outage}, err
}
