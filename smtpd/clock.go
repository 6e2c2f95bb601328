package smtpd

import (
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// A clock bounds the reading of a connection: a whole command line comes
// within IdleTime, however its octets are spread; a whole message within
// MessageTime, its octets no further apart than IdleTime and no more slowly
// than MinRate. Its user holds a lock.
//
// The rate is a bucket that leaks: it holds what a client that keeps to the
// rate sends in RateTime, starts full, and takes in what comes. Empty, it is
// the end. So a pause of RateTime is forgiven, now and then, and one octet at a
// time is not.
type clock struct {
	limits   Limits
	stranger bool // may not send, and is given less time for a command

	lineEnd    time.Time // of the command line that is being read
	messageEnd time.Time // of the message that is being read
	credit     float64   // what the bucket held at some time
	at         time.Time
}

// idle is how long the client may be silent.
func (c *clock) idle() time.Duration {
	if c.stranger {
		return min(c.limits.IdleTime, c.limits.StrangerTime)
	}
	return c.limits.IdleTime
}

func (c *clock) startLine(now time.Time) { c.lineEnd = now.Add(c.idle()) }

func (c *clock) endLine() { c.lineEnd = time.Time{} }

func (c *clock) startMessage(now time.Time) {
	if c.messageEnd.IsZero() {
		c.messageEnd = now.Add(c.limits.MessageTime)
		c.credit, c.at = c.most(), now
	}
}

func (c *clock) endMessage() { c.messageEnd = time.Time{} }

func (c *clock) most() float64 { return float64(c.limits.MinRate) * c.limits.RateTime.Seconds() }

// read takes in n octets.
func (c *clock) read(now time.Time, n int) {
	c.credit = min(c.left(now)+float64(n), c.most())
	c.at = now
}

func (c *clock) left(now time.Time) float64 {
	return c.credit - float64(c.limits.MinRate)*now.Sub(c.at).Seconds()
}

// rated reports whether the rate counts now.
func (c *clock) rated() bool { return !c.messageEnd.IsZero() && c.limits.MinRate > 0 }

// excuse is for time in which the client was kept waiting by us.
func (c *clock) excuse(d time.Duration) {
	if !c.messageEnd.IsZero() {
		c.messageEnd, c.at = c.messageEnd.Add(d), c.at.Add(d)
	}
}

// deadline is until when a read may last.
func (c *clock) deadline(now time.Time) time.Time {
	d := now.Add(c.idle())
	if !c.lineEnd.IsZero() && c.lineEnd.Before(d) {
		d = c.lineEnd
	}
	if !c.messageEnd.IsZero() && c.messageEnd.Before(d) {
		d = c.messageEnd
	}
	if c.rated() {
		seconds := c.left(now) / float64(c.limits.MinRate)
		if empty := now.Add(time.Duration(seconds * float64(time.Second))); empty.Before(d) {
			d = empty
		}
	}
	return d
}

// missed is what a client is told that missed the deadline, and the limit.
func (c *clock) missed(now time.Time) (*reply.Reply, limit) {
	switch {
	case !c.messageEnd.IsZero() && !now.Before(c.messageEnd):
		return reply.TooSlow(), limitMessageTime
	case c.rated() && c.left(now) <= 0:
		return reply.BelowRate(), limitMinRate
	}
	if c.stranger && c.limits.StrangerTime < c.limits.IdleTime {
		return reply.TooSlow(), limitStrangerTime
	}
	return reply.TooSlow(), limitIdle
}
