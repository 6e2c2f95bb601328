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

// Faults are the options that can be changed while the sandbox runs. Options
// describes them.
type Faults struct {
	Key            string        `json:"key,omitempty"`
	Rate           float64       `json:"rate"`
	Burst          int           `json:"burst"`
	RetryAfterDate bool          `json:"retry_after_date"`
	Fail429        float64       `json:"fail_429"`
	Fail500        float64       `json:"fail_500"`
	Latency        time.Duration `json:"-"` // see faultsJSON
	Outage         Outage        `json:"outage"`
	Idempotent     bool          `json:"idempotent"`
}

type plainFaults Faults // without MarshalJSON

// faultsJSON is the JSON of Faults, with the latency as Go writes it ("250ms").
type faultsJSON struct {
	plainFaults
	LatencyText string `json:"latency"`
}

// MarshalJSON implements json.Marshaler. It leaves out the key, which may be a real
// one.
func (f Faults) MarshalJSON() ([]byte, error) {
	f.Key = ""
	return json.Marshal(f.wire())
}

func (f Faults) wire() faultsJSON { return faultsJSON{plainFaults(f), f.Latency.String()} }

func (j faultsJSON) faults() (Faults, error) {
	d, err := time.ParseDuration(j.LatencyText)
	if err != nil {
		return Faults{}, fmt.Errorf("latency %q is no duration such as 250ms", j.LatencyText)
	}
	f := Faults(j.plainFaults)
	f.Latency = d
	return f, nil
}

// check returns what is wrong with the faults.
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

// limiter returns the account's token bucket, full; nil is no limit.
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

// setting is everything that decides about a call. It does not change.
type setting struct {
	Faults
	bearer  []byte
	limiter *rate.Limiter // nil is no limit
	outage  *answer       // nil is none
}

// dice decides which calls fail at random. With the same seed, the n-th call it is
// asked about gets the same result in every run.
type dice struct{ r *rand.Rand }

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 0))} }

// Faults returns the faults in force.
func (s *Server) Faults() Faults { return s.setting.Load().Faults }

// SetFaults changes the faults for calls that come from now on. If the rate or the
// burst changes, the token bucket starts full.
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

// SetRate changes the account's rate in calls a second, and its burst. A rate of 0
// is no limit. A burst of 0 is a second's worth of calls.
func (s *Server) SetRate(rate float64, burst int) error {
	return s.change(func(f *Faults) { f.Rate, f.Burst = rate, burst })
}

// SetFractions changes which fractions of calls, 0 to 1, are answered 429 and 500.
func (s *Server) SetFractions(fail429, fail500 float64) error {
	return s.change(func(f *Faults) { f.Fail429, f.Fail500 = fail429, fail500 })
}

// SetLatency changes how long each call takes.
func (s *Server) SetLatency(d time.Duration) error {
	return s.change(func(f *Faults) { f.Latency = d })
}

// change puts an edited copy of the setting into force.
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
	outage, err := s.magic.outage(f.Outage)
	if err == nil {
		err = f.check()
	}
	return &setting{Faults: f, bearer: []byte(f.Key), limiter: f.limiter(), outage: outage}, err
}
