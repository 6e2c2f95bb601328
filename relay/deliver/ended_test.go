package deliver

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Every queued recipient that comes to its end is counted once, and has a log line
// that says so with its ids.
func TestEveryEndIsCountedAndLogged(t *testing.T) {
	reg := prometheus.NewRegistry()
	inBubble(t, plan{schedule: hours(6), metrics: reg}, func(r *rig) {
		r.keep(shop, "s\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "bob@example.net")
		r.keep(shop, "s", "suppressed@example.net", "down@example.net")
		r.keep("", "s", "invalid@example.net")
		r.pass(24 * time.Hour)
		got := map[string]float64{}
		families, err := reg.Gather()
		r.must(err)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := f.GetName()
				for _, l := range m.GetLabel() {
					name += " " + l.GetValue()
				}
				got[name] = m.GetCounter().GetValue()
			}
		}
		for name, want := range map[string]float64{
			"smtp2rest_recipients_total sent queue":       3, // bob, and two bounces: one after the grace, one at the end
			"smtp2rest_recipients_total suppressed queue": 1,
			"smtp2rest_recipients_total refused queue":    1,
			"smtp2rest_recipients_total expired queue":    1,
			"smtp2rest_recipients_total sent direct":      0,
			"smtp2rest_bounces_total told":                2,
			"smtp2rest_bounces_total nobody":              1,
			"smtp2rest_bounces_total too_many":            0,
		} {
			if v, ok := got[name]; !ok || v != want {
				t.Errorf("%s is %v, want %v", name, v, want)
			}
		}
		for _, parts := range [][]string{ // each of one line
			{"outcome=accepted", "to=bob@example.net", "trace=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "session=s7"},
			{"outcome=given_up", "why=expired", "to=down@example.net", "session=s7"},
			{"outcome=accepted", "to=" + shop, "bounce_of=", "time=2000-01-01T06:00:"},
		} {
			if n := r.log.count(append(parts, "msg=recipient", "id=")...); n != 1 {
				t.Errorf("%d lines with %v, want 1", n, parts)
			}
		}
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
}
