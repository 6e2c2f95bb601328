package deliver

import (
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/retry"
)

var quick = retry.Schedule{First: 10 * time.Second, Max: 10 * time.Minute, MaxAge: 48 * time.Hour}

// If a wrong clock is set back, no mail has to wait longer for its next attempt,
// neither while the relay runs nor after a restart.
func TestAClockSetBack(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		inBubble(t, plan{schedule: quick}, func(r *rig) {
			r.step(365 * 24 * time.Hour)
			id := r.keep(shop, "s", "down+1@example.net")
			r.pass(time.Second)
			r.wantStates(id, "waiting")
			r.step(-365 * 24 * time.Hour)
			if restarted {
				r.restart()
			}
			r.pass(quick.First + time.Second)
			r.wantStates(id, "sent")
		})
	}
}

// A small step of the clock costs at most that step.
func TestAClockSetBackByLittle(t *testing.T) {
	inBubble(t, plan{schedule: quick}, func(r *rig) {
		id := r.keep(shop, "s", "down+1@example.net")
		r.pass(time.Second)
		r.step(-quick.Max)
		r.pass(quick.Max + quick.First)
		r.wantStates(id, "sent")
	})
}

// If the clock is set forward, or the machine slept, mail that became due by that is
// sent without further waiting.
func TestAClockSetForwardMakesMailDue(t *testing.T) {
	inBubble(t, plan{schedule: retry.Schedule{First: 6 * time.Hour, Max: 6 * time.Hour, MaxAge: 48 * time.Hour}}, func(r *rig) {
		id := r.keep(shop, "s", "down+1@example.net")
		r.pass(time.Second)
		r.step(6 * time.Hour)
		r.pass(2 * time.Minute)
		r.wantStates(id, "sent")
	})
}

// The sender is told when the grace is over, even if the clock was set back.
func TestTheSenderIsToldAlthoughTheClockWasSetBack(t *testing.T) {
	inBubble(t, plan{schedule: hours(48), grace: time.Minute}, func(r *rig) {
		r.step(365 * 24 * time.Hour)
		r.keep(shop, "s", "invalid@example.net", "down@example.net")
		r.pass(time.Second)
		r.step(-365 * 24 * time.Hour)
		r.pass(3 * time.Minute)
		if n := len(r.bounces()); n != 1 {
			t.Errorf("%d bounces, want 1", n)
		}
	})
}
