package pace

import (
	"context"
	"time"
)

// Pass is the leave to make one call. Leave or Return must be called exactly
// once.
type Pass struct {
	pacer   *Pacer
	opening int
	probe   bool
	waited  bool // for the bucket

	inUse bool          // all of the rate was used when the token was taken,
	used  time.Duration // and had been since the one before

	mail, sender string // see For
}

// For says which mail the call is made for, by its id, and whose it is, before
// the call. Without it no failure is put down to the mail.
func (pass *Pass) For(mail, sender string) { pass.mail, pass.sender = mail, sender }

// Probe reports whether the call tests an API that is taken to be out of order.
func (pass *Pass) Probe() bool { return pass.probe }

// Enter waits until a call may be made: the breaker is closed or wants to be
// probed, the gate is open, a place is free and the bucket has a token. When
// that cannot be before ctx ends it fails with *Busy, at once where that is
// known at once.
//
// Who waits stands in line, and only the first in it waits for a token. Nobody
// reserves one ahead: a rate that changes, or a gate that closes, then binds
// the very next call and not the one after the line.
func (p *Pacer) Enter(ctx context.Context) (*Pass, error) {
	probe, err := p.admit()
	if err != nil {
		return nil, err
	}
	pass, err := p.standInLine(ctx, probe)
	if err != nil && probe {
		p.unprobe()
	}
	return pass, err
}

func (p *Pacer) standInLine(ctx context.Context, probe bool) (*Pass, error) {
	if busy := p.join(ctx); busy != nil {
		return nil, busy
	}
	defer p.quit()
	select {
	case p.door <- struct{}{}:
	case <-ctx.Done():
		return nil, p.busy()
	}
	defer func() { <-p.door }()
	if err := p.waitGate(ctx); err != nil {
		return nil, err
	}
	select {
	case <-p.places.Free():
	case <-ctx.Done():
		return nil, p.busy()
	}
	pass, err := p.token(ctx, probe)
	if err != nil {
		p.places.Return()
	}
	return pass, err
}

// join counts the caller into the line, unless its turn cannot come before ctx
// ends.
func (p *Pacer) join(ctx context.Context) *Busy {
	p.mu.Lock()
	defer p.mu.Unlock()
	if deadline, ok := ctx.Deadline(); ok && p.bucket != nil {
		start := time.Now()
		if p.until.After(start) {
			start = p.until
		}
		missing := float64(p.line+1) - p.bucket.TokensAt(start)
		if start.Add(seconds(missing / float64(p.bucket.Limit()))).After(deadline) {
			return p.busyLocked()
		}
	}
	p.line++
	return nil
}

func (p *Pacer) quit() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line--
}

// TryEnter is Enter for who does not want to wait; nil when a call cannot be
// made now, or somebody waits to make one.
func (p *Pacer) TryEnter() *Pass {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.line > 0 || p.breaker.open || now.Before(p.until) {
		return nil
	}
	select {
	case <-p.places.Free():
	default:
		return nil
	}
	pass := &Pass{pacer: p, opening: p.opening}
	if !p.spend(now, pass) {
		p.places.Return()
		return nil
	}
	return pass
}

// token takes one from the bucket, when the gate is open.
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

// take completes the pass, or says how long to wait before the next try.
func (p *Pacer) take(pass *Pass) (time.Duration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	switch {
	case p.breaker.open && !pass.probe:
		return 0, p.breaker.busy(now)
	case now.Before(p.until):
		return p.until.Sub(now), nil
	case !p.spend(now, pass):
		pass.waited = true
		missing := 1 - p.bucket.TokensAt(now)
		return max(seconds(missing/float64(p.bucket.Limit())), 1), nil
	}
	pass.opening = p.opening
	return 0, nil
}

// spend takes a token, if there is one. All of the rate is being used when the
// bucket did not have the time to fill since the call before; a call for which
// it is full is the first after a quiet time, unless it waited for the token.
func (p *Pacer) spend(now time.Time, pass *Pass) bool {
	if p.bucket == nil {
		return true
	}
	pass.inUse = pass.waited || p.bucket.TokensAt(now) < float64(p.bucket.Burst())
	if !p.bucket.AllowN(now, 1) {
		return false
	}
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

// sleep fails, and at once, when ctx ends before the time has passed.
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
	return max(time.Until(p.until), 0)
}

func (p *Pacer) busy() *Busy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.busyLocked()
}

func (p *Pacer) busyLocked() *Busy {
	if wait := time.Until(p.until); wait > 0 {
		return &Busy{Wait: wait, Why: Paused}
	}
	return &Busy{Wait: minPause, Why: Rate}
}
