package budget

import (
	"testing"
	"testing/synctest"
	"time"
)

// The memory is given back once after each load, not under it, and nothing wakes a
// process that has none.
func TestAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(64*mb, nil)
		var rests []time.Time
		wait := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		stop := b.AtRest(func() { rests = append(rests, time.Now()) })

		for range 100 { // little mail is no load
			hold(t, b, Dealing, restLoad-1).Release()
		}
		wait(24 * time.Hour)
		if len(rests) > 0 || b.rest.timer != nil {
			t.Errorf("without a load it comes to rest at %v", rests)
		}

		long := hold(t, b, Dealing, restLoad)
		for range 100 { // a load that goes on
			hold(t, b, Backlog, mb).Release()
			wait(restAfter / 3)
		}
		if len(rests) > 0 {
			t.Errorf("it comes to rest under a load, at %v", rests)
		}
		long.Release()
		begin := time.Now()
		wait(24 * time.Hour)
		if len(rests) != 1 || rests[0].Sub(begin) > 2*restAfter || b.rest.timer != nil {
			t.Errorf("after a load it comes to rest at %v", rests)
		}

		hold(t, b, Reading, restLoad).Release()
		stop()
		wait(time.Hour)
		if len(rests) != 1 {
			t.Error("after stop it comes to rest")
		}
	})
}
