package pace

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics count events. Gauges ask the Pacer for its state.
type metrics struct {
	pauses prometheus.Counter
	opened *prometheus.CounterVec
}

// whyLabel returns the reason why the breaker is open as a metric label.
func whyLabel(w Why) string {
	switch w {
	case KeyBad:
		return "key_refused"
	case Forbidden:
		return "forbidden"
	default:
		return "api_down"
	}
}

func newMetrics(reg prometheus.Registerer, p *Pacer) *metrics {
	auto := promauto.With(reg)
	m := &metrics{
		pauses: auto.NewCounter(prometheus.CounterOpts{
			Name: "smtp2rest_pace_pauses_total",
			Help: "How often the API answered 429 and was paused. Calls that were in flight together count once.",
		}),
		opened: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "smtp2rest_breaker_opened_total",
			Help: "How often the API was found to be down, so that mail was queued and one call at a time probed it: " +
				"api_down after failures in a row, key_refused (401) and forbidden (403, for the key or for one sender) at once.",
		}, []string{"why"}),
	}
	for _, why := range []Why{Down, KeyBad, Forbidden} {
		m.opened.WithLabelValues(whyLabel(why))
		auto.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "smtp2rest_breaker_open",
			Help:        "1 while the API is taken to be down, by the reason. Mail is queued then and nothing is lost.",
			ConstLabels: prometheus.Labels{"why": whyLabel(why)},
		}, func() float64 {
			b := p.State().Breaker
			return oneIf(b.Open && whyLabel(b.Why) == whyLabel(why))
		})
	}
	gauge := func(name, help string, value func(State) float64) {
		auto.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(p.State()) })
	}
	gauge("smtp2rest_breaker_open_since_timestamp_seconds", "Since when the API is taken to be down, as Unix time; 0 while it is not.",
		func(s State) float64 { return unix(s.Breaker.Opened) })
	gauge("smtp2rest_pace_paused_until_timestamp_seconds", "Until when the API asked to be paused (429, Retry-After), as Unix time; 0 if it did not.",
		func(s State) float64 { return unix(s.PausedUntil) })
	gauge("smtp2rest_pace_rate_calls_per_second", "Calls a second that are made to the account at most: the configured rate, or the one found; 0 while none is known and none needed.",
		func(s State) float64 { return s.Rate })
	gauge("smtp2rest_pace_share_calls_per_second", "Calls a second of that rate that are this relay's: all of them, unless several relays share the account.",
		func(s State) float64 { return s.Share })
	gauge("smtp2rest_pace_rate_found", "1 if the relay found that rate from the API's 429s, 0 if it is configured or there is none.",
		func(s State) float64 { return oneIf(s.Found) })
	gauge("smtp2rest_pace_bucket_calls", "Calls that could be made at once, by the rate alone; 0 while it is used up or not known.",
		func(s State) float64 { return s.Tokens })
	gauge("smtp2rest_pace_waiting", "Attempts that wait in line for their turn to call the API.",
		func(s State) float64 { return float64(s.Waiting) })
	gauge("smtp2rest_pace_calls_in_flight", "Calls to the API that are under way.",
		func(s State) float64 { return float64(s.InFlight) })
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "smtp2rest_pace_calls_in_flight_limit",
		Help: "Calls to the API that may be under way at once (api.concurrency).",
	}, func() float64 { return float64(p.slots.Size()) })
	return m
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
