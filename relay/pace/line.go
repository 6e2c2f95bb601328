package pace

import (
	"context"
	"time"
)

// Pass permits one call. The holder must call Leave or Return exactly once.
type Pass struct {
	pacer    *Pacer
	closings int // the pacer's, when the token was taken
	probe    bool
	waited   bool // for a token

	inUse bool          // the whole rate was in use when the token was taken;
	used  time.Duration // if so, the time since the call before

	mail, sender string // set by For
}

// For names the mail that the call sends, by its id, and its sender. Without it, a
// failure is never blamed on the mail.
func (pass *Pass) For(mail, sender string) { pass.mail, pass.sender = mail, sender }

// Probe reports whether the call probes an API that is down.
func (pass *Pass) Probe() bool { return pass.probe }

// Enter waits until a call may be made: the breaker is closed or wants a probe, the
// gate is open, a slot is free and the bucket has a token. It fails with *Busy if
// that does not happen before ctx ends, and at once if it knows that in advance.
//
// Callers wait in line. Only the first in line waits for a token, and nobody
// reserves one in advance. So a new rate or a closed gate applies to the very next
// call, and not only after everybody who is in line.
func (p *Pacer) Enter(ctx context.Context) (*Pass, error) {
	probe, err := p.admit()
	if err != nil {
		return nil, err
	}
	pass, err := p.standInLine(ctx, probe)
	if err != nil && probe {
		p.endProbe()
	}
	return pass, err
}

func (p *Pacer) standInLine(ctx context.Context, probe bool) (*Pass, error) {
	if busy := p.joinLine(ctx); busy != nil {
		return nil, busy
	}
	defer p.leaveLine()
	select {
	case p.head <- struct{}{}:
	case <-ctx.Done():
		return nil, p.busy()
	}
	defer func() { <-p.head }()
	if err := p.waitGate(ctx); err != nil {
		return nil, err
	}
	select {
	case <-p.slots.Free():
	case <-ctx.Done():
		return nil, p.busy()
	}
	pass, err := p.token(ctx, probe)
	if err != nil {
		p.slots.Return()
	}
	return pass, err
}

// joinLine joins the line, unless the caller's turn cannot come before ctx ends.
func (p *Pacer) joinLine(ctx context.Context) *Busy {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sharing.ended(time.Now()) {
		return p.busyLocked()
	}
	if deadline, ok := ctx.Deadline(); ok && p.bucket != nil {
		start := time.Now()
		if p.gate.until.After(start) {
			start = p.gate.until
		}
		missing := float64(p.line+1) - p.bucket.TokensAt(start)
		// Of a shared rate this relay has more as soon as it needs more.
		if start.Add(seconds(missing / p.tuner.rate)).After(deadline) {
			return p.busyLocked()
		}
	}
	p.line++
	return nil
}

func (p *Pacer) leaveLine() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line--
}

// TryEnter is Enter without waiting. It returns nil if no call can be made now, or
// if others wait in line.
func (p *Pacer) TryEnter() *Pass {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.line > 0 || p.breaker.open || now.Before(p.gate.until) || p.sharing.ended(now) {
		return nil
	}
	select {
	case <-p.slots.Free():
	default:
		return nil
	}
	pass := &Pass{pacer: p, closings: p.gate.closings}
	if !p.spend(now, pass) {
		p.slots.Return()
		return nil
	}
	return pass
}

// token waits for the gate and takes a token from the bucket.
func (p *Pacer) token(ctx context.Context, probe bool) (*Pass, error) {
	pass := &Pass{pacer: p, probe: probe}
	for {
		wait, err := p.take(pass)
		if err == nil && wait <= 0 {
			return pass, nil
		}
		if err == nil {
			err = p.sleep(ctx, wait)
		}
		if err != nil {
			return nil, err
		}
	}
}

// take completes the pass, or returns how long to wait before the next try.
func (p *Pacer) take(pass *Pass) (time.Duration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	switch {
	case p.breaker.open && !pass.probe:
		return 0, p.down(now)
	case p.sharing.ended(now):
		return 0, p.busyLocked()
	case now.Before(p.gate.until):
		return p.gate.until.Sub(now), nil
	case !p.spend(now, pass):
		pass.waited = true
		missing := 1 - p.bucket.TokensAt(now)
		return p.sharing.untilToken(missing, float64(p.bucket.Limit())), nil
	}
	pass.closings = p.gate.closings
	return 0, nil
}

// spend takes a token, if there is one. The whole rate is in use if the bucket is
// not full, that is, if the calls before came at the full rate. A call that finds
// it full is the first after a quiet time, unless it waited for its token.
func (p *Pacer) spend(now time.Time, pass *Pass) bool {
	if p.bucket == nil {
		p.sharing.called()
		return true
	}
	pass.inUse = pass.waited || p.bucket.TokensAt(now) < float64(p.bucket.Burst())
	if !p.bucket.AllowN(now, 1) {
		p.sharing.lacked(now, p.tuner.rate)
		return false
	}
	p.sharing.called()
	if pass.inUse {
		pass.used = now.Sub(p.last)
	}
	p.last = now
	return true
}

func (p *Pacer) waitGate(ctx context.Context) error {
	for {
		wait := p.pause()
		if wait <= 0 {
			if ctx.Err() != nil {
				return p.busy()
			}
			return nil
		}
		if err := p.sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// sleep waits. It fails at once if ctx would end before.
func (p *Pacer) sleep(ctx context.Context, wait time.Duration) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
		return p.busy()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return p.busy()
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (p *Pacer) pause() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(time.Until(p.gate.until), 0)
}

func (p *Pacer) busy() *Busy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.busyLocked()
}

func (p *Pacer) busyLocked() *Busy {
	if p.sharing.ended(time.Now()) {
		return &Busy{Wait: soonest, Why: Apart}
	}
	if wait := time.Until(p.gate.until); wait > 0 {
		return &Busy{Wait: wait, Why: Paused}
	}
	return &Busy{Wait: minPause, Why: Rate}
}
