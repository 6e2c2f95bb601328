package pace

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"math"
	mathrand "math/rand/v2"
	"sync"
	"time"
)

// Ledger is where relays that use the same account write down what they know of it.
type Ledger interface {
	// Update replaces what is written by what change makes of it, and nobody writes in
	// between; if somebody does, change is called again. now is the ledger's clock.
	// With tell the other relays are woken.
	Update(ctx context.Context, change func(now time.Time, written []byte) (next []byte, tell bool)) error
	// Changed has a value when another relay told something.
	Changed() <-chan struct{}
}

const (
	// shareLease is for how long a share is a relay's own: with a ledger that is out of
	// reach it makes no calls after that, and if it dies others have its share.
	shareLease = 2 * time.Second
	// shareEvery is the longest time between two looks at the ledger.
	shareEvery = 600 * time.Millisecond
	// soonest is the shortest.
	soonest = 100 * time.Millisecond
	// tellOf is the part of the rate of which others are told when it is free, or lacking.
	tellOf = 0.02
	// askAgain is how long who waits for a breaker waits at most: another relay may close it.
	askAgain = 2 * time.Second
	// probeLease is how long a relay has for its probe to begin.
	probeLease = 5 * time.Second
)

// sharing is a Pacer's part in an account that other relays use as well. The Pacer's
// mutex guards it. Its methods do nothing if it is nil.
type sharing struct {
	ledger Ledger
	id     string
	kick   chan struct{} // asks for a look at the ledger

	share  float64   // calls per second
	ends   time.Time // of the lease
	relays int
	joined bool

	mayUntil time.Time // this relay may probe an API that is down
	probe    bool      // it would like to

	since    time.Time // when the following was counted from
	calls    int
	lackedAt time.Time // when a call had to wait for the share
	want     want

	news news
}

// news is what this relay learnt since it last wrote into the ledger.
type news struct {
	rejected *rejection // the first 429, with the longest pause
	worked   int        // closings of the gate when the API last answered otherwise, and one; 0: it did not
	answers  int        // calls that the account allowed,
	inUse    int        // those of them at which the whole rate was in use,
	used     time.Duration
	breaker  bool // the breaker changed,
	probed   bool // by a probe
}

// and returns the news of both, n being the older.
func (n news) and(later news) news {
	if later.rejected == nil {
		later.rejected = n.rejected
	} else if n.rejected != nil {
		r := *n.rejected
		r.retryAfter = max(r.retryAfter, later.rejected.retryAfter+later.rejected.at.Sub(r.at))
		later.rejected = &r
	}
	if later.worked == 0 {
		later.worked = n.worked
	}
	later.answers += n.answers
	later.inUse += n.inUse
	later.used += n.used
	later.breaker = later.breaker || n.breaker
	later.probed = later.probed || n.probed
	return later
}

// Share makes the Pacer one of several that use the same account: gate, breaker and
// rate are those of the ledger from then on, and of the rate this Pacer has a share. It
// must be called before the first Enter. The caller must call stop when no call will be
// made any more; it gives the share back.
func (p *Pacer) Share(ctx context.Context, l Ledger) (stop func(), err error) {
	s := &sharing{ledger: l, id: rand.Text()[:12], kick: make(chan struct{}, 1), since: time.Now()}
	p.mu.Lock()
	p.sharing = s
	p.mu.Unlock()
	if err := p.exchange(ctx); err != nil {
		return nil, err
	}
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	var loop sync.WaitGroup
	loop.Go(func() { p.keepSharing(running) })
	return func() {
		end()
		loop.Wait()
		p.leaveLedger()
	}, nil
}

// keepSharing looks at the ledger again and again until ctx ends.
func (p *Pacer) keepSharing(ctx context.Context) {
	s := p.sharing
	var failing time.Time
	for {
		kick := s.kick
		if !failing.IsZero() { // once in a while is enough then
			kick = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-kick:
		case <-s.ledger.Changed():
		case <-time.After(shareEvery*2/3 + mathrand.N(shareEvery/3)):
		}
		err := p.exchange(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && failing.IsZero():
			failing = time.Now()
			p.opt.Log.Warn("the relays that share the account cannot be asked for a share of its rate; without one no calls are made", "cause", err)
		case err == nil && !failing.IsZero():
			p.opt.Log.Info("the relays that share the account were asked again", "after", time.Since(failing).Round(time.Millisecond))
			failing = time.Time{}
		}
		select {
		case <-ctx.Done():
		case <-time.After(soonest):
		}
	}
}

// exchange writes the news into the ledger, and takes over what is written there. What
// takes longer than a lease is of no use.
func (p *Pacer) exchange(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shareLease)
	defer cancel()
	s := p.sharing
	p.mu.Lock()
	n := s.news
	s.news = news{}
	s.measure(time.Now(), p.line)
	p.mu.Unlock()
	var a record
	var c clocks
	asked := time.Now()
	err := s.ledger.Update(ctx, func(now time.Time, written []byte) (next []byte, tell bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		c = clocks{ledger: now, asked: asked, now: time.Now()}
		a, tell = p.enter(written, n, c)
		// What is given back is used no more even before others can take it.
		if share := a.Relays[s.id].Share; s.joined && share < s.share {
			s.share = share
			p.retune(c.now)
		}
		asked = time.Now()
		next, _ = json.Marshal(a) // it has numbers that are finite, and texts
		return next, tell
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		s.news = n.and(s.news)
		return err
	}
	p.adopt(a, c)
	return nil
}

// enter returns what to write: what is written, with this relay's news. The other relays
// are told of what they should know before they would look.
func (p *Pacer) enter(written []byte, n news, c clocks) (a record, tell bool) {
	s := p.sharing
	a, there := readRecord(written)
	if !there { // the first relay writes down what it knows from before
		a.Until, a.Tuner = c.written(p.gate.until), p.tuner.written()
		a.Tuner.Last = time.Time{}
	}
	for id, m := range a.Relays {
		if !m.Ends.After(c.ledger) && id != s.id {
			delete(a.Relays, id)
		}
	}
	me := a.Relays[s.id]
	if !me.Ends.After(c.ledger) { // others may have had it since
		me.Share = 0
	}
	me.Ends, me.Rate, me.want = c.ledger.Add(shareLease), p.opt.Rate, s.want
	a.Relays[s.id] = me
	a.configure()
	tell = a.learn(n, p.opt.MaxPause, c)
	if down := a.Breaker.Open; p.enterBreaker(&a.Breaker, n, c) {
		tell = true
		if down && !a.Breaker.Open {
			t := a.Tuner.tuner()
			t.startSlowly()
			a.Tuner = t.written()
		}
	}
	if _, alive := a.Relays[a.Breaker.Prober]; !alive || !a.Breaker.Probing.After(c.ledger) {
		a.Breaker.Prober = ""
	}
	p.applyForProbe(&a.Breaker, c)
	return a, a.divide(s.id) || tell
}

// learn moves the gate and tunes the rate.
func (a *record) learn(n news, most time.Duration, c clocks) (tell bool) {
	g, t := gate{a.Until, a.Closings, a.InARow}, a.Tuner.tuner()
	t.count(n.answers, n.inUse, n.used)
	if n.worked == g.closings+1 {
		g.inARow = 0
	}
	if n.rejected != nil {
		r := *n.rejected
		r.at = c.written(r.at)
		began, longer := g.close(r, most, &t)
		tell = began || longer
	}
	a.Until, a.Closings, a.InARow, a.Tuner = g.until, g.closings, g.inARow, t.written()
	return tell
}

// enterBreaker writes down what this relay found of the API.
func (p *Pacer) enterBreaker(w *writtenBreaker, n news, c clocks) (tell bool) {
	switch mine := p.breaker.written(c); {
	case !n.breaker:
		return false
	case n.probed || !w.Open:
		*w = mine
	case mine.Open && mine.ProbeAt.Before(w.ProbeAt): // something may have mended it
		w.ProbeAt = mine.ProbeAt
	}
	return true
}

// applyForProbe has this relay make the next probe if it is due and nobody else's.
func (p *Pacer) applyForProbe(w *writtenBreaker, c clocks) {
	s := p.sharing
	switch {
	case !w.Open:
	case w.Prober == s.id && p.breaker.probing, w.Prober == "" && s.probe && !c.ledger.Before(w.ProbeAt):
		w.Prober, w.Probing = s.id, c.ledger.Add(probeLease)
	}
}

// divide gives a relay its share. It reports whether others should look: to give
// something, or because there is something for them.
func (a *record) divide(id string) (tell bool) {
	rate, me := a.Tuner.Rate, a.Relays[id]
	if rate == 0 {
		me.Share = 0
		a.Relays[id] = me
		return false
	}
	free, lacking := rate, false
	wants := []want{me.want}
	for other, m := range a.Relays {
		if other != id {
			free -= m.Share
			lacking = lacking || m.Lacked
			wants = append(wants, m.want)
		}
	}
	fair := divide(rate, wants)[0]
	before := me.Share
	me.Share = next(before, fair, free)
	a.Relays[id] = me
	given, missing := before-me.Share, fair-me.Share
	return given > tellOf*rate && lacking || missing > tellOf*rate && me.Lacked
}

// adopt takes over what is written.
func (p *Pacer) adopt(a record, c clocks) {
	s, me := p.sharing, a.Relays[p.sharing.id]
	if late := c.now.Sub(s.ends); s.joined && late > 0 {
		p.opt.Log.Info("the ledger of the relays that share the account answered late; no calls were made meanwhile", "for", late.Round(time.Millisecond))
	}
	s.ends, s.relays = c.ends(me.Ends), len(a.Relays)
	s.share, s.probe = me.Share, false
	p.tuner = a.Tuner.tuner()
	if a.Closings > p.gate.closings && s.news.rejected == nil && a.Until.After(c.ledger) && s.joined {
		p.opt.Log.Warn("the API answered 429 to another relay: calls are paused", "for", a.Until.Sub(c.ledger), "in_a_row", a.InARow, "rate", a.Tuner.Rate)
	}
	if until := c.read(a.Until); until.After(c.now) && until.After(p.gate.until.Add(soonest)) {
		p.gate.until = until
		p.emptyBucket(until)
		if p.opt.Paused != nil {
			p.opt.Paused(until, p.found())
		}
	}
	if s.news.rejected == nil {
		p.gate.closings, p.gate.inARow = a.Closings, a.InARow
	}
	if !s.news.breaker {
		p.adoptBreaker(a.Breaker, c)
	}
	if !s.joined {
		s.joined = true
		p.retune(c.now)
		if p.bucket != nil { // others may have used up what there was
			p.emptyBucket(later(c.now, p.gate.until))
		}
	}
	p.retune(c.now)
}

func (p *Pacer) adoptBreaker(w writtenBreaker, c clocks) {
	p.sharing.mayUntil = time.Time{}
	switch b := &p.breaker; {
	case w.Open:
		if !b.open {
			p.opt.Log.Error("breaker open: another relay found the API down", "why", string(w.Why), "status", w.Last.Status)
		}
		b.take(w, c)
		if w.Prober == p.sharing.id {
			p.sharing.mayUntil = c.ends(w.Probing)
		}
	case b.open:
		p.closeBreaker(c.now)
	}
}

// leaveLedger gives back what this relay has.
func (p *Pacer) leaveLedger() {
	s := p.sharing
	ctx, cancel := context.WithTimeout(context.Background(), shareLease)
	defer cancel()
	p.mu.Lock()
	s.ends = time.Time{}
	p.mu.Unlock()
	err := s.ledger.Update(ctx, func(now time.Time, written []byte) (next []byte, tell bool) {
		a, _ := readRecord(written)
		delete(a.Relays, s.id)
		if a.Breaker.Prober == s.id {
			a.Breaker.Prober = ""
		}
		next, _ = json.Marshal(a)
		return next, true
	})
	if err != nil {
		p.opt.Log.Warn("this relay's share of the account's rate could not be given back; it ends by itself", "after", shareLease, "cause", err)
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// measure says what this relay wants.
func (s *sharing) measure(now time.Time, line int) {
	past := now.Sub(s.since)
	if past < soonest/2 {
		return
	}
	// What is measured in less than a second counts for less.
	part := 1 - math.Exp(-2*past.Seconds())
	s.want.Used += part * (float64(s.calls)/past.Seconds() - s.want.Used)
	s.want.Line += part * (float64(line) - s.want.Line)
	s.want.Lacked = now.Sub(s.lackedAt) < time.Second
	s.since, s.calls = now, 0
}

// wake asks for a look at the ledger.
func (s *sharing) wake() {
	if s == nil {
		return
	}
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// ended reports whether this relay has no share any more.
func (s *sharing) ended(now time.Time) bool { return s != nil && now.After(s.ends) }

func (s *sharing) called() {
	if s != nil {
		s.calls++
	}
}

// lacked is told that a call has to wait for the share.
func (s *sharing) lacked(now time.Time, rate float64) {
	if s == nil {
		return
	}
	s.lackedAt = now
	if !s.want.Lacked && s.share < rate { // others may not need theirs
		s.want.Lacked = true
		s.wake()
	}
}

// untilToken returns how long to wait until tokens come at a rate. The share may change
// meanwhile.
func (s *sharing) untilToken(missing, rate float64) time.Duration {
	wait := missing / rate
	if s != nil {
		wait = min(wait, soonest.Seconds())
	}
	return max(seconds(wait), 1)
}

func (s *sharing) answered(pass *Pass, allowed bool, rate float64) {
	if s == nil {
		return
	}
	s.news.worked = pass.closings + 1
	if !allowed {
		return
	}
	s.news.answers++
	if pass.inUse && rate > 0 {
		s.news.inUse++
		s.news.used += time.Duration(float64(pass.used) * min(s.share/rate, 1))
	}
}

func (s *sharing) limited(r rejection) {
	if s == nil {
		return
	}
	s.news = s.news.and(news{rejected: &r})
	s.wake()
}

func (s *sharing) breakerChanged(probed bool) {
	if s == nil {
		return
	}
	s.news = s.news.and(news{breaker: true, probed: probed})
	s.wake()
}

// mayProbe reports whether this relay may probe an API that is down. If not it asks for
// the leave.
func (s *sharing) mayProbe(now time.Time) bool {
	if s == nil || now.Before(s.mayUntil) {
		return true
	}
	s.probe = true
	s.wake()
	return false
}

// describe adds to the state.
func (s *sharing) describe(now time.Time, st *State) {
	if s == nil {
		return
	}
	st.Relays = s.relays
	if s.ended(now) {
		st.Share, st.Apart = 0, s.ends
	}
}
