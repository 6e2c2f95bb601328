package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/relay/retry"
)

const (
	// lookEvery is how often the directory is looked through.
	lookEvery = 10 * time.Second
	// atOnce is how many mails are handed over before it is looked through again.
	atOnce = 1_000
	// firstPause is the time until a mail is tried again; it is doubled up to mostPause.
	firstPause = 10 * time.Second
	mostPause  = 15 * time.Minute
	// fewest is how often a mail is tried at least, however old it is.
	fewest = 3
)

// Options configure a Keeper.
type Options struct {
	Settings
	// Dial connects to a listener of the relay that takes mail from this machine.
	Dial func(ctx context.Context) (Conn, error)
	// Refused takes responsibility for recipients who were refused for good: their sender
	// is told. For the same id it does so once.
	Refused func(ctx context.Context, kept Kept, m Mail, list []Refused) error
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil: none
}

// Settings are what a reload can change.
type Settings struct {
	Dir    string        // Off is none
	MaxAge time.Duration // after which a mail is given up and its sender told
}

// A Keeper hands over the mail in a directory, one at a time. The users who kept it take
// turns.
type Keeper struct {
	opt     Options
	results *prometheus.CounterVec
	wake    chan struct{}
	stop    context.CancelFunc
	ended   chan struct{}

	mu    sync.Mutex
	set   Settings
	state State

	waiting map[string]*wait // the loop's: mails that were tried, and are there still
}

// State is what the directory looked like when it was looked through last.
type State struct {
	Dir    string // "" if it is not used
	Mails  int    // that wait
	Oldest time.Time
	Aside  int   // files that are no mail
	Err    error // why nothing is handed over; nil: it is
	Since  time.Time
	Later  string // why one of the mails waits
	Unused error  // why DefaultDir is not used, although it is there
}

// wait is what is known of a mail that was not taken.
type wait struct {
	tries int
	next  time.Time
	done  map[string]bool
}

// New returns a Keeper that does nothing yet.
func New(o Options) *Keeper {
	k := &Keeper{opt: o, set: o.Settings, wake: make(chan struct{}, 1), waiting: map[string]*wait{}}
	k.results = promauto.With(o.Metrics).NewCounterVec(prometheus.CounterOpts{
		Name: "smtp2rest_sendmail_spool_handed_over_total",
		Help: "Mails that sendmail had kept, by what came of handing them over: taken (or refused and the sender told), later, aside (a file that is no mail).",
	}, []string{"result"})
	for _, result := range []string{"taken", "later", "aside"} {
		k.results.WithLabelValues(result)
	}
	promauto.With(o.Metrics).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "smtp2rest_sendmail_spool_mails",
		Help: "Mails that sendmail keeps and the relay has not taken yet.",
	}, func() float64 { return float64(k.State().Mails) })
	promauto.With(o.Metrics).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "smtp2rest_sendmail_spool_oldest_seconds",
		Help: "Age of the oldest of them; 0 if there is none.",
	}, func() float64 {
		if s := k.State(); s.Mails > 0 {
			return time.Since(s.Oldest).Seconds()
		}
		return 0
	})
	return k
}

// Start begins to hand mail over, until Stop.
func (k *Keeper) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	k.stop, k.ended = cancel, make(chan struct{})
	go k.run(ctx)
}

// Stop ends a session that is under way and waits for it. It may be called twice.
func (k *Keeper) Stop() {
	k.stop()
	<-k.ended
}

// Prepare implements a reload.
func (k *Keeper) Prepare(s Settings) (apply func(), err error) {
	return func() {
		k.mu.Lock()
		k.set = s
		k.mu.Unlock()
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}, nil
}

// State returns what the directory looked like last.
func (k *Keeper) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

func (k *Keeper) run(ctx context.Context) {
	defer close(k.ended)
	pause := firstPause
	for ctx.Err() == nil {
		more, err := k.round(ctx, time.Now())
		if ctx.Err() != nil {
			return
		}
		k.tell(err)
		wait := lookEvery
		switch {
		case err != nil:
			wait = pause
			pause = min(2*pause, mostPause)
		case more:
			continue
		default:
			pause = firstPause
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-k.wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// tell stores why nothing is handed over, and logs that it began or is over.
func (k *Keeper) tell(err error) {
	k.mu.Lock()
	before := k.state.Err
	k.state.Err = err
	switch {
	case err == nil:
		k.state.Since = time.Time{}
	case before == nil:
		k.state.Since = time.Now()
	}
	k.mu.Unlock()
	switch {
	case err != nil && before == nil:
		k.opt.Log.Warn("the mail that sendmail keeps is not handed over", "spool", k.State().Dir, "cause", err)
	case err == nil && before != nil:
		k.opt.Log.Info("the mail that sendmail keeps is handed over again", "spool", k.State().Dir)
	}
}

// round looks through the directory and hands over what is due. more says that there may
// be more to do at once. An error concerns all mail.
func (k *Keeper) round(ctx context.Context, now time.Time) (more bool, err error) {
	k.mu.Lock()
	set := k.set
	k.mu.Unlock()
	d, err := k.openDir(set.Dir)
	if d == nil {
		return false, err
	}
	defer func() { _ = d.Close() }()
	l, err := d.list(now)
	if err != nil {
		return false, err
	}
	k.saw(l.state(set.Dir, k.State().Later))
	k.forget(l)
	handed := 0
	later := ""
	for n := 0; n < perOwner && handed < atOnce; n++ {
		for _, own := range l.owners {
			if n >= len(own) || !k.due(own[n], now) {
				continue
			}
			handed++
			err := k.one(ctx, d, own[n], set)
			switch {
			case errors.Is(err, errLater):
				later = err.Error()
			case err != nil:
				return false, err
			default:
				l.mails--
			}
		}
	}
	if handed > 0 || l.mails == 0 {
		k.saw(l.state(set.Dir, later))
	}
	return handed >= atOnce, nil
}

// openDir returns nil for a directory that is not used: DefaultDir may be another
// relay's, or not there, because sendmail keeps nothing on this machine.
func (k *Keeper) openDir(path string) (d *dir, err error) {
	if path == Off {
		k.saw(State{})
		return nil, nil
	}
	d, err = open(path)
	switch {
	case err == nil:
		return d, nil
	case path == DefaultDir && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported)):
		k.saw(State{})
		return nil, nil
	case path == DefaultDir && (errors.Is(err, ErrNotOurs) || errors.Is(err, fs.ErrPermission)):
		k.saw(State{Unused: err})
		return nil, nil
	}
	k.saw(State{Dir: path})
	return nil, err
}

// saw stores what the directory looks like.
func (k *Keeper) saw(s State) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s.Err, s.Since = k.state.Err, k.state.Since
	k.state = s
}

func (l listing) state(path, later string) State {
	s := State{Dir: path, Mails: l.mails, Oldest: l.oldest, Aside: l.aside, Later: later}
	if s.Mails == 0 {
		s.Oldest = time.Time{}
	}
	return s
}

// forget drops what is known of mails that are not there any more.
func (k *Keeper) forget(l listing) {
	there := map[string]*wait{}
	for _, own := range l.owners {
		for _, e := range own {
			if w := k.waiting[e.name]; w != nil {
				there[e.name] = w
			}
		}
	}
	k.waiting = there
}

func (k *Keeper) due(e entry, now time.Time) bool {
	w := k.waiting[e.name]
	return w == nil || !now.Before(w.next)
}

// one hands one mail over and removes it. The error is errLater if only this mail has to
// wait.
func (k *Keeper) one(ctx context.Context, d *dir, e entry, set Settings) error {
	log := k.opt.Log.With("id", e.name, "uid", e.uid)
	m, err := d.read(e)
	switch {
	case errors.Is(err, fs.ErrNotExist): // its owner has removed it
		return nil
	case errors.Is(err, ErrNotWhole):
		log.Warn("a file in the spool is no mail; it is set aside", "file", asidePrefix+e.name, "spool", d.path)
		k.results.WithLabelValues("aside").Inc()
		if err := d.setAside(e); err != nil {
			return k.later(e, fmt.Errorf("%w: %w", errLater, err))
		}
		return nil
	case err != nil:
		return err
	}
	w := k.waiting[e.name]
	if w == nil {
		w = &wait{done: map[string]bool{}}
	}
	s := &session{id: e.name, uid: e.uid, mail: m, done: w.done, refused: k.opt.Refused}
	if len(s.rest()) > 0 { // else it could not be removed before
		err = k.session(ctx, s)
	}
	if errors.Is(err, errLater) && w.tries+1 >= fewest && time.Since(e.made) >= set.MaxAge {
		err = s.refuse(ctx, giveUp(s.rest(), err))
	}
	k.waiting[e.name] = w
	if errors.Is(err, errLater) {
		return k.later(e, err)
	}
	if err != nil {
		return err
	}
	k.results.WithLabelValues("taken").Inc()
	log.Info("took over a mail that sendmail kept", "from", m.From, "recipients", len(m.Recipients), "bytes", len(m.Data), "waited", time.Since(e.made).Round(time.Second))
	return d.remove(e)
}

func (k *Keeper) session(ctx context.Context, s *session) error {
	conn, err := k.opt.Dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return s.run(ctx, conn)
}

// later remembers when to try a mail again.
func (k *Keeper) later(e entry, err error) error {
	w := k.waiting[e.name]
	if w == nil {
		w = &wait{done: map[string]bool{}}
		k.waiting[e.name] = w
	}
	w.tries++
	w.next = time.Now().Add(retry.Schedule{First: firstPause, Max: mostPause}.Delay(w.tries, 0))
	k.results.WithLabelValues("later").Inc()
	k.opt.Log.Info("a mail that sendmail kept waits on", "id", e.name, "uid", e.uid, "cause", err, "next", w.next)
	return err
}

// giveUp is what the sender of a mail that is too old is told.
func giveUp(rest []string, last error) (list []Refused) {
	for _, to := range rest {
		list = append(list, Refused{to, "the mail could not be handed over for too long; " + last.Error()})
	}
	return list
}
