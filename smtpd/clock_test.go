package smtpd

import (
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/internal/settings"
)

// steady has a client send n octets each time, so far apart, and returns when
// the clock ended it, or after a day.
func steady(c *clock, n int, apart time.Duration) (after time.Duration, name limit) {
	start := time.Now()
	c.startMessage(start)
	for now := start; now.Sub(start) < 24*time.Hour; {
		next := now.Add(apart)
		if end := c.deadline(now); next.After(end) {
			_, name := c.missed(end)
			return end.Sub(start), name
		}
		now = next
		c.read(now, n)
	}
	return 24 * time.Hour, ""
}

// Slow but honest clients pass; those that only keep the connection do not.
func TestClock(t *testing.T) {
	limits := settings.Defaults[Limits]()
	for _, tt := range []struct {
		name  string
		n     int
		apart time.Duration
		least time.Duration // until the end
		most  time.Duration
		limit limit
	}{
		{"silent", 0, time.Hour, 2 * time.Minute, 2 * time.Minute, limitMinRate},
		{"an octet a second", 1, time.Second, 2 * time.Minute, 3 * time.Minute, limitMinRate},
		{"an octet every 20 ms", 1, 20 * time.Millisecond, 3 * time.Minute, 5 * time.Minute, limitMinRate},
		{"a modem of 1,200 bit/s", 120, time.Second, 30 * time.Minute, 30 * time.Minute, limitMessageTime},
		{"a block each minute", 8000, time.Minute, 30 * time.Minute, 30 * time.Minute, limitMessageTime},
		{"a block each three minutes", 1 << 20, 3 * time.Minute, 2 * time.Minute, 2 * time.Minute, limitMinRate},
	} {
		after, name := steady(&clock{limits: limits}, tt.n, tt.apart)
		if name != tt.limit || after < tt.least || after > tt.most+time.Millisecond {
			t.Errorf("%s: after %v, %q", tt.name, after, name)
		}
	}
	limits.MinRate = 0
	if after, name := steady(&clock{limits: limits}, 0, time.Hour); after != limits.IdleTime || name != limitIdle {
		t.Errorf("without a rate: after %v, %q", after, name)
	}
}

// What the client was kept waiting for is not its fault.
func TestClockExcuses(t *testing.T) {
	now := time.Now()
	c := clock{limits: settings.Defaults[Limits]()}
	c.startMessage(now)
	end, full := c.messageEnd, c.left(now)
	now = now.Add(time.Hour)
	c.excuse(time.Hour)
	if got := c.messageEnd.Sub(end); got != time.Hour || c.left(now) != full {
		t.Errorf("%v more, and %v octets ahead", got, c.left(now))
	}
}

// A command line has to be whole in time, however its octets come.
func TestClockOfALine(t *testing.T) {
	now := time.Now()
	c := clock{limits: settings.Defaults[Limits]()}
	c.startLine(now)
	end := c.deadline(now)
	now = now.Add(time.Minute)
	c.read(now, 1)
	if got := c.deadline(now); got != end || end.Sub(now) != 4*time.Minute {
		t.Errorf("an octet makes it %v", got.Sub(end))
	}
	c.endLine(now)
	if got := c.deadline(now); got.Sub(now) != c.limits.IdleTime {
		t.Errorf("%v for what comes next", got.Sub(now))
	}
}
