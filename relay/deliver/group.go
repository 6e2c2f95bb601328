package deliver

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

// Group drains one queue for several accounts. Each has an Engine of its own, with its
// own workers, so that an account that is slow or closed takes nothing from another.
// What is not an account's is done by the first: it purges, and writes all bounces.
type Group struct {
	engines []*Engine
	of      map[string]*Engine
	end     chan struct{} // nil when no loop passes on what the queue wakes for
	ended   sync.Once
	loops   sync.WaitGroup
}

// NewGroup returns a Group with an Engine for each of the given Options, which must
// have one queue. The first is the default account's.
func NewGroup(options ...Options) *Group {
	g := &Group{of: map[string]*Engine{}}
	if len(options) > 1 {
		g.end = make(chan struct{})
	}
	for _, o := range options {
		e := New(o)
		if len(g.engines) > 0 {
			first := g.engines[0]
			e.pendingBounces, e.sentTo, e.secondary = first.pendingBounces, first.sentTo, true
			e.flight = first.flight // a mail may be given to another account while it is tried
		}
		if g.end != nil {
			e.woken = make(chan struct{}, 1)
		}
		e.engineOf, e.later = g.Engine, g.wakeForLater
		g.engines, g.of[o.Account] = append(g.engines, e), e
	}
	return g
}

// Engine returns the Engine of an account, or the first for an account that there is
// not any more.
func (g *Group) Engine(account string) *Engine {
	if e := g.of[account]; e != nil {
		return e
	}
	return g.engines[0]
}

// Start begins to drain the queue and returns at once.
func (g *Group) Start() {
	for _, e := range g.engines {
		e.Start()
	}
	if g.end != nil {
		g.loops.Go(g.wakeAll)
	}
}

// wakeAll passes on to every Engine that something may have become due. Which account's
// it is nobody says, and looking costs little.
func (g *Group) wakeAll() {
	for {
		select {
		case <-g.engines[0].opt.Queue.Wake():
			for _, e := range g.engines {
				signal(e.woken)
			}
		case <-g.end:
			return
		}
	}
}

// wakeForLater has all Engines look when the next recipient is due: the mail may have been
// given to another account while it was tried.
func (g *Group) wakeForLater() {
	for _, e := range g.engines {
		signal(e.dueSooner)
	}
}

// StopClaiming is that of all Engines.
func (g *Group) StopClaiming() {
	for _, e := range g.engines {
		e.StopClaiming()
	}
}

// Stop is that of all Engines.
func (g *Group) Stop(ctx context.Context) {
	g.StopClaiming()
	for _, e := range g.engines {
		e.Stop(ctx)
	}
	if g.end != nil {
		g.ended.Do(func() { close(g.end) })
		g.loops.Wait()
	}
}

// Keep enqueues the parts of one message for its account. It implements intake.Queue.
func (g *Group) Keep(ctx context.Context, parts ...relay.Remainder) error {
	if len(parts) == 0 {
		return nil
	}
	return g.Engine(parts[0].Message.Account).Keep(ctx, parts...)
}

// Alive returns nil while all Engines make progress or are able to.
func (g *Group) Alive(ctx context.Context) error {
	var errs []error
	for _, e := range g.engines {
		errs = append(errs, e.Alive(ctx))
	}
	return errors.Join(errs...)
}

// Trouble returns the first Engine's trouble, of those that have any.
func (g *Group) Trouble() (since time.Time, err error) {
	for _, e := range g.engines {
		if since, err = e.Trouble(); err != nil {
			return since, err
		}
	}
	return time.Time{}, nil
}
